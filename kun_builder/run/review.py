"""The stage `review`: the run stops until people have judged some of its rows, and drops those that they find bad.

What waits for a verdict is in the stage's folder of verdicts, `waiting.json`, which `kun-build review` shows.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import Field

from kun_builder.declarations import VerdictsFolder
from kun_builder.errors import RunError
from kun_builder.files import make_private, replace_file
from kun_builder.hookspecs import hookimpl
from kun_builder.run.verdicts import FOLDER, Verdict, verdicts_in
from kun_builder.types import (
    DatasetStage,
)

if TYPE_CHECKING:
    from datasets import Dataset

kun_api = 1
WAITING = "waiting.json"
_SHOWN = ("instruction", "output", "text")


def review(
    dataset: Dataset,
    *,
    sample: Annotated[int, Field(ge=1)] | None = 60,
    least_good: Annotated[float, Field(ge=0, le=1)] = 0.0,
    verdicts: VerdictsFolder = "",
) -> list[tuple[int, str, object]]:
    """Wait until people have judged `sample` of the rows as they are here (null: all); then drop the bad ones.

    The run ends, and says how to judge; the same command goes on once that is done. least_good: the share of good rows
    among the judged ones that is needed to go on. verdicts: folder of their files, by default the run's own.
    """
    folder = Path(verdicts)
    said = {verdict.id: verdict for verdict in verdicts_in(folder)}
    ids = dataset.select_columns(["id"]).with_format("arrow")[:]["id"].to_pylist()
    judged = [(row, said[id]) for row, id in enumerate(ids) if id in said and said[id].seen == _seen(dataset[row])]
    wanted = len(ids) if sample is None else min(sample, len(ids))
    if len(judged) < wanted:
        done = {row for row, _ in judged}
        others = (row for row in range(len(ids)) if row not in done)
        drawn = heapq.nsmallest(wanted - len(judged), others, key=lambda row: _lot(ids[row]))
        raise _wait(folder, dataset, [*done, *drawn], len(judged))
    (folder / WAITING).unlink(missing_ok=True)
    _enough([verdict for _, verdict in judged], least_good)
    return [(row, "judged_bad", ", ".join(verdict.kinds)) for row, verdict in judged if not verdict.good]


def _lot(id: str) -> bytes:
    """What decides who is drawn: the same rows whenever they are there, however many others there are."""
    return hashlib.sha256(id.encode()).digest()


def _seen(row: Mapping[str, Any]) -> str:
    """Digest of what a person sees of a row: a verdict is about these words and no others."""
    return hashlib.sha256(orjson.dumps([row.get(name) for name in _SHOWN])).hexdigest()[:16]


def _wait(folder: Path, dataset: Dataset, rows: Sequence[int], judged: int) -> RunError:
    """Write down what waits; returns the error that ends the run."""
    pairs = []
    for found in (dataset[row] for row in sorted(rows, key=lambda row: _lot(dataset[row]["id"]))):
        shown = {name: found.get(name) or "" for name in ("id", *_SHOWN)}
        pairs.append({**shown, "seen": _seen(found), "stratum": "waiting", "stratum_rows": len(dataset)})
    make_private(folder)
    replace_file(folder / WAITING, orjson.dumps(pairs), private=True)
    place = folder.parent.parent if folder.parent.name == FOLDER else folder
    return RunError(
        f"the run waits for people: {len(pairs)} rows are to be judged, {judged} are",
        hint=f"`kun-build review {place}` shows them; then the same command as now goes on from here",
    )


def _enough(verdicts: Sequence[Verdict], least_good: float) -> None:
    """Raise RunError if too few are good."""
    good = sum(verdict.good for verdict in verdicts)
    if good < least_good * len(verdicts):
        raise RunError(
            f"{good} of {len(verdicts)} rows that people judged are good, and the recipe asks for {least_good:.0%}",
            hint="change the stages before `review`, and the rows that they change are judged anew; or lower its"
            " `least_good`",
        )


@hookimpl
def kun_stages() -> list[DatasetStage]:
    """People between two stages."""
    return [DatasetStage(name="review", run=review, columns=("id", "split", *_SHOWN))]
