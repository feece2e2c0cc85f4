"""Stage `dedup`: exact and near copies, of which the first in input order stays.

A row is dropped only for its likeness to a row that stays, and names it: likeness is not passed on, so of three texts
that drift apart step by step the first and the last both stay. The result depends on the order of rows alone, not on
how they are cut into shards.

Memory is about 130 bytes a row, and 320 more for a row that meets another in some band; the sketches of all
others (264 bytes a row, see `minhash`) stay in memory-mapped files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from kun_builder import ColumnName, DatasetStage

from .minhash import DIGEST, LANES, RECORD, records

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from .characters import Array

Threshold = Annotated[float, Field(gt=0.3, le=1)]
Scope = Literal["all", "split"]
Cap = Annotated[int, Field(ge=1)]

FOUND = 0.99
"""Least probability with which a pair at the threshold meets in a band."""


def measure(
    table: pa.Table,
    *,
    column: ColumnName = "text",
    threshold: Threshold = 0.8,
    scope: Scope = "all",
    max_per_cluster: Cap = 1,
) -> pa.Table:
    """Add `_minhash`: digest and sketch of each text, `minhash.RECORD` bytes."""
    import pyarrow as pa

    texts = [text or "" for text in table[column].to_pylist()]
    return table.append_column("_minhash", pa.array(records(texts), pa.binary()))


def run(
    dataset: Dataset,
    *,
    column: ColumnName = "text",
    threshold: Threshold = 0.8,
    scope: Scope = "all",
    max_per_cluster: Cap = 1,
) -> list[tuple[int, str, object]]:
    """The rows to drop, each with the id of the row that it is like: the head of its cluster.

    `duplicate`: the same but for white space, punctuation, width, case and script (traditional or simplified).
    `near_duplicate`: the Jaccard similarity of the sets of shingles reaches `threshold`, as far as the sketches tell: a
    pair counts from two standard errors below, so at 0.8 from an estimate of 0.73 on. scope: whether a row of one
    split can be dropped for one of another. max_per_cluster: rows that stay of a cluster, its head and the first that
    are like it: more than 1 leaves a question that is asked again some of its answers, and caps one that always is.
    """
    import numpy as np

    table = dataset.with_format("arrow")[:]
    sketches = Sketches(table["_minhash"])
    groups = [np.arange(len(table))]
    if scope == "split":
        splits = table["split"].combine_chunks().dictionary_encode().indices.to_numpy()
        groups = [np.flatnonzero(splits == split) for split in np.unique(splits)]
    like = sorted(row for rows in groups for row in _duplicates(sketches, rows, threshold))
    ids = table["id"]
    return [(row, reason, ids[kept].as_py()) for row, reason, kept in _beyond(max_per_cluster, like)]


def _beyond(cap: int, like: Iterable[tuple[int, str, int]]) -> Iterator[tuple[int, str, int]]:
    """Of the rows that are like another, in order, those for which its cluster has no place left."""
    members: Counter[int] = Counter()
    for row, reason, head in like:
        members[head] += 1
        if members[head] >= cap:
            yield row, reason, head


def _duplicates(sketches: Sketches, rows: Array, threshold: float) -> Iterator[tuple[int, str, int]]:
    """Dropped row, reason, kept row, for the rows of one group."""
    import numpy as np

    _, first, inverse = np.unique(sketches.digests()[rows], return_index=True, return_inverse=True)
    originals = rows[first[inverse]]  # np.unique finds the first occurrence
    del first, inverse
    copies = originals != rows
    kept = dict(_near_duplicates(sketches, rows[~copies], threshold))
    yield from ((row, "near_duplicate", like) for row, like in kept.items())
    for row, original in zip(rows[copies].tolist(), originals[copies].tolist(), strict=True):
        yield row, "duplicate", kept.get(original, original)


def _near_duplicates(sketches: Sketches, rows: Array, threshold: float) -> Iterator[tuple[int, int]]:
    """Dropped and kept row, ascending by dropped row.

    Rows come in input order and are compared with the kept rows of their buckets. Those stand in `kept`, one stretch of
    it for each bucket: bucket b has `kept[start[b] : end[b]]`.
    """
    import numpy as np

    enough = _enough(threshold)
    members, buckets, sizes = _meetings(sketches, rows, threshold)
    meeting, first, count = np.unique(members, return_index=True, return_counts=True)
    lanes = sketches.lanes(rows[meeting])
    kept = np.zeros(len(buckets), dtype=np.int32)
    start = np.cumsum(sizes) - sizes
    end = start.copy()
    for me, (at, size) in enumerate(zip(first.tolist(), count.tolist(), strict=True)):
        mine = buckets[at : at + size]
        stretches = zip(start[mine].tolist(), end[mine].tolist(), strict=True)
        others = np.unique(np.concatenate([kept[one:other] for one, other in stretches]))
        like = others[np.count_nonzero(lanes[others] == lanes[me], axis=1) >= enough]
        if len(like):
            yield int(rows[meeting[me]]), int(rows[meeting[like[0]]])
        else:
            kept[end[mine]] = me
            end[mine] += 1


def _meetings(sketches: Sketches, rows: Array, threshold: float) -> tuple[Array, Array, Array]:
    """Which of `rows` meet where: place in `rows` and bucket, ordered by place; and how many meet in each bucket."""
    import numpy as np

    members, buckets, sizes = [], [], [np.zeros(0, dtype=np.int64)]
    number, height = 0, band_height(threshold)
    for band in range(LANES // height):
        _, bucket, size = np.unique(sketches.band(band, height)[rows], return_inverse=True, return_counts=True)
        common = size > 1
        place = np.flatnonzero(common[bucket])
        members.append(place.astype(np.int32))
        buckets.append((np.cumsum(common) - 1 + number)[bucket[place]].astype(np.int32))
        sizes.append(size[common])
        number += int(np.count_nonzero(common))
    joined = np.concatenate(members)
    order = np.argsort(joined, kind="stable")
    return joined[order], np.concatenate(buckets)[order], np.concatenate(sizes)


def band_height(threshold: float) -> int:
    """Lanes in a band: the most with which a pair at the threshold meets in at least one band with probability `FOUND`.

    Higher bands bring fewer unlike rows together; see Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4.
    """
    return max(h for h in range(1, LANES + 1) if 1 - (1 - threshold**h) ** (LANES // h) >= FOUND or h == 1)


def _enough(threshold: float) -> int:
    """Equal lanes from which two rows count as alike: two standard errors below the threshold."""
    return int(LANES * threshold - 2 * (LANES * threshold * (1 - threshold)) ** 0.5)


class Sketches:
    """The column `_minhash` as numbers, read in place: parts are chunks of the column."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        import numpy as np

        self._parts = [_records(chunk) for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *map(len, self._parts)])

    def digests(self) -> Array:
        """One number for each row; equal for exact copies."""
        return self._concatenate([part[:, :DIGEST].copy().view("<u8")[:, 0] for part in self._parts])

    def band(self, number: int, height: int) -> Array:
        """One number for each row; equal where `height` lanes are, from lane `number * height` on."""
        import numpy as np

        factor, start = np.uint64(0x9E3779B97F4A7C15), DIGEST + 2 * number * height
        bands = []
        for part in self._parts:
            lanes = part[:, start : start + 2 * height].copy().view("<u2").astype(np.uint64)
            key = np.zeros(len(part), dtype=np.uint64)
            for lane in lanes.T:
                key = (key ^ lane) * factor
                key ^= key >> np.uint64(29)
            bands.append(key)
        return self._concatenate(bands)

    def lanes(self, rows: Array) -> Array:
        """The lanes of `rows` (ascending), in one array."""
        import numpy as np

        cuts = rows.searchsorted(self._starts)
        found = [
            part[rows[one:other] - start, DIGEST:]
            for part, start, one, other in zip(self._parts, self._starts, cuts, cuts[1:], strict=False)
        ]
        return np.concatenate(found).view("<u2") if found else np.zeros((0, LANES), dtype="<u2")

    @staticmethod
    def _concatenate(parts: list[Array]) -> Array:
        import numpy as np

        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)


def _records(chunk: Any) -> Array:
    """The bytes of a chunk of `binary`, rows by `RECORD`, without a copy."""
    import numpy as np

    offsets = np.frombuffer(chunk.buffers()[1], dtype=np.int32)
    data = np.frombuffer(chunk.buffers()[2], dtype=np.uint8)
    start = int(offsets[chunk.offset])
    return data[start : start + RECORD * len(chunk)].reshape(-1, RECORD)


stage = DatasetStage(name="dedup", run=run, measure=measure, adds={"_minhash": "binary"})
