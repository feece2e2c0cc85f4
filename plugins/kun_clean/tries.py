"""KenLM's models, scored a shard at a time: the same figures to the last bit, several times as fast.

KenLM's library looks up one n-gram after the other, each by a chain of reads that wait for memory. Here the n-grams
that end in each character of many texts become longer together, one order at a time, and the reads do not wait for each
other. Only what `train_perplexity` writes is read: a trie of n-grams of characters, quantised to at most 8 bits, with
compressed pointers. `language_models` leaves every other model to the library.

In the file, an n-gram is a node under the n-gram without its first word: 你好 is found by 好, then 你. In memory
the nodes of an order are the slots of a hash table, in which the node above and the word in front are the key.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .characters import Array

_MAGIC = b"mmap lm http://kheafield.com/code format version 5\n\0"
_HEADER = 88
"""Bytes before the parameters: the line above, and numbers that tell how the machine writes numbers."""
_PARAMETERS = struct.Struct("<B3xfIB3xI")
"""Order, a factor of another kind of model, kind, whether the words are at the end of the file, version of the kind."""
_KIND = (5, 1)
"""A trie, quantised, with compressed pointers, in its first version."""
_CODE = 8
"""Most bits of the code of a probability or a backoff; a node has one of each, in the same number."""
_VALUE = 2 * _CODE
_MOST = 1 << 24
"""N-grams: each takes 16 to 32 bytes of memory here. The library leaves larger models on disk."""
_FACTOR = 0x9E3779B97F4A7C15
_EMPTY = (1 << 64) - 1


class Table:
    """A hash table with open addressing: for each key, a number above `_VALUE` bits that are 0 (uint64), its value."""

    def __init__(self, keys: Array, values: Array) -> None:
        import numpy as np

        bits = len(keys).bit_length() + 1  # at most half full
        self._shift, self._mask = np.uint64(64 - bits), (1 << bits) - 1
        self._entries = np.full(1 << bits, _EMPTY, dtype=np.uint64)
        self.slots = self._home(keys)
        """Where each key is."""
        entries, todo = keys | values.astype(np.uint64), np.arange(len(keys))
        while len(todo):
            at = self.slots[todo]
            free = self._entries[at] == _EMPTY
            self._entries[at[free]] = entries[todo[free]]
            todo = todo[self._entries[at] != entries[todo]]
            self.slots[todo] = (self.slots[todo] + 1) & self._mask

    def find(self, keys: Array) -> tuple[Array, Array, Array]:
        """The numbers of `keys` that are there, where they are, and their values."""
        import numpy as np

        slots = self._home(keys)
        differ = self._entries.take(slots)
        empty = differ == _EMPTY
        differ ^= keys
        todo = np.flatnonzero((differ >> _VALUE > 0) & ~empty)
        while len(todo):
            slots[todo] = at = (slots.take(todo) + 1) & self._mask
            seen = self._entries.take(at)
            differ[todo] = unlike = seen ^ keys.take(todo)
            todo = todo.compress((unlike >> _VALUE > 0) & (seen != _EMPTY))
        found = np.flatnonzero(differ >> _VALUE == 0)
        return found, slots.take(found), differ.take(found)

    def _home(self, keys: Array) -> Array:
        import numpy as np

        slots: Array = ((keys * np.uint64(_FACTOR)) >> self._shift).astype(np.int64)
        return slots


class Trie:
    """A model over characters. Raises ValueError for a file that holds another kind of model."""

    def __init__(self, path: Path) -> None:
        import numpy as np

        with path.open("rb") as opened:
            file = _File(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        self._bits = _VALUE + len(file.words).bit_length()
        self._unigrams = file.unigrams["probability"].copy(), file.unigrams["backoff"].copy()
        self._orders: list[tuple[Table, Array, Array]] = []
        """For each order from 2 on its nodes, whose values are two codes, and the meanings of these: probabilities and,
        but for the last order, backoffs (float32)."""
        above, edges = np.arange(len(file.words)), file.unigrams["next"].astype(np.int64)
        for part in file.parts:
            keys = self._keys(np.repeat(above, np.diff(edges)), part.words)
            nodes = Table(keys, (part.probability_codes << _CODE) | part.backoff_codes)
            self._orders.append((nodes, part.probabilities, part.backoffs))
            above, edges = nodes.slots, part.edges
        self._begin, self._end = file.words.index("<s>"), file.words.index("</s>")
        self._of_point = np.zeros(0x110000, dtype=np.int64)  # the first word is the unknown one
        for number, word in enumerate(file.words):
            if len(word) == 1:
                self._of_point[ord(word)] = number

    def scores(self, points: Array) -> Array:
        """The logarithm (base 10, float32) of the probability of each line, given as code points, each line with a
        line feed behind it; its beginning is known, and its end counts."""
        import numpy as np

        ends = np.flatnonzero(points == ord("\n")) + np.arange(1, 1 + np.count_nonzero(points == ord("\n")))
        begins = np.append(0, ends[:-1] + 1)[: len(ends)]
        words = np.empty(len(points) + len(ends), dtype=np.int64)
        inner = np.ones(len(words), dtype=bool)
        inner[begins] = False
        words[inner] = self._of_point.take(points)
        words[begins], words[ends] = self._begin, self._end
        scores = self._each(words)
        scores[begins] = 0
        return _sums(scores, begins, ends)

    def _each(self, words: Array) -> Array:
        """The score of each word behind those before it: the probability behind the longest context that it was seen
        behind, and the backoffs of longer ones."""
        import numpy as np

        probabilities, backoffs = self._unigrams
        scores, weights = probabilities.take(words), backoffs.take(words)
        alive, nodes = np.arange(len(words)), words
        for number, (table, probabilities, backoffs) in enumerate(self._orders, 1):
            scores[1:] += weights[:-1]  # 0 where there is no such context; gone where a longer one is found
            # Nothing is known before the beginning of a line, so that it does not matter what stands there.
            found, nodes, codes = table.find(self._keys(nodes, words.take(alive - number, mode="wrap")))
            alive = alive.take(found)
            scores[alive] = probabilities.take(codes >> _CODE)
            if len(backoffs):
                weights = np.zeros(len(words), dtype=np.float32)
                weights[alive] = backoffs.take(codes & (1 << _CODE) - 1)
        return scores

    def _keys(self, nodes: Array, words: Array) -> Array:
        keys: Array = ((nodes << self._bits) | (words << _VALUE)).view("<u8")
        return keys


def _sums(scores: Array, begins: Array, ends: Array) -> Array:
    """The sum of each line in float32, from left to right as the library adds; lines of about one length together."""
    import numpy as np

    sums, scores = np.zeros(len(ends), dtype=np.float32), np.append(scores, np.float32(0))
    powers = np.frexp(ends - begins)[1]
    for power in np.unique(powers):
        lines = np.flatnonzero(powers == power)
        first, last = begins[lines], ends[lines]
        place = first + np.arange((last - first).max() + 1)[:, None]
        values = scores.take(np.where(place <= last, place, len(scores) - 1))
        sums[lines] = np.add.accumulate(values, axis=0)[-1]
    return sums


# --- the file --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """The n-grams of one length as they are in the file, ordered by the node above and the word in front."""

    words: Array
    probability_codes: Array
    probabilities: Array
    backoff_codes: Array
    backoffs: Array
    edges: Array
    """Between which numbers the nodes below each node are, one number more than there are nodes."""


class _File:
    """The parts of a model's file."""

    def __init__(self, raw: mmap.mmap) -> None:
        import numpy as np

        self._raw = raw
        order, _, kind, worded, version = (
            _PARAMETERS.unpack_from(raw, _HEADER) if raw[: len(_MAGIC)] == _MAGIC and len(raw) > 1000 else [0] * 5
        )
        if (kind, version) != _KIND or not worded or order < 3:
            raise ValueError("not a quantised trie with its words")
        self._at = _HEADER + _PARAMETERS.size
        counts = self._take("<u8", order).tolist()
        self._at = -(-self._at // 8) * 8 + 8 * (1 + counts[0])  # after the hashes of the words
        version, self._probability_bits, self._backoff_bits = self._take("u1", 8)[:3].tolist()
        if version != 2 or max(self._probability_bits, self._backoff_bits) > _CODE:
            raise ValueError("quantised in another way")
        if sum(counts) > _MOST:
            raise ValueError("a trie of too many n-grams")
        self._word_bits = counts[0].bit_length()
        tables = [(self._meanings(self._probability_bits), self._meanings(self._backoff_bits)) for _ in counts[2:]]
        tables.append((self._meanings(self._probability_bits), np.zeros(0, dtype=np.float32)))
        kinds = np.dtype([("probability", "<f4"), ("backoff", "<f4"), ("next", "<u8")])
        self.unigrams = self._take(kinds, counts[0] + 2)[:-1]
        most = raw[self._at + 1]
        self.parts = [
            self._middle(count, below, most, *table)
            for (count, below), table in zip(pairwise(counts[1:]), tables, strict=False)
        ]
        self.parts.append(self._longest(counts[-1], *tables[-1]))
        self.words = raw[self._at :].decode().split("\0")[: counts[0]]

    def _take(self, kind: Any, count: int) -> Array:
        import numpy as np

        found = np.frombuffer(self._raw, kind, count, self._at)
        self._at += found.nbytes
        return found

    def _meanings(self, bits: int) -> Array:
        return self._take("<f4", 1 << bits).copy()  # nothing holds on to the file

    def _middle(self, count: int, below: int, most: int, probabilities: Array, backoffs: Array) -> _Part:
        """N-grams that others end in. Their pointers are cut: of the high bits, only the node is kept from which on
        they are one more."""
        import numpy as np

        chopped = _chopped(count + 1, below, most)
        low_bits = below.bit_length() - chopped
        buckets = (below >> low_bits) + 1
        end = self._at + 8 * (1 + buckets) + 7
        self._at = -(-self._at // 8) * 8 + 8
        firsts = self._take("<u8", buckets)
        self._at = end
        widths = (self._word_bits, self._backoff_bits, self._probability_bits, low_bits)
        words, backoff_codes, codes, low = self._packed(count + 1, widths)
        high = np.searchsorted(firsts, np.arange(count + 1), side="right") - 1
        edges = (high << low_bits) | low.astype(np.int64)
        return _Part(_codes(words[:-1]), _codes(codes[:-1]), probabilities, _codes(backoff_codes[:-1]), backoffs, edges)

    def _longest(self, count: int, probabilities: Array, backoffs: Array) -> _Part:
        import numpy as np

        words, codes, _ = self._packed(count + 1, (self._word_bits, self._probability_bits, 0))
        zeros, codes = np.zeros(count, dtype=np.int64), _codes(codes[:-1])
        return _Part(_codes(words[:-1]), codes, probabilities, zeros, backoffs, zeros)

    def _packed(self, count: int, widths: Sequence[int]) -> list[Array]:
        """Columns of whole numbers that take so many bits each, of records that follow each other without a gap."""
        import numpy as np

        total = sum(widths)
        at = np.arange(count, dtype=np.int64) * total
        windows = np.ndarray((len(self._raw) - self._at - 7,), "<u8", self._raw, self._at, (1,))  # from each byte on
        bits = windows[at >> 3] >> (at & 7).astype(np.uint64)
        columns = []
        for width in widths:
            columns.append(bits & np.uint64((1 << width) - 1))
            bits = bits >> np.uint64(width)
        self._at += (count * total + 7) // 8 + 8
        return columns


def _codes(column: Array) -> Array:
    import numpy as np

    codes: Array = column.astype(np.int64)
    return codes


def _chopped(count: int, below: int, most: int) -> int:
    """How many high bits of `count` pointers to at most `below` are not with the nodes: those that save most."""
    bits = below.bit_length()
    return min(range(min(bits, most) + 1), key=lambda cut: (below >> (bits - cut)) * 64 - count * cut)
