"""`kun-build cache`: what the journal of finished generations holds, and making it smaller."""

from __future__ import annotations

import time
from pathlib import Path

import click

from kun_builder.cli.options import Command, Folder, output_options
from kun_builder.cli.output import Output

_DAY = 86_400.0


@click.command(
    cls=Command,
    examples=(
        "kun-build cache",
        "kun-build cache --prune 30 --yes     forget answers of files unused for 30 days",
        "kun-build cache --journal journal    one that a recipe names",
    ),
)
@click.option("--journal", type=Folder(), metavar="DIR", help="Its folder [the user's cache].")
@click.option("--prune", type=click.FloatRange(min=0), metavar="DAYS", help="Delete files unused for so many days.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@output_options
def command(journal: Path | str | None, prune: float | None, yes: bool, out: Output) -> None:
    """Show the size and age of the journal: every answer that a model has given, kept so that it is paid for once.

    With --prune, files that no run has added to for DAYS days are deleted; their answers would be asked again.
    """
    from kun_builder.models.journal.journal import Journal

    if isinstance(journal, str):
        raise click.UsageError("a journal at an address is looked at, and made smaller, by the tools of its storage")
    opened = Journal.open(journal, say=out.warn)
    stats = opened.stats()
    if prune is not None:
        if not yes:
            click.confirm(f"Delete generations in {stats.folder} unused for {prune:g} days?", abort=True, err=True)
        stats = opened.prune(prune * _DAY)
    figures = {
        "folder": str(stats.folder),
        "generations": stats.generations,
        "bytes": stats.bytes,
        "files": stats.files,
        "oldest": _date(stats.oldest),
        "newest": _date(stats.newest),
    }
    if out.format == "json":
        out.json(figures)
    else:
        for name, value in figures.items():
            out.text(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
