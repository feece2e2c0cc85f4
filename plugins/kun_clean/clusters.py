"""Which rows stay: of rows in input order, each that is like none that stays. Rows are compared exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from .buckets import meetings, records_of
from .minhash import LANES
from .similarity import MOST, jaccard

if TYPE_CHECKING:
    from datasets import Dataset

    from .characters import Array

    Alike: TypeAlias = Callable[[Array, Array], Array]
    """Which pairs of rows are alike."""

_UNITS = 1 << 20
"""Units of texts that are compared at once."""
_DOUBT = 4.5
"""Standard errors below the threshold down to which a pair is looked at: less likely than 1 in 100,000 to be alike."""


@dataclass(frozen=True)
class Clusters:
    """Decides the groups of one share: `clusters(share)` writes the rows that are like another and gives their number.
    Pickles."""

    dataset: Dataset
    folder: Path
    column: str
    threshold: float
    width: int
    partitions: int
    shares: int

    def __call__(self, share: int) -> int:
        """Write `SHARE.like`: row, the row that stays, and whether it is an exact copy; ascending."""
        import numpy as np

        bucket, row = self._mine(share)
        rows, place = np.unique(row, return_inverse=True)
        records = records_of(self.dataset.select_columns(["_minhash"]).with_format("arrow")[rows])
        compare = Comparison(self.dataset.select_columns([self.column]), rows, records, self.threshold, self.width)
        head = heads(bucket, place, len(rows), compare)
        like = np.flatnonzero(head >= 0)
        exact = records["digest"][like] == records["digest"][head[like]]
        found = np.stack([rows[like], rows[head[like]], exact]).astype(np.int64).T
        np.save(self.folder / f"{share}.like.npy", found)
        return len(found)

    def _mine(self, share: int) -> tuple[Array, Array]:
        """Buckets and rows of the groups of this share."""
        import numpy as np

        group = np.load(self.folder / "groups.npy", mmap_mode="r")
        found = [(np.zeros(0, dtype=np.int64),) * 2]
        before = 0
        for bucket, row in meetings(self.folder, self.partitions):
            mine = group[row] % self.shares == share
            found.append((bucket[mine] + before, row[mine]))
            before += int(bucket[-1]) + 1 if len(bucket) else 0
        buckets, rows = zip(*found, strict=True)
        return np.concatenate(buckets), np.concatenate(rows)


def heads(bucket: Array, row: Array, rows: int, alike: Alike) -> Array:
    """For each of `rows` rows, the row that stays and that it is like, or -1 if it stays itself.

    bucket, row: who meets where, by bucket and then by row. The result is that of taking one row after the other and
    comparing it with those that stay of its buckets: in each round, the rows that come first in all of their buckets
    stay, and decide the others there.
    """
    import numpy as np

    head = np.full(rows, -1, dtype=np.int64)
    while len(row):
        first = np.diff(bucket, prepend=-1) != 0
        leads = np.bincount(row[first], minlength=rows) == np.bincount(row, minlength=rows)
        leader = np.repeat(row[first], np.diff(np.flatnonzero(first), append=len(row)))
        decided = leads[leader] & ~first
        pairs = np.unique((leader[decided] << 32) | row[decided])
        one, other = pairs >> 32, pairs & 0xFFFFFFFF
        like = alike(one, other)
        head[other[like][::-1]] = one[like][::-1]  # the first of several leaders is written last
        left = ~(leads[row] | (head[row] >= 0))
        bucket, row = bucket[left], row[left]
        together = bucket[1:] == bucket[:-1]
        meets = np.append(False, together) | np.append(together, False) if len(row) else left[:0]
        bucket, row = bucket[meets], row[meets]
    return head


@dataclass(frozen=True)
class Comparison:
    """Whether rows are alike: exact copies, or their Jaccard similarity reaches the threshold."""

    texts: Dataset
    rows: Array
    records: Array
    threshold: float
    width: int

    def __call__(self, one: Array, other: Array) -> Array:
        """Which pairs are, of rows by their place in `rows`."""
        import numpy as np

        alike = self.records["digest"][one] == self.records["digest"][other]
        open_pairs = np.flatnonzero(~alike)
        likely = self._likely(one[open_pairs], other[open_pairs])
        open_pairs = open_pairs[likely]
        sizes = np.cumsum(
            self.records["units"][one[open_pairs]].astype(np.int64) + self.records["units"][other[open_pairs]]
        )
        for some in np.split(open_pairs, _cuts(sizes)):
            alike[some] = self._similar(one[some], other[some]) >= self.threshold
        return alike

    def _likely(self, one: Array, other: Array) -> Array:
        """Which pairs may be alike, by their sketches."""
        import numpy as np

        threshold = self.threshold
        least = LANES * threshold - _DOUBT * (LANES * threshold * (1 - threshold)) ** 0.5
        lanes = self.records["lanes"]
        parts = [
            np.count_nonzero(lanes[one[at : at + MOST]] == lanes[other[at : at + MOST]], axis=1) >= least
            for at in range(0, len(one), MOST)
        ]
        return np.concatenate([np.zeros(0, dtype=bool), *parts])

    def _similar(self, one: Array, other: Array) -> Array:
        import numpy as np

        needed, place = np.unique(np.concatenate([one, other]), return_inverse=True)
        column = self.texts.with_format("arrow")[self.rows[needed]].column(0)
        texts = [text or "" for text in column.to_pylist()]
        return jaccard(texts, place[: len(one)], place[len(one) :], self.width)


def _cuts(sizes: Array) -> Array:
    """Where pairs, whose units are summed up in `sizes`, are cut into parts of about `_UNITS`."""
    import numpy as np

    return np.flatnonzero(np.diff(sizes // _UNITS)) + 1
