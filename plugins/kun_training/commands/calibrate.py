"""`kun-build calibrate RECIPE`: choose thresholds from judged pairs, and write them into the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kun_builder.cli.options import Command, open_recipe, output_options, plugins_dir_option, recipe_argument
from kun_builder.cli.output import Output

if TYPE_CHECKING:
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Registry
    from kun_builder.result.limits import Limit
    from kun_builder.run.verdicts import Verdict
    from kun_training.evaluation.thresholds import Calibration

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(
    cls=Command,
    short_help="Choose thresholds of a recipe from pairs that people have judged.",
    examples=(
        "kun-build calibrate recipe.yaml --run runs/my-kun --precision 0.9    from verdicts of kun-build review",
        "kun-build calibrate recipe.yaml --verdicts judged.jsonl --measure verify.threshold --dry-run",
        "kun-build calibrate recipe.yaml --labelled judged.jsonl              scores them anew, with score's model",
    ),
)
@recipe_argument
@click.option(
    "--run",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Use the verdicts that people gave on this run (`kun-build review`).",
)
@click.option(
    "--verdicts",
    multiple=True,
    type=_FILE,
    metavar="FILE",
    help='JSONL with measured values: {"good": true, "score": 0.7, ...}; repeatable.',
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    metavar="SHARE",
    help="Share of good pairs wanted among those that pass [0.9].",
)
@click.option(
    "--measure",
    "measures",
    multiple=True,
    metavar="STEP.OPTION",
    help="Move only this threshold, for example score.threshold; repeatable [all that were measured].",
)
@click.option(
    "--labelled",
    type=_FILE,
    metavar="FILE",
    help='JSONL: {"instruction": "...", "output": "...", "good": true}; the stage `score` judges them first.',
)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder for figures and curve [the run]."
)
@click.option("--dry-run", is_flag=True, help="Show the figures, leave the recipe as it is.")
@plugins_dir_option
@output_options
def command(
    recipe: Path,
    run: Path | None,
    verdicts: tuple[Path, ...],
    precision: float,
    measures: tuple[str, ...],
    labelled: Path | None,
    output: Path | None,
    dry_run: bool,
    plugins_dirs: tuple[Path, ...],
    out: Output,
) -> None:
    """Choose thresholds of RECIPE's stages from pairs that people have judged, and write them into RECIPE.

    With --run or --verdicts: those that let the most good pairs through while the share --precision of what passes is
    good; no model is asked. With --labelled: the threshold of `score` alone, at the best balance (Youden's J), after
    its model has judged the file. Only the numbers change: comments and layout stay.
    """
    if (labelled is not None) + (bool(run or verdicts)) != 1:
        raise click.UsageError("give --run DIR or --verdicts FILE, or else --labelled FILE")
    checked, registry = open_recipe(recipe, out, plugins_dirs=plugins_dirs)
    if labelled is not None:
        _balance(recipe, checked, registry, labelled, dry_run, out)
        return

    from kun_training.evaluation.calibrate import write_limits
    from kun_training.evaluation.thresholds import calibrate, limits_in

    judged = _judged(run, verdicts)
    found = calibrate(judged, _chosen(limits_in(checked, registry), measures), precision)
    _show(found, out)
    if (folder := output or run) is not None:
        _write(found, folder, out)
    if found.held_out.precision < precision:
        out.warn(
            f"on verdicts that they were not chosen by, these thresholds reach {found.held_out.precision:.2f} only",
            "judge more pairs: with so few, chance is much of what was found",
        )
    moved = [after for before, after in zip(found.before, found.after, strict=True) if after != before]
    if not moved:
        out.note(f"{recipe} can stay as it is: no other thresholds are better")
    elif not dry_run:
        write_limits(recipe, moved)
        out.note(f"{recipe}: {', '.join(f'{limit.name} {limit.value:g}' for limit in moved)}")


def _judged(run: Path | None, files: tuple[Path, ...]) -> list[Verdict]:
    from kun_builder.errors import RunError
    from kun_builder.run.verdicts import FOLDER, read_verdicts, verdicts_in

    found = verdicts_in(run / FOLDER) if run else []
    if run and not found:
        raise RunError(
            f"{run} has no verdicts yet",
            hint=f"judge pairs with `kun-build review {run}`",
        )
    return [*found, *(verdict for path in files for verdict in read_verdicts(path))]


def _chosen(limits: list[Limit], names: tuple[str, ...]) -> list[Limit]:
    """The limits that are named, or all. An unknown name is wrong usage."""
    from kun_builder.errors import suggest

    known = {limit.name: limit for limit in limits}
    for name in names:
        if name not in known:
            raise click.UsageError(f"the recipe has no threshold `{name}`{suggest(name, known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else limits


def _show(found: Calibration, out: Output) -> None:
    """The chosen thresholds, and what they do."""
    if out.format == "json":
        out.json(found.to_json())
        return
    if out.format == "quiet":
        for limit in found.after:
            out.text(f"{limit.name} {limit.value:g}")
        return
    rows = [
        {"threshold": a.name, "column": a.column, ">now": f"{b.value:g}", ">chosen": f"{a.value:g}"}
        for b, a in zip(found.before, found.after, strict=True)
    ]
    out.table(("threshold", "column", ">now", ">chosen"), rows)
    figures = {
        "now": found.figures_before,
        "chosen": found.figures_after,
        "chosen, on verdicts not chosen by": found.held_out,
    }
    out.table(
        ("thresholds", ">judged rows that pass", ">precision", ">good ones that pass", ">yield"),
        [
            {
                "thresholds": name,
                ">judged rows that pass": f"{one.rows} of {found.judged}",
                ">precision": f"{one.precision:.3f}",
                ">good ones that pass": f"{one.recall:.3f}",
                ">yield": f"{one.kept:.3f}",
            }
            for name, one in figures.items()
        ],
    )


def _write(found: Calibration, folder: Path, out: Output) -> None:
    """Figures and curves into `folder`."""
    import orjson

    from kun_builder.files import replace_file
    from kun_builder.result.plots import to_png, to_svg
    from kun_training.evaluation.pictures import thresholds_picture

    replace_file(folder / "calibration.json", orjson.dumps(found.to_json(), option=orjson.OPT_INDENT_2))
    replace_file(folder / "calibration.png", to_png(to_svg(thresholds_picture(found))))
    out.note(f"written: {folder / 'calibration.json'}, {folder / 'calibration.png'}")


def _balance(recipe: Path, checked: Recipe, registry: Registry, labelled: Path, dry_run: bool, out: Output) -> None:
    """Let `score` judge the labelled file, and write its best-balanced threshold."""
    from kun_builder.cli.progress import progress
    from kun_builder.status import Status
    from kun_training.commands.evaluate import show_score
    from kun_training.evaluation.calibrate import with_threshold, write_threshold
    from kun_training.evaluation.scorer import read_labelled, score_items, score_report

    with_threshold(recipe.read_text(encoding="utf-8"), 0.5, str(recipe))  # before models are asked: can it be written?
    items = read_labelled(labelled)
    status = Status()
    with progress(status, out):
        report = score_report(checked.name, score_items(checked, registry, items, status))
    show_score(report, out)
    if not dry_run:
        write_threshold(recipe, report.recommended.threshold)
        out.note(f"{recipe}: threshold {report.recommended.threshold:g}")
