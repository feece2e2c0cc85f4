"""`kun-build review RUN`: write the page on which people judge pairs, and take their verdicts into the run."""

from __future__ import annotations

from pathlib import Path

import click

from kun_builder.cli.options import Command, output_options
from kun_builder.cli.output import Output


@click.command(
    cls=Command,
    examples=(
        "kun-build review runs/my-kun                                      write the page, and open it",
        "kun-build review runs/my-kun --take ~/Downloads/verdicts-my-kun.jsonl",
        "kun-build calibrate recipe.yaml --run runs/my-kun --precision 0.9",
    ),
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--sample", type=click.IntRange(min=1), default=60, metavar="N", help="Pairs to judge [60].")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Another seed draws other pairs [0].")
@click.option(
    "--take",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Put saved verdicts into the run, and show what they say; repeatable, one file a reviewer.",
)
@click.option("--open/--no-open", "show", default=True, help="Open the page in the browser [yes, at a terminal].")
@output_options
def command(run: Path, sample: int, seed: int, take: tuple[Path, ...], show: bool, out: Output) -> None:
    """Draw pairs of the finished run in RUN, kept and rejected ones, and write review.html to judge them.

    The page is one file that needs no network. It shows one pair at a time beside its text; keys say good or bad, and
    what is wrong. It saves verdicts as a file, which --take puts into RUN/verdicts.
    """
    if take:
        _take(run, take, out)
        return
    import sys

    from kun_builder.result.review import write_review

    page = write_review(run, sample=sample, seed=seed)
    if show and sys.stdout.isatty():
        click.launch(str(page))
    if out.format == "json":
        out.json({"review": str(page)})
    else:
        out.text(str(page))


def _take(run: Path, files: tuple[Path, ...], out: Output) -> None:
    """Check the files, copy them into the run, and print what all its verdicts say."""
    from kun_builder.result.verdicts import run_verdicts, summary, take_verdicts

    taken = take_verdicts(run, files)
    found = summary(run_verdicts(run))
    if out.format == "json":
        out.json(found)
        return
    out.note(f"taken: {', '.join(map(str, taken))}")
    if found["precision"] is None:
        out.text(f"{found['read']} rows read, none of them kept")
        return
    share = found["precision"]
    if out.format == "quiet":
        out.text(f"{share['value']:.3f}")
        return
    out.text(
        f"{found['kept']} kept rows read, {found['good']} good; of all kept rows, {share['value']:.0%} are"
        f" (95 %: {share['low']:.0%} to {share['high']:.0%})"
    )
    kinds = [{"what is wrong": kind, ">rows": rows} for kind, rows in found["kinds"].items()]
    if kinds:
        out.table(("what is wrong", ">rows"), kinds)
    rows = [{"rejected for": why, ">read": n["read"], ">good": n["good"]} for why, n in found["rejected"].items()]
    if rows:
        out.table(("rejected for", ">read", ">good"), rows)
