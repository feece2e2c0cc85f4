"""How the result of a build is shown: the funnel of each split, some rows, where the rest is, how to load it."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.output import Output, console, make_table, printable
from kun_builder.errors import shown

if TYPE_CHECKING:
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.report import RunReport, SplitReport

_SHOWN = 3  # rows
_LONGEST = 200  # characters of a shown text


def show_result(report: RunReport, recipe: Recipe, out: Output) -> None:
    """Print the result: as JSON one object, quietly the dataset's folder, else all for people."""
    dataset, rejected = recipe.output / "dataset", recipe.output / "rejected"
    if out.format == "quiet":
        out.text(str(dataset))
    elif out.format == "json":
        paths = {"dataset": dataset, "rejected": rejected, "report": recipe.output / "report.json"}
        splits = {name: asdict(split) for name, split in report.splits.items()}
        out.json({"name": report.name, **{k: str(v) for k, v in paths.items()}, "splits": splits})
    else:
        for name, split in report.splits.items():
            _funnel(name, split)
        _rows(dataset, report)
        _where(report, dataset, rejected)


def _funnel(name: str, split: SplitReport) -> None:
    table = make_table(
        ("stage", ">in", ">out", "dropped", "quarantined"), f"{name}: {split.read} read, {split.kept} kept"
    )
    for step in split.stages:
        table.add_row(
            step.label, str(step.rows_in), str(step.rows_out), _reasons(step.dropped), _reasons(step.quarantined)
        )
    console().print(table)


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))


def _rows(dataset: Path, report: RunReport) -> None:
    for split, row in _first_rows(dataset, report):
        console().print(f"[{split}] " + "\n    -> ".join(_cut(text) for text in row.values()) + "\n")


def _first_rows(dataset: Path, report: RunReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """A row of each split in turn, until there are enough."""
    splits = [name for name, split in report.splits.items() if split.kept]
    heads = {name: _head(dataset, name, report.format) for name in splits}
    turns = [(name, rows[turn]) for turn in range(_SHOWN) for name, rows in heads.items() if turn < len(rows)]
    yield from turns[:_SHOWN]


def _head(dataset: Path, split: str, format: str) -> list[dict[str, Any]]:
    import orjson
    import pyarrow.parquet as pq

    if format == "jsonl":
        with (dataset / f"{split}.jsonl").open("rb") as file:
            return [orjson.loads(line) for line, _ in zip(file, range(_SHOWN), strict=False)]
    first = min((dataset / "data").glob(f"{split}-*.parquet"))
    return next(pq.ParquetFile(first).iter_batches(_SHOWN)).to_pylist()  # type: ignore[no-any-return]


def _cut(text: str) -> str:
    text = printable(text[: 2 * _LONGEST])
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _where(report: RunReport, dataset: Path, rejected: Path) -> None:
    read, kept = (sum(getattr(split, key) for split in report.splits.values()) for key in ("read", "kept"))
    places = shown(dataset), shown(rejected)
    created = sum(step.created for split in report.splits.values() for step in split.stages)
    rows, lost = (f"rows, made of {read}," if created else f"of {read} rows"), read + created - kept
    out = f"{kept} {rows} are in {places[0]}; the other {lost} are in {places[1]}, with their reasons"
    click.echo(out)  # not through the console, which would break a command into lines
    if kept:
        click.echo(f"load it:  {_command(report, dataset)}")


def _command(report: RunReport, dataset: Path) -> str:
    """A command for a shell that loads the dataset, whatever its folder is called."""
    given = f"{str(dataset)!r}"
    if "[" in str(dataset.resolve()):  # which is a pattern to `load_dataset`, and files can be given escaped
        place, jsonl = glob.escape(str(dataset)), report.format == "jsonl"
        names = {name: f"{place}/{name}.jsonl" if jsonl else f"{place}/data/{name}-*.parquet" for name in report.splits}
        files = {name: path for name, path in names.items() if report.splits[name].kept}
        given = f"{'json' if jsonl else 'parquet'!r}, data_files={files!r}"
    code = f"from datasets import load_dataset; print(load_dataset({given}))"
    return f'python -c "{code}"' if not set(code) & set('"$`\\!') else f"python -c {shlex.quote(code)}"
