"""What verdicts on pairs of a finished run say of all its rows, and what a model said of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kun_builder.errors import RunError
from kun_builder.files import replace_file
from kun_builder.result.review import Review
from kun_builder.result.stats import read_columns
from kun_builder.run.verdicts import Verdict, read_verdicts

EVALUATION = "evaluation.json"
"""File of a run with what a model said of its pairs, by `kun-build evaluate pairs`."""


def still_true(
    verdicts: Sequence[Verdict], kept: Iterable[Sequence[Path]], rejected: Iterable[Sequence[Path]]
) -> list[Verdict]:
    """Those verdicts that are about rows as they are now: the same words, and kept or rejected as then."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array({verdict.id for verdict in verdicts}, pa.string())
    rows: dict[str, tuple[bool, str, str]] = {}
    for is_kept, files in [*((True, paths) for paths in kept), *((False, paths) for paths in rejected)]:
        for table in read_columns(files, ("id", "instruction", "output")):
            for row in table.filter(pc.is_in(table["id"], wanted)).to_pylist():
                rows[row["id"]] = (is_kept, row.get("instruction") or "", row.get("output") or "")
    return [v for v in verdicts if rows.get(v.id) == (not v.reason, v.instruction, v.output)]


def take_verdicts(review: Review, files: Sequence[Path]) -> list[Path]:
    """Copy saved verdicts to where those of the review are; returns the places. Nothing is copied if one is wrong.

    A file of the same name is replaced: it is the same reviewer's, saved again. Raises RunError for a file that holds
    none, or that was saved on the page of another run.
    """
    name = review.run
    for path in files:
        if not (found := read_verdicts(path)):
            raise RunError(f"{path} holds no verdict", hint="judge some pairs on the page, then save")
        if other := next((v.run for v in found if v.run and v.run != name), ""):
            raise RunError(f"{path} is about the run `{other}`, not `{name}`", hint="give the folder of that run")
    places = [review.folder / f"{path.stem}.jsonl" for path in files]
    for path, place in zip(files, places, strict=True):
        replace_file(place, path.read_bytes())
    return places


def weights(verdicts: Sequence[Verdict]) -> list[float]:
    """How many rows of the run each verdict stands for; 1 where it was not drawn from a stratum."""
    judged = Counter(verdict.stratum for verdict in verdicts if verdict.stratum_rows)
    return [v.stratum_rows / judged[v.stratum] if v.stratum_rows else 1.0 for v in verdicts]


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


def precision(verdicts: Sequence[Verdict]) -> Share | None:
    """Share of good ones among all kept rows of the run, each stratum weighing as many rows as it has.

    The interval is Wilson's (1927) for the effective number of verdicts (Kish 1965). None without a verdict.
    """
    pairs = [(v.good, w) for v, w in zip(verdicts, weights(verdicts), strict=True) if not v.reason]
    total = sum(weight for _, weight in pairs)
    if not total:
        return None
    share = sum(weight for good, weight in pairs if good) / total
    return wilson(share, total**2 / sum(weight**2 for _, weight in pairs))


def wilson(share: float, number: float, z: float = 1.96) -> Share:
    """The interval of a share that was found in `number` draws."""
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * (share * (1 - share) / number + z * z / (4 * number * number)) ** 0.5
    return Share(share, max(0.0, middle - half), min(1.0, middle + half))


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What report and card say of them, as plain data; no text of any row is in it."""
    kept = [verdict for verdict in verdicts if not verdict.reason]
    share = precision(verdicts)
    return {
        "read": len(verdicts),
        "kept": len(kept),
        "good": sum(verdict.good for verdict in kept),
        "precision": {name: getattr(share, name) for name in Share.__slots__} if share else None,
        "kinds": dict(Counter(kind for verdict in kept for kind in verdict.kinds).most_common()),
        "rejected": _rejected(verdicts),
    }


def _rejected(verdicts: Iterable[Verdict]) -> dict[str, dict[str, int]]:
    """Per reason: how many rejected rows were read, and how many of them a person would have kept."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"read": 0, "good": 0})
    for verdict in verdicts:
        if verdict.reason:
            found[verdict.reason]["read"] += 1
            found[verdict.reason]["good"] += verdict.good
    return dict(sorted(found.items()))


def read_evaluation(run: Path, signature: str) -> dict[str, Any] | None:
    """What a model said of the pairs of the run with this signature; None if nothing, or if it was of another run.

    Raises RunError if the file is damaged.
    """
    path = run / EVALUATION
    if not path.exists():
        return None
    try:
        found = orjson.loads(path.read_bytes())
        return dict(found) if found["signature"] == signature else None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is damaged: {error}", hint="delete it, and run kun-build evaluate pairs again"
        ) from error
