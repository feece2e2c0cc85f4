"""The Jaccard similarity of the shingles of texts, exactly, for many pairs at once.

Shingles are known by 64 bits, of which 44 count within one text or pair: of a million pairs of texts of 600 characters,
one in thirty has one shingle too many in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .shingles import blocks, shingles, spread, units

if TYPE_CHECKING:
    from .characters import Array

_OWNER = 44
"""Bits of a shingle below the number of its text or pair."""
MOST = 1 << (64 - _OWNER)
"""Texts, or pairs, that can be compared in one call."""


def jaccard(texts: Sequence[str], first: Array, second: Array, width: int) -> Array:
    """The similarity (float64, 0..1) of the texts numbered `first` and `second`, pair by pair; at most `MOST` of each.

    A text of fewer units than `width` is one shingle.
    """
    import numpy as np

    sets = _sets(texts, width)
    sizes = np.bincount((sets >> np.uint64(_OWNER)).astype(np.int64), minlength=len(texts))
    pairs = np.arange(len(first))
    both = np.concatenate([_owned(sets, sizes, first, pairs), _owned(sets, sizes, second, pairs)])
    both.sort()
    twice = both[1:][both[1:] == both[:-1]]
    common = np.bincount((twice >> np.uint64(_OWNER)).astype(np.int64), minlength=len(pairs))
    similar: Array = common / (sizes[first] + sizes[second] - common)
    return similar


def _sets(texts: Sequence[str], width: int) -> Array:
    """The shingles of all texts, each once, behind the number of its text; ascending."""
    import numpy as np

    parts, number = [np.zeros(0, dtype=np.uint64)], 0
    for block in blocks(texts):
        values, ends = units(block)
        hashes, text_of = shingles((values.astype(np.uint64), ends), width)
        owned = (spread(hashes) >> np.uint64(64 - _OWNER)) | ((text_of + number).astype(np.uint64) << np.uint64(_OWNER))
        owned.sort()
        parts.append(owned[np.append(True, owned[1:] != owned[:-1])])
        number += len(block)
    return np.concatenate(parts)


def _owned(sets: Array, sizes: Array, texts: Array, pairs: Array) -> Array:
    """The shingles of `texts`, each text's behind the number of its pair."""
    import numpy as np

    counts = sizes[texts]
    start = np.cumsum(sizes)[texts] - counts
    place = np.arange(counts.sum()) + np.repeat(start - (np.cumsum(counts) - counts), counts)
    below = np.uint64((1 << _OWNER) - 1)
    return (sets[place] & below) | np.repeat(pairs.astype(np.uint64) << np.uint64(_OWNER), counts)
