"""A sample over a whole input of unknown length: the ids with the smallest hashes.

Whether a record is drawn depends on its id and the seed alone, so the same records are drawn wherever and however the
input is read, and a larger sample contains every smaller one.
"""

from __future__ import annotations

import hashlib
import heapq


class Sample:
    """Draws `size` ids by bottom-k of a keyed hash."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self.offered = 0
        self._hash = hashlib.blake2b(digest_size=8, key=str(seed).encode())
        self._heap: list[int] = []  # negated, so that the largest hash of the sample comes first

    def offer(self, row_id: str) -> bool:
        """Whether `row_id` is among the smallest so far: a candidate. To be asked once per id."""
        self.offered += 1
        rank = -self._rank(row_id)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, rank)
            return True
        return heapq.heappushpop(self._heap, rank) != rank

    def holds(self, row_id: str) -> bool:
        """Whether `row_id`, a candidate, is in the sample, once all were offered."""
        return -self._rank(row_id) >= self._heap[0]

    def _rank(self, row_id: str) -> int:
        content = self._hash.copy()
        content.update(row_id.encode())
        return int.from_bytes(content.digest(), "big")
