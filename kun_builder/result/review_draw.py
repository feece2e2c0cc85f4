"""Which pairs of a finished run people judge.

Rows are drawn by strata, each of which says how many rows it stands for: kept ones near a threshold, kept ones far from
all of them, and rejected ones by each reason.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kun_builder.report import RunReport
from kun_builder.result.limits import Limit, limits_of
from kun_builder.result.stats import read_columns, rows_at
from kun_builder.run.folder import RunFolder

SAMPLE = 60
_NEAR = 0.25
"""Share of the kept rows that counts as near a threshold."""
_KEPT = 0.5
"""Share of the sample that is drawn from kept rows."""
_LONGEST = 100_000
"""Characters of one text on the page; longer ones cannot be judged by eye anyway."""


@dataclass(frozen=True)
class Stratum:
    """Rows of one kind. `places`: split and row number of each, in its kept or rejected files."""

    name: str
    places: Sequence[tuple[str, int]]
    kept: bool


def draw(folder: RunFolder, report: RunReport, *, sample: int = SAMPLE, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs to judge, shuffled: what the page shows, and what its verdicts repeat. The same seed draws the same."""
    chance = random.Random(seed)
    limits = limits_of(report.steps, _floats(folder, report))
    strata = [*_kept_strata(folder, report, limits), *_rejected_strata(folder, report)]
    drawn: list[dict[str, Any]] = []
    for stratum, number in zip(strata, allot(strata, sample), strict=True):
        places = sorted(chance.sample(range(len(stratum.places)), number))
        drawn += _rows(folder, stratum, [stratum.places[place] for place in places], limits)
    chance.shuffle(drawn)
    return drawn


def _floats(folder: RunFolder, report: RunReport) -> list[str]:
    """Columns of measured values, for reports of earlier versions, which do not say which step adds which."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [path for split in report.splits for path in folder.kept_files(split)[:1]]
    schemas = [pq.read_schema(path) for path in files]
    return list(dict.fromkeys(field.name for one in schemas for field in one if pa.types.is_floating(field.type)))


def allot(strata: Sequence[Stratum], sample: int) -> list[int]:
    """How many to draw from each: half from what was kept, and equally within each half, as far as there are rows."""
    kept = [len(stratum.places) if stratum.kept else 0 for stratum in strata]
    others = [0 if stratum.kept else len(stratum.places) for stratum in strata]
    first = _equally(kept, max(round(sample * _KEPT), sample - sum(others)))
    rest = _equally(others, sample - sum(first))
    return [a + b for a, b in zip(first, rest, strict=True)]


def _equally(sizes: Sequence[int], number: int) -> list[int]:
    """`number` shared out, one to each in turn, until it is used up or there is no more."""
    shares = [0] * len(sizes)
    while number > 0 and any(share < size for share, size in zip(shares, sizes, strict=True)):
        for at, size in enumerate(sizes):
            if shares[at] < size and number > 0:
                shares[at], number = shares[at] + 1, number - 1
    return shares


# --- strata ---------------------------------------------------------------------------------------------------------


def _kept_strata(folder: RunFolder, report: RunReport, limits: Sequence[Limit]) -> Iterator[Stratum]:
    """Kept rows: the quarter that is nearest to one of the thresholds, and the others."""
    import numpy as np

    places: list[tuple[str, int]] = []
    ranks: list[Any] = []
    for split in report.splits:
        rows, nearness = _nearness(folder.kept_files(split), limits)
        places += [(split, number) for number in range(rows)]
        ranks.append(nearness)
    rank = np.concatenate(ranks) if ranks else np.empty(0)
    if not len(rank) or not np.isfinite(rank).any():
        yield Stratum("kept", places, True)
        return
    near = np.zeros(len(rank), dtype=bool)
    near[np.argsort(rank, kind="stable")[: max(1, int(len(rank) * _NEAR))]] = True
    for name, mask in (("kept, near a threshold", near), ("kept, far from all thresholds", ~near)):
        yield Stratum(name, [places[at] for at in np.flatnonzero(mask).tolist()], True)


def _nearness(files: Sequence[Path], limits: Sequence[Limit]) -> tuple[int, Any]:
    """Number of rows, and how near each is to its nearest threshold: its rank among the rows of the split, 0 to 1."""
    import numpy as np

    names = ["position", *dict.fromkeys(limit.column for limit in limits)]
    rows, found = 0, defaultdict(list)
    for table in read_columns(files, names):
        rows += len(table)
        for name in names[1:]:
            absent = np.full(len(table), np.nan)
            found[name].append(table[name].to_numpy() if name in table.column_names else absent)
    best = np.full(rows, np.inf)
    for limit in limits if rows else ():
        distance = np.abs(np.concatenate(found[limit.column]).astype(float) - limit.value)
        rank = np.argsort(np.argsort(distance, kind="stable"), kind="stable") / rows
        best = np.where(np.isnan(distance), best, np.minimum(best, rank))
    return rows, best


def _rejected_strata(folder: RunFolder, report: RunReport) -> list[Stratum]:
    """Rejected rows that have an instruction, by step and reason."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for split in report.splits:
        number = 0
        for table in read_columns(folder.rejected_files(split), ("_stage", "_reason", "instruction")):
            if "instruction" not in table.column_names:
                break
            for row in table.to_pylist():
                if row["instruction"]:
                    found[f"{row['_stage']}: {row['_reason']}"].append((split, number))
                number += 1
    return [Stratum(f"rejected, {name}", places, False) for name, places in sorted(found.items())]


# --- rows -----------------------------------------------------------------------------------------------------------


def _rows(
    folder: RunFolder, stratum: Stratum, places: Sequence[tuple[str, int]], limits: Sequence[Limit]
) -> Iterator[dict[str, Any]]:
    numbers: dict[str, list[int]] = defaultdict(list)
    for split, number in places:
        numbers[split].append(number)
    for split, chosen in numbers.items():
        files = folder.kept_files(split) if stratum.kept else folder.rejected_files(split)
        for row in rows_at(files, chosen):
            yield _pair(row, stratum, limits)


def _pair(row: Mapping[str, Any], stratum: Stratum, limits: Sequence[Limit]) -> dict[str, Any]:
    values = {limit.column: row.get(limit.column) for limit in limits}
    measured = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    return {
        **{name: str(row.get(name) or "")[:_LONGEST] for name in ("id", "instruction", "output", "text")},
        "stage": row.get("_stage"),
        "reason": row.get("_reason"),
        "value": _number(row.get("_value")),
        "stratum": stratum.name,
        "stratum_rows": len(stratum.places),
        "measured": measured,
    }


def _number(value: str | None) -> float | None:
    """The number that a row was rejected for; None if it was no number."""
    try:
        found = float(value or "")
    except ValueError:
        return None
    return found if math.isfinite(found) else None
