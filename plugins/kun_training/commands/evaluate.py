"""`kun-build evaluate label|score|pairs`: how good a label model, a scorer and the pairs of a run are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.machine import forbid_downloads, need_training
from kun_builder.cli.options import (
    Command,
    Group,
    open_plugins,
    open_recipe,
    output_options,
    plugins_dir_option,
    recipe_argument,
)
from kun_builder.cli.output import Output, printable
from kun_training.commands.evaluate_pairs import pairs

if TYPE_CHECKING:
    from kun_training.evaluation.label import LabelReport
    from kun_training.evaluation.scorer import ScoreReport

_folder = click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write figures (JSON) and picture (PNG) there."
)
_limit = click.option("--limit", type=click.IntRange(min=1), default=200, metavar="N", help="Use N pairs [200].")
_seeds = click.option(
    "--seeds",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Held-out pairs; repeatable.",
)


@click.group(cls=Group, short_help="Measure a label model, or the scorer of a recipe.")
def command() -> None:
    """Measure a label model or a scorer on held-out pairs of instruction and answer, or the pairs of a run."""


command.add_command(pairs)


@command.command(
    "label",
    cls=Command,
    examples=(
        "kun-build evaluate label models/label                             on the pairs it kept apart",
        "kun-build evaluate label models/label --seeds held_out.jsonl --limit 50 --output evaluation",
        "kun-build evaluate label ORG/NAME --seeds held_out.jsonl --base Qwen/Qwen2.5-7B --json",
    ),
)
@click.argument("model")
@_seeds
@click.option("--base", metavar="MODEL", help="Untrained model to compare with [what MODEL was trained from].")
@_limit
@_folder
@plugins_dir_option
@output_options
def label(
    model: str,
    seeds: tuple[Path, ...],
    base: str | None,
    limit: int,
    output: Path | None,
    plugins_dirs: tuple[Path, ...],
    out: Output,
) -> None:
    """Measure MODEL, a trained folder or a Hub id.

    How likely it finds the human instructions, against its untrained base; and what its own instructions look like
    beside the human ones. Pairs that it was trained on are left out.
    """
    need_training()
    forbid_downloads()

    from kun_builder.cli.progress import progress
    from kun_builder.prompt_contract import read_contract
    from kun_builder.recipe.recipe import Plugins
    from kun_builder.status import Status
    from kun_training.contracts import contract_for, stage_options
    from kun_training.evaluation.generating import Sampling
    from kun_training.evaluation.label import evaluate_label, held_out_pairs
    from kun_training.job import HELD_OUT_FILE

    options = stage_options(open_plugins(Plugins(dirs=plugins_dirs), out))
    own = Path(model).expanduser() / HELD_OUT_FILE
    pairs, trained_on = held_out_pairs(seeds or (own,), model, limit=limit)
    status = Status()
    with progress(status, out):
        report = evaluate_label(
            model,
            pairs,
            read_contract(model) or contract_for("label", options),
            Sampling.of(options.get("label", {})),
            base=base,
            trained_on=trained_on,
            status=status,
        )
    _show_label(report, out)
    _write(report, "label", output, out)


@command.command(
    "score",
    cls=Command,
    examples=(
        "kun-build evaluate score recipe.yaml --seeds held_out.jsonl",
        "kun-build evaluate score recipe.yaml --seeds held_out.jsonl --limit 50 --output evaluation --json",
    ),
)
@recipe_argument
@_seeds
@_limit
@_folder
@plugins_dir_option
@output_options
def score(
    recipe: Path,
    seeds: tuple[Path, ...],
    limit: int,
    output: Path | None,
    plugins_dirs: tuple[Path, ...],
    out: Output,
) -> None:
    """Measure the scorer of RECIPE: its model, prompt and engine.

    It judges human instructions and the same ones damaged: shuffled, cut off, repeated and, where the prompt shows the
    text, taken from another text.
    """
    if not seeds:
        raise click.UsageError("give held-out pairs with --seeds FILE")
    checked, registry = open_recipe(recipe, out, plugins_dirs=plugins_dirs)

    from kun_builder.cli.progress import progress
    from kun_builder.status import Status
    from kun_training.evaluation.label import held_out_pairs
    from kun_training.evaluation.scorer import damaged_items, score_items, score_kinds, score_report

    pairs, _ = held_out_pairs(seeds, "", limit=limit)
    items = damaged_items(pairs, score_kinds(checked))
    status = Status()
    with progress(status, out):
        report = score_report(checked.name, score_items(checked, registry, items, status))
    show_score(report, out)
    _write(report, "score", output, out)


def _show_label(report: LabelReport, out: Output) -> None:
    if out.format == "json":
        out.json(report.to_json())
        return
    if out.format == "quiet":
        out.text(f"{report.fit.per_token:.4f}")
        return
    out.text(f"{report.model}: {report.pairs} held-out pairs ({report.trained_on} left out: trained on)")
    rows = [{"log-probability, nats": "per token of the human instruction", **_both(report, "per_token")}]
    rows.append({"log-probability, nats": "of ending where the human ended", **_both(report, "end")})
    out.table(("log-probability, nats", ">trained", ">base"), rows)
    if report.margin:
        gain = report.margin
        bounds = f"95 %: {gain.low:+.3f} to {gain.high:+.3f}"
        out.text(f"gain per token: {gain.mean:+.3f} ({bounds}), in {gain.improved:.0%} of pairs\n")
    traits = [
        {"instructions": name.replace("_", " "), ">generated": f"{value:.3f}", ">human": f"{human:.3f}"}
        for (name, value), human in zip(vars(report.generated).items(), vars(report.human).values(), strict=True)
    ]
    traits.insert(
        0, {"instructions": "chrF against the human ones", ">generated": f"{report.chrf:.1f}", ">human": "100"}
    )
    traits.insert(1, {"instructions": "bigram F1", ">generated": f"{report.bigram_f1:.3f}", ">human": "1"})
    out.table(("instructions", ">generated", ">human"), traits)
    samples = [{"human": printable(s.human), "generated": printable(s.generated)} for s in report.samples[:10]]
    out.table(("human", "generated"), samples)


def _both(report: LabelReport, name: str) -> dict[str, str]:
    base = f"{getattr(report.base, name):.3f}" if report.base else "-"
    return {">trained": f"{getattr(report.fit, name):.3f}", ">base": base}


def show_score(report: ScoreReport, out: Output) -> None:
    """Print a scorer's figures."""
    best = report.recommended
    if out.format == "json":
        out.json(report.to_json())
        return
    if out.format == "quiet":
        out.text(f"{best.threshold:g}")
        return
    out.text(f"{report.model}: {report.good} good and {report.bad} bad instructions, ROC-AUC {report.auc:.3f}")
    for reason, count in report.unscored.items():
        out.text(f"without a score: {count} ({reason})")
    out.table(("bad ones", ">ROC-AUC"), [{"bad ones": k, ">ROC-AUC": f"{auc:.3f}"} for k, auc in report.kinds.items()])
    step = max(1, len(report.cuts) // 10)
    cuts = [*report.cuts[::step], *([report.cuts[-1]] if (len(report.cuts) - 1) % step else [])]
    rows = [
        {"threshold": f"{cut.threshold:.4g}", ">recall": f"{cut.recall:.3f}", ">precision": f"{cut.precision:.3f}"}
        for cut in cuts
    ]
    out.table(("threshold", ">recall", ">precision"), rows)
    keeps = f"keeps {best.recall:.0%} of the good, {best.bad_kept:.0%} of the bad"
    out.text(f"recommended threshold: {best.threshold:g} ({keeps})")


def _write(report: LabelReport | ScoreReport, name: str, folder: Path | None, out: Output) -> None:
    """Figures and picture into `folder`."""
    if folder is None:
        return
    import orjson

    from kun_builder.result.plots import to_png, to_svg
    from kun_training.evaluation.label import LabelReport
    from kun_training.evaluation.pictures import label_picture, score_picture

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_bytes(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2))
    picture: dict[str, Any] = label_picture(report) if isinstance(report, LabelReport) else score_picture(report)
    (folder / f"{name}.png").write_bytes(to_png(to_svg(picture)))
    out.note(f"written: {folder / name}.json, {folder / name}.png")
