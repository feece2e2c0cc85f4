"""`kun-build report RUN`: write the report page of a run anew, and open it."""

from __future__ import annotations

from pathlib import Path

import click

from kun_builder.cli.options import Command, Folder, output_options, run_at_address
from kun_builder.cli.output import Output


@click.command(
    cls=Command,
    examples=("kun-build report runs/my-kun", "kun-build report s3://bucket/runs/mine --no-open --format quiet"),
)
@click.argument("run", type=Folder(exists=True))
@click.option("--open/--no-open", "show", default=True, help="Open the page in the browser [yes, at a terminal].")
@output_options
@run_at_address("run", writes=lambda given: True)
def command(run: Path, show: bool, out: Output) -> None:
    """Write report.html and the card of the finished run in RUN anew, and open the page.

    The page is one file that needs no network: the funnel, pictures, and samples of kept and rejected rows.
    """
    import sys

    from kun_builder.result.present import write_presentation

    page = write_presentation(run)
    if show and sys.stdout.isatty():
        click.launch(str(page))
    if out.format == "json":
        out.json({"report": str(page)})
    else:
        out.text(str(page))
