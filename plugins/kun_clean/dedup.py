"""Stage `dedup`: exact and near copies, of which the first in input order stays.

A row is dropped only for its likeness to a row that stays, and names it: likeness is not passed on, so of three texts
that drift apart step by step the first and the last both stay. Sketches (see `minhash`) propose pairs, and the sets of
shingles themselves decide. The result depends on the order of rows alone, not on how they are cut into shards, on the
number of processes or on memory.

Memory: 8 bytes a row for its group, and what `Workspace.memory` allows, in which partitions of buckets are sorted and
groups of rows that meet are decided (a group that is larger is decided all the same). On disk, 12 bytes a row and band
while it runs: 144 at the threshold 0.8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from kun_builder import ColumnName, DatasetStage, Workspace

from .buckets import ENTRY, ENTRY_IN_MEMORY, Keys, Meetings, Scope, bands, groups
from .clusters import Clusters
from .minhash import RECORD, records

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Threshold = Annotated[float, Field(gt=0.3, le=1)]
Width = Annotated[int, Field(ge=1, le=50)]
Cap = Annotated[int, Field(ge=1)]

_AT_ONCE = 50_000
"""Rows whose keys are computed at once."""
_MEETING = 256
"""Bytes in memory of a row in a bucket with others while its group is decided, sketches included."""


def measure(
    table: pa.Table,
    *,
    column: ColumnName = "text",
    threshold: Threshold = 0.8,
    ngram: Width = 5,
    scope: Scope = "all",
    max_per_cluster: Cap = 1,
) -> pa.Table:
    """Add `_minhash`: digest, size and sketch of each text, as `minhash.RECORD`."""
    import numpy as np
    import pyarrow as pa

    found = records([text or "" for text in table[column].to_pylist()], ngram)
    offsets = np.arange(len(found) + 1, dtype=np.int32) * np.dtype(list(RECORD)).itemsize
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(found.tobytes())]
    return table.append_column("_minhash", pa.Array.from_buffers(pa.binary(), len(found), buffers))


def run(
    dataset: Dataset,
    workspace: Workspace,
    *,
    column: ColumnName = "text",
    threshold: Threshold = 0.8,
    ngram: Width = 5,
    scope: Scope = "all",
    max_per_cluster: Cap = 1,
) -> list[tuple[int, str, object]]:
    """The rows to drop, each with the id of the row that it is like: the head of its cluster.

    `duplicate`: the same but for white space, punctuation, width, case and script (traditional or simplified).
    `near_duplicate`: the Jaccard similarity of the sets of shingles, which are runs of `ngram` characters (words, in
    scripts with spaces), reaches `threshold`. Nearly all such pairs are found (see `buckets.FOUND`), and no other.
    scope: whether a row of one split can be dropped for one of another. max_per_cluster: rows that stay of a cluster,
    its head and the first that are like it: more than 1 leaves a question that is asked again some of its answers.
    """
    rows = len(dataset)
    if not rows:
        return []
    folder, each = workspace.folder, max(1, workspace.memory // workspace.workers)
    entries = rows * bands(threshold)[0]
    workspace.need_disk(entries * ENTRY * 2)
    partitions = 1 + entries * ENTRY_IN_MEMORY // each
    starts = range(0, rows, _AT_ONCE)
    keys = Keys(dataset.select_columns(["split", "_minhash"]), folder, threshold, scope, partitions)
    ranges = [range(start, min(rows, start + _AT_ONCE)) for start in starts]
    counts = list(workspace.map(keys, ranges))
    workspace.progress(0.3)
    met = sum(workspace.map(Meetings(folder, list(zip(starts, counts, strict=True))), range(partitions)))
    for start in starts:
        (folder / f"{start}.keys").unlink()
        (folder / f"{start}.rows").unlink()
    workspace.progress(0.5)
    like = _like(dataset, workspace, met, partitions, (column, threshold, ngram))
    head_ids = dataset.select_columns(["id"])
    heads = sorted({head for _, _, head in like})
    names = dict(zip(heads, head_ids[heads]["id"] if heads else (), strict=True))
    return [(row, reason, names[head]) for row, reason, head in _beyond(max_per_cluster, like)]


def _like(
    dataset: Dataset, workspace: Workspace, met: int, partitions: int, options: tuple[str, float, int]
) -> list[tuple[int, str, int]]:
    """The rows that are like one that stays: row, reason, the row that stays; ascending."""
    import numpy as np

    folder = workspace.folder
    np.save(folder / "groups.npy", groups(folder, partitions, len(dataset)))
    shares = max(workspace.workers, 1 + met * _MEETING * workspace.workers // workspace.memory)
    decide = Clusters(dataset, folder, *options, partitions, shares)
    for done, _ in enumerate(workspace.map(decide, range(shares)), 1):
        workspace.progress(0.5 + 0.5 * done / shares)
    found = np.concatenate([np.load(folder / f"{share}.like.npy") for share in range(shares)])
    found = found[np.argsort(found[:, 0])]
    return [(row, "duplicate" if exact else "near_duplicate", head) for row, head, exact in found.tolist()]


def _beyond(cap: int, like: Iterable[tuple[int, str, int]]) -> Iterator[tuple[int, str, int]]:
    """Of the rows that are like another, in order, those for which its cluster has no place left."""
    members: Counter[int] = Counter()
    for row, reason, head in like:
        members[head] += 1
        if members[head] >= cap:
            yield row, reason, head


stage = DatasetStage(name="dedup", run=run, measure=measure, adds={"_minhash": "binary"}, version="2")
