"""Sketches of texts: 64 numbers of 16 bits that tell which texts may have much in common.

The share of equal numbers in two sketches estimates the Jaccard similarity of their sets of shingles, with a standard
error of at most 0.063. The method is Fast Similarity Sketching (Dahlgaard, Knudsen and Thorup, arXiv 1704.04370): in
each round every shingle is thrown into one of 64 bins, and the smallest hash stays in a bin; only texts that left a bin
empty go into the next round. Long texts are done after one round, as in one-permutation hashing, and short ones get
what 64 permutations would give. Of each hash the low 16 bits are kept (b-bit minwise hashing, arXiv 0910.3349): by
chance, one number in 65,536 is equal. Sketches only propose pairs; `similarity.jaccard` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from .shingles import blocks, shingles, units

if TYPE_CHECKING:
    from .characters import Array
    from .shingles import Texts

LANES = 64
RECORD = (("digest", "<u8"), ("units", "<u4"), ("lanes", "<u2", LANES))
"""What is kept of a text, a numpy type of 140 bytes: a digest of its units, by which exact copies are known, their
number, and the sketch."""

_BITS = 26
"""Of a hash, those that are compared within a bin; the six above say which bin."""
_FACTOR = 0x9E3779B1


def records(texts: Sequence[str], width: int) -> Array:
    """A `RECORD` of each text."""
    import numpy as np

    parts = [_records(block, width) for block in blocks(texts)]
    return np.concatenate([np.zeros(0, dtype=np.dtype(list(RECORD))), *parts])


def _records(texts: Sequence[str], width: int) -> Array:
    import numpy as np
    from xxhash import xxh3_64_intdigest

    values, ends = found = units(texts)
    starts = [0, *ends.tolist()]
    made = np.zeros(len(texts), dtype=np.dtype(list(RECORD)))
    made["digest"] = [xxh3_64_intdigest(values[start:end]) for start, end in pairwise(starts)]
    made["units"] = np.diff(ends, prepend=0)
    made["lanes"] = sketch(found, width)
    return made


def sketch(texts: Texts, width: int) -> Array:
    """The sketches (uint16, texts by lanes) of texts given as units."""
    import numpy as np

    count = len(texts[1])
    raw, text_of = shingles(texts, width)
    hashes, home = _spread(raw), text_of * LANES
    empty = np.uint32(0xFFFFFFFF)
    bins = np.full(count * LANES, empty)
    is_open = np.ones(len(bins), dtype=bool)
    for number in range(2 * LANES):
        thrown = _spread(hashes ^ np.uint32(number * _FACTOR & 0xFFFFFFFF)) if number else hashes
        into = home + ((thrown >> np.uint32(_BITS)) if number < LANES else np.int64(number - LANES))
        value = thrown & np.uint32((1 << _BITS) - 1)
        if number:  # what an earlier round found stays
            fresh = is_open[into]
            into, value = into[fresh], value[fresh]
        np.minimum.at(bins, into, value)
        is_open = bins == empty
        unfinished = is_open.reshape(-1, LANES).any(axis=1)
        if not unfinished.any():
            break
        again = unfinished[home // LANES]
        hashes, home = hashes[again], home[again]
    lanes: Array = bins.astype("<u2").reshape(-1, LANES)
    return lanes


def _spread(hashes: Array) -> Array:
    """Spread the bits of each uint32 over all of it (in place)."""
    import numpy as np

    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hashes ^= hashes >> np.uint32(shift)
        hashes *= np.uint32(factor)
    hashes ^= hashes >> np.uint32(16)
    return hashes
