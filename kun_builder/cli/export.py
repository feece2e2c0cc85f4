"""`kun-build export RUN`: the rows of a run in the form that a trainer reads."""

from __future__ import annotations

from pathlib import Path

import click

from kun_builder.cli.options import Command, Folder, output_options, run_at_address
from kun_builder.cli.output import Output

_RUN = Folder(exists=True)


@click.command(
    cls=Command,
    examples=(
        "kun-build export runs/my-kun --shape messages                      for TRL and Axolotl",
        "kun-build export runs/my-kun --shape sharegpt --system '你是助手。'    for LLaMA-Factory",
        "kun-build export runs/large --shape dpo --against runs/small       preference pairs out of two runs",
    ),
)
@click.argument("run", type=_RUN)
@click.option(
    "--shape", required=True, type=click.Choice(["pairs", "messages", "sharegpt", "dpo"]), help="Form of a record."
)
@click.option("--system", default="", metavar="TEXT", help="System text before every pair [none].")
@click.option("--against", type=_RUN, metavar="DIR", help="dpo: another run over the same texts and instructions.")
@click.option(
    "--by", default="", metavar="COLUMN", help="dpo: the measure that says which is better [as the stages declare it]."
)
@click.option(
    "--margin", type=click.FloatRange(0, min_open=True), default=0.1, metavar="N", help="dpo: least difference [0.1]."
)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write into [RUN/export/SHAPE]."
)
@output_options
@run_at_address("run", "against", writes=lambda given: given["output"] is None)
def command(
    run: Path, shape: str, system: str, against: Path | None, by: str, margin: float, output: Path | None, out: Output
) -> None:
    """Write the kept rows of the finished run in RUN as JSON lines, one file a split, in the form of a trainer.

    dpo needs two answers to one instruction: they are taken from RUN and --against, rejected rows too, where both were
    measured.
    """
    if (shape == "dpo") != (against is not None):
        raise click.UsageError("--shape dpo and --against RUN go together")

    from kun_builder.result.shapes import export_preferences, export_run

    folder = output or run / "export" / shape
    if against is not None:
        written = export_preferences(run, against, folder, by=by, margin=margin, system=system)
    else:
        written = export_run(run, shape, folder, system=system)
    if out.format == "json":
        out.json({"folder": str(folder), "rows": written})
        return
    out.note(", ".join(f"{split} {rows:,} rows" for split, rows in written.items()))
    out.text(str(folder))
