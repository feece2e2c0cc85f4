"""Which rows meet: rows whose sketches are equal in all lanes of some band share a bucket.

Keys of buckets go to disk in partitions, so that one partition at a time is in memory, in as many processes as there
are. Rows that are joined by a chain of buckets make a group; each group can be decided by itself.

A partition, in files of the folder: `N.keys` and `N.rows` as one process wrote them, one partition after the other;
then `P.meetings`: a bucket's number and a row's in one uint64, ascending, of all buckets in which several rows meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from .minhash import LANES, RECORD

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from .characters import Array

Scope: TypeAlias = Literal["all", "split"]

FOUND = 0.99
"""Least probability with which a pair at the threshold meets in a band."""
ENTRY = 12
"""Bytes of one row in one bucket on disk."""
ENTRY_IN_MEMORY = 48
"""Bytes of the same while a partition is sorted."""
_ROW = 32
"""Bits of a row's number below that of its bucket."""


def bands(threshold: float) -> tuple[int, int]:
    """Number and height of the bands: the most lanes with which a pair at the threshold meets in at least one band with
    probability `FOUND`.

    Higher bands bring fewer unlike rows together; see Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4.
    """
    height = max(h for h in range(1, LANES + 1) if 1 - (1 - threshold**h) ** (LANES // h) >= FOUND or h == 1)
    return LANES // height, height


@dataclass(frozen=True)
class Keys:
    """Writes the keys of some rows: `keys(rows)` gives the number of keys in each partition. Pickles."""

    dataset: Dataset
    folder: Path
    threshold: float
    scope: Scope
    partitions: int

    def __call__(self, rows: range) -> list[int]:
        """Write `START.keys` and `START.rows`, partition by partition."""
        import numpy as np

        table = self.dataset.with_format("arrow")[rows.start : rows.stop]
        number, height = bands(self.threshold)
        keys = np.concatenate([_keys(table, band, height, self.scope) for band in range(number)])
        partition = (keys % np.uint64(self.partitions)).astype(np.uint32)
        order = np.argsort(partition, kind="stable")
        keys[order].tofile(self.folder / f"{rows.start}.keys")
        (order % len(rows) + rows.start).astype(np.uint32).tofile(self.folder / f"{rows.start}.rows")
        return np.bincount(partition, minlength=self.partitions).tolist()


def _keys(table: pa.Table, band: int, height: int, scope: Scope) -> Array:
    """The bucket of each row in a band: one number (uint64), the same for rows whose lanes of the band are equal."""
    import numpy as np
    from xxhash import xxh3_64_intdigest

    factor = np.uint64(0x9E3779B97F4A7C15)
    key = np.full(len(table), band, dtype=np.uint64)
    if scope == "split":
        names = table["split"].combine_chunks().dictionary_encode()
        seeds = [xxh3_64_intdigest(name.encode()) for name in names.dictionary.to_pylist()]
        key += np.array(seeds, dtype=np.uint64)[names.indices.to_numpy()]
    for lane in records_of(table)["lanes"][:, band * height : (band + 1) * height].T:
        key = (key ^ lane) * factor
        key ^= key >> np.uint64(29)
    return key


def records_of(table: pa.Table) -> Array:
    """The column `_minhash` as records."""
    import numpy as np

    column = table["_minhash"].combine_chunks()
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset :]
    return np.frombuffer(column.buffers()[2], dtype=np.dtype(list(RECORD)), count=len(column), offset=int(offsets[0]))


@dataclass(frozen=True)
class Meetings:
    """Finds who meets in a partition: `meetings(partition)` writes them and gives their number. Pickles."""

    folder: Path
    parts: Sequence[tuple[int, Sequence[int]]]
    """Of each file of keys: its first row, and the number of keys by partition."""

    def __call__(self, partition: int) -> int:
        """Write `PARTITION.meetings`."""
        import numpy as np

        keys, rows = self._read("keys", "<u8", partition), self._read("rows", "<u4", partition)
        order = np.argsort(keys)
        keys = keys[order]
        first = np.ones(len(keys) + 1, dtype=bool)
        first[1:-1] = keys[1:] != keys[:-1]
        common = ~(first[:-1] & first[1:])
        bucket = np.cumsum(first[:-1])[common]
        meetings = (bucket.astype(np.uint64) << np.uint64(_ROW)) | rows[order[common]]
        meetings.sort()
        meetings.tofile(self.folder / f"{partition}.meetings")
        return len(meetings)

    def _read(self, kind: str, dtype: str, partition: int) -> Array:
        import numpy as np

        size = np.dtype(dtype).itemsize
        found = [np.zeros(0, dtype=dtype)]
        for first, counts in self.parts:
            at = sum(counts[:partition]) * size
            found.append(np.fromfile(self.folder / f"{first}.{kind}", dtype=dtype, count=counts[partition], offset=at))
        return np.concatenate(found)


def meetings(folder: Path, partitions: int) -> Iterator[tuple[Array, Array]]:
    """Bucket and row (int64) of each meeting of a partition, by bucket and then by row, for one after the other."""
    import numpy as np

    for partition in range(partitions):
        found = np.fromfile(folder / f"{partition}.meetings", dtype="<u8")
        yield (found >> np.uint64(_ROW)).astype(np.int64), (found & np.uint64((1 << _ROW) - 1)).astype(np.int64)


def groups(folder: Path, partitions: int, rows: int) -> Array:
    """The group of each row (uint32): the first row that a chain of buckets joins it with."""
    import numpy as np

    group = np.arange(rows, dtype=np.uint32)
    changed = True
    while changed:
        changed = False
        for bucket, row in meetings(folder, partitions):
            starts = np.flatnonzero(np.diff(bucket, prepend=-1))
            if not len(starts):
                continue
            mine = group[row]
            lowest = np.repeat(np.minimum.reduceat(mine, starts), np.diff(starts, append=len(row)))
            if (lowest != mine).any():
                changed = True
                np.minimum.at(group, mine, lowest)  # the roots of what was joined before, so that chains are short
                np.minimum.at(group, row, lowest)
        while (group != (root := group[group])).any():
            group = root
    return group
