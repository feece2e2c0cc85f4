"""`kun-build calibrate RECIPE`: choose the score threshold from judged instructions, and write it into the recipe."""

from __future__ import annotations

from pathlib import Path

import click

from kun_builder.cli.options import Command, open_recipe, output_options, plugins_dir_option, recipe_argument
from kun_builder.cli.output import Output


@click.command(
    cls=Command,
    examples=(
        "kun-build calibrate recipe.yaml --labelled judged.jsonl",
        "kun-build calibrate recipe.yaml --labelled judged.jsonl --dry-run",
    ),
)
@recipe_argument
@click.option(
    "--labelled",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help='JSONL: {"instruction": "...", "output": "...", "good": true}.',
)
@click.option("--dry-run", is_flag=True, help="Show the figures, leave the recipe as it is.")
@plugins_dir_option
@output_options
def command(recipe: Path, labelled: Path, dry_run: bool, plugins_dirs: tuple[Path, ...], out: Output) -> None:
    """Score the instructions of a labelled file with RECIPE's scorer and write the best threshold into RECIPE.

    The best threshold keeps the most of the good for the least of the bad (Youden's J). Only that number changes:
    comments and layout stay.
    """
    checked, registry = open_recipe(recipe, out, plugins_dirs=plugins_dirs)

    from kun_builder.cli.evaluate import show_score
    from kun_builder.cli.progress import progress
    from kun_builder.evaluation.calibrate import with_threshold, write_threshold
    from kun_builder.evaluation.scorer import read_labelled, score_items, score_report
    from kun_builder.status import Status

    with_threshold(recipe.read_text(encoding="utf-8"), 0.5, str(recipe))  # before models are asked: can it be written?
    items = read_labelled(labelled)
    status = Status()
    with progress(status, out):
        report = score_report(checked.name, score_items(checked, registry, items, status))
    show_score(report, out)
    if not dry_run:
        write_threshold(recipe, report.recommended.threshold)
        out.note(f"{recipe}: threshold {report.recommended.threshold:g}")
