"""`kun-build evaluate pairs RUN`: a model judges the pairs of a run, beside others and by a rubric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.options import Command, open_plugins, output_options, plugins_dir_option, urls
from kun_builder.cli.output import Output

if TYPE_CHECKING:
    from kun_builder.recipe.registry import Registry
    from kun_builder.types import ModelSpec


@click.command(
    "pairs",
    cls=Command,
    examples=(
        "kun-build evaluate pairs runs/my-kun --judge chat                  polished against raw, and marks",
        "kun-build evaluate pairs runs/my-kun --judge Qwen/Qwen3-32B --endpoint http://gpu1:8000",
        "kun-build evaluate pairs runs/new --judge chat --recipe recipe.yaml --against runs/old --against ORG/NAME",
    ),
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--judge", required=True, metavar="MODEL", help="A model of the recipe, or what --endpoint serves.")
@click.option(
    "--against",
    multiple=True,
    default=("raw",),
    metavar="WHAT",
    help="`raw` (each answer's own text), another run, a file of pairs, a dataset; repeatable [raw].",
)
@click.option("--sample", type=click.IntRange(min=1), default=100, metavar="N", help="Pairs to judge [100].")
@click.option("--rubric/--no-rubric", default=True, help="Mark pairs from 1 to 5 by each criterion [yes].")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Another seed draws other pairs [0].")
@click.option(
    "--recipe", type=click.Path(path_type=Path), metavar="FILE", help="Where MODEL is described [the run's lock file]."
)
@click.option(
    "--endpoint", "endpoints", multiple=True, callback=urls, metavar="URL", help="Server of MODEL; repeatable."
)
@plugins_dir_option
@output_options
def pairs(
    run: Path,
    judge: str,
    against: tuple[str, ...],
    sample: int,
    rubric: bool,
    seed: int,
    recipe: Path | None,
    endpoints: tuple[str, ...],
    plugins_dirs: tuple[Path, ...],
    out: Output,
) -> None:
    """Let MODEL judge pairs of the finished run in RUN: blind, each comparison with places exchanged, and by a rubric.

    The judge is tested as well: by answers of other rows to the same questions, which it has to find worse, and by how
    often both orders agree. Where it is no better than chance, a warning says so, and the card.

    The result goes into RUN/evaluation.json, and from there into the report and the card.
    """
    from kun_builder.cli.progress import progress
    from kun_builder.recipe.recipe import Plugins, plugin_settings
    from kun_builder.status import Status
    from kun_training.evaluation.pairs import evaluate_pairs, write_evaluation

    source = recipe or run / "recipe.lock.yaml"
    settings = plugin_settings(source)
    registry = open_plugins(Plugins(dirs=(*settings.dirs, *plugins_dirs), disable=settings.disable), out)
    spec = _judge(judge, source, registry, endpoints)
    status = Status()
    with progress(status, out):
        found = evaluate_pairs(
            run, spec, registry.engines, against, sample=sample, rubric=rubric, seed=seed, status=status
        )
    _show(found, out)
    out.note(f"written: {write_evaluation(run, found)}")


def _judge(name: str, source: Path, registry: Registry, endpoints: tuple[str, ...]) -> ModelSpec:
    """The model of the recipe that is called `name`; else what the endpoints serve under that name."""
    from kun_builder.errors import suggest
    from kun_builder.recipe.file import RecipeFile
    from kun_builder.recipe.parts import read_models
    from kun_builder.types import ModelSpec

    file = RecipeFile.read(source)
    known = file.data.get("models")
    if isinstance(known, dict) and name in known:
        file.data["models"] = {name: known[name] or {}}
        models, _ = read_models(file, registry, endpoints)
        file.check()
        return models[name]
    if endpoints:
        return ModelSpec(name="judge", engine="openai", endpoints=endpoints, model=name)
    raise click.UsageError(
        f"{source} has no model `{name}`{suggest(name, known or ())}; one that is not in it needs --endpoint URL"
    )


def _show(found: dict[str, Any], out: Output) -> None:
    if out.format == "json":
        out.json(found)
        return
    if out.format == "quiet":
        for name, one in found["comparisons"].items():
            out.text(f"{name} {one['rate']['value']:.3f}")
        return
    out.text(f"{found['pairs']} pairs, judged by {found['judge']['id']}")
    columns = ("against", ">won", ">tied", ">lost", ">rate", ">95 %", ">same words", ">not read")
    control = [found["control"]] if found["control"] else []
    comparisons = [*found["comparisons"].values(), *control]
    out.table(columns, [dict(zip(columns, _result(one), strict=True)) for one in comparisons])
    trust = ("is the judge one?", ">both orders agree", ">by chance", ">for the first place")
    out.table(trust, [dict(zip(trust, _trust(one), strict=True)) for one in comparisons])
    marks = ("criterion", ">mark, 1 to 5", ">95 %", ">pairs", ">other rows' answers")
    out.table(
        marks,
        [
            dict(zip(marks, (name, *_share(one["mean"], 2), one["rows"], _control(one)), strict=True))
            for name, one in found["marks"].items()
        ],
    )
    for message in doubts(found):
        out.warn(message, "take a larger model as judge, or more pairs; `kun-build review` asks people")


def doubts(found: dict[str, Any]) -> list[str]:
    """Why the judge is not to be believed, a sentence for each reason."""
    control = found["control"]
    said = []
    if control and not control["sure"]:
        said.append(
            f"the judge does not tell the answers from those of other rows: of {_asked(control)} it preferred"
            f" {control['wins']}, and {control['losses']} of the others'; what it says of this run means nothing"
        )
    for name, one in found["comparisons"].items():
        if not one["sure"]:
            said.append(
                f"{name}: with the places exchanged the judge says the same of {one['consistent']:.0%} of {_asked(one)}"
                f" pairs; {one['chance']:.0%} would be chance, so that its verdicts may be no more than that"
            )
    unsure = [name for name, one in found["marks"].items() if not one["sure"]]
    if unsure:
        said.append(f"answers of other rows get no lower marks ({', '.join(unsure)}): these marks mean nothing")
    return said


def _asked(one: dict[str, Any]) -> int:
    return int(one["wins"] + one["ties"] + one["losses"] - one["same"])


def _result(one: dict[str, Any]) -> tuple[Any, ...]:
    unread = sum(one["unread"].values())
    return one["against"], one["wins"], one["ties"], one["losses"], *_share(one["rate"], 3), one["same"], unread


def _trust(one: dict[str, Any]) -> tuple[str, ...]:
    if not _asked(one):
        return one["against"], "-", "-", "-"
    return one["against"], f"{one['consistent']:.0%}", f"{one['chance']:.0%}", f"{one['first']:.0%}"


def _control(one: dict[str, Any]) -> str:
    return f"{one['control']['value']:.2f}" if one["control"] else "-"


def _share(share: dict[str, float], digits: int) -> tuple[str, str]:
    return f"{share['value']:.{digits}f}", f"{share['low']:.{digits}f} to {share['high']:.{digits}f}"
