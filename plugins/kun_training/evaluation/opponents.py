"""What a run's pairs are compared with: their own raw texts, another run, or a dataset."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kun_builder.errors import RunError, TrainingError
from kun_builder.report import read_report
from kun_builder.result.shapes import need_pairs
from kun_builder.result.stats import read_columns, rows_at
from kun_builder.run.folder import RunFolder
from kun_training.seeds import Pair, Refused, pair_of, read_pairs

RAW = "raw"
CONTROL = "answers of other rows"
"""What the comparison is called that tells of the judge."""
CONTROLS = 20
"""Pairs at which a judge is tested."""
_MOST = 100_000
"""Pairs of a dataset that are looked at: enough to draw from."""


@dataclass(frozen=True, slots=True)
class Side:
    """One pair."""

    instruction: str
    output: str


@dataclass(frozen=True, slots=True)
class Match:
    """Two pairs to compare, and the text that ours was made of."""

    text: str
    ours: Side
    theirs: Side


def sample_rows(path: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` kept rows of the finished run in `path`, drawn over all splits. Raises RunError if there is none."""
    folder = RunFolder(path)
    report = read_report(folder.report_path)
    need_pairs(folder)
    sizes = {name: split.kept for name, split in report.splits.items() if split.kept}
    total = sum(sizes.values())
    if not total:
        raise RunError(f"{path} has kept no row: there is nothing to evaluate", hint="rejected/ says why")
    drawn = sorted(random.Random(seed).sample(range(total), min(count, total)))
    rows, start = [], 0
    for name, size in sizes.items():
        mine = [number - start for number in drawn if start <= number < start + size]
        rows += list(rows_at(folder.kept_files(name), mine)) if mine else []
        start += size
    return rows


def opponents(rows: list[dict[str, Any]], names: Sequence[str], seed: int = 0) -> dict[str, list[Match]]:
    """The matches against each of `names`, by what it is called in a report; of two runs of one name, the second is
    numbered."""
    found: dict[str, list[Match]] = {}
    for name in dict.fromkeys(names):
        label = label_of(name)
        same = sum(known == label or known.startswith(f"{label} (") for known in found)
        found[f"{label} ({same + 1})" if same else label] = matches_with(rows, name, seed)
    return found


def label_of(name: str) -> str:
    """What an opponent is called in a report: a place on this machine is nobody's."""
    if (Path(name) / "report.json").exists():
        return f"run {read_report(Path(name) / 'report.json').name}"
    return Path(name).resolve().name if Path(name).exists() else name


def matches_with(rows: list[dict[str, Any]], name: str, seed: int = 0) -> list[Match]:
    """Each row's match against `name`: `raw`, the folder of a run, or a dataset in a file, a folder or on the Hub."""
    if name == RAW:
        return against_raw(rows)
    if (Path(name) / "report.json").exists():
        return against_run(rows, Path(name))
    return against_dataset(rows, name, seed)


def side(row: Mapping[str, Any]) -> Side:
    """The pair of a row."""
    return Side(str(row["instruction"]), str(row["output"]))


def against_raw(rows: list[dict[str, Any]]) -> list[Match]:
    """Each row's answer against the raw text that it was made of."""
    return [
        Match(_text(row), side(row), Side(str(row["instruction"]), (row.get("raw_answer") or _text(row)).strip()))
        for row in rows
    ]


def mixed_up(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[Match]:
    """Some rows against their own question with the answer of another row. Any judge that looks prefers the row's own,
    so that these matches tell of the judge, not of the rows. None of a single row."""
    some = random.Random(seed).sample(rows, min(CONTROLS, len(rows)))
    if len(some) < 2:
        return []
    others = [*some[1:], some[0]]
    return [
        Match(_text(row), side(row), Side(str(row["instruction"]), str(other["output"])))
        for row, other in zip(some, others, strict=True)
    ]


def against_run(rows: list[dict[str, Any]], other: Path) -> list[Match]:
    """Each row against the row of the same text in another run. Raises RunError if the two share none."""
    wanted = {row["id"]: row for row in rows}
    found: dict[str, dict[str, Any]] = {}
    folder = RunFolder(other)
    splits = read_report(folder.report_path).splits
    need_pairs(folder)
    for split in splits:
        for table in read_columns(folder.kept_files(split), ("id", "instruction", "output")):
            found |= {row["id"]: row for row in table.to_pylist() if row["id"] in wanted}
    if not found:
        raise RunError(
            f"no row drawn here is kept in {other}",
            hint="compare runs over the same input, or compare with its dataset/ folder: that needs no common rows",
        )
    return [Match(_text(wanted[name]), side(wanted[name]), side(row)) for name, row in found.items()]


def against_dataset(rows: list[dict[str, Any]], name: str, seed: int = 0) -> list[Match]:
    """Each row against a pair drawn from a dataset: a file, a folder, or a name on the Hub.

    The texts have nothing in common, so that the judge sees none. Raises TrainingError if it holds no pair.
    """
    pairs = list(_pairs(name))
    if not pairs:
        raise TrainingError(
            f"{name} holds no pair",
            hint="records need `instruction` and `output`, `messages`, or `prompt`, `completion`",
        )
    chosen = random.Random(seed).choices(pairs, k=len(rows))
    return [Match("", side(row), Side(pair.instruction, pair.output)) for row, pair in zip(rows, chosen, strict=True)]


def _pairs(name: str) -> Iterator[Pair]:
    refused: list[Refused] = []
    if Path(name).is_file():
        yield from read_pairs([name], refused)
        return
    yield from pairs_of(_records(name), name)


def pairs_of(records: Iterator[Mapping[str, Any]], name: str) -> Iterator[Pair]:
    """The pairs among records of any of the usual forms."""
    for number, record in enumerate(records, 1):
        pair = pair_of(record, f"{name}:{number}")
        if pair is not None and pair.instruction and pair.output:
            yield pair


def _records(name: str) -> Iterator[Mapping[str, Any]]:
    """Records of a dataset in a folder or on the Hub, by streaming, from all its splits."""
    from itertools import islice

    from datasets import load_dataset

    try:
        splits = load_dataset(name, streaming=True)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{name} is neither a run, nor a file, nor a dataset that can be loaded: {error}",
            hint="give a run folder, a JSONL or Parquet file, or the name of a dataset on the Hub",
        ) from error
    for split in splits.values():
        yield from islice(split, _MOST // len(splits))


def _text(row: Mapping[str, Any]) -> str:
    return str(row.get("text") or row.get("raw_answer") or "")
