"""Sketches of texts: 128 numbers of 16 bits that tell how much two texts have in common.

A text is a set of shingles: runs of five units, a unit being one character in a script written without spaces and one
word in any other. The share of equal numbers in two sketches estimates the Jaccard similarity of the sets, with a
standard error of at most 0.044, for short texts as for long ones. The method is Fast Similarity Sketching (Dahlgaard,
Knudsen and Thorup, arXiv 1704.04370): in each round every shingle is thrown into one of 128 bins, and the smallest hash
stays in a bin; only texts that left a bin empty go into the next round. Long texts are done after one or two rounds, as
in one-permutation hashing, and short ones get what 128 permutations would give. Of each hash the low 16 bits are kept
(b-bit minwise hashing, arXiv 0910.3349): by chance, one number in 65,536 is equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from .characters import HAN, KANA, OTHER, THAI, code_points, folding, kinds, per_text

if TYPE_CHECKING:
    from .characters import Array

LANES = 128
WIDTH = 5
DIGEST = 8
"""Bytes of the digest of a text's units, by which exact copies are known."""
RECORD = DIGEST + 2 * LANES
"""Bytes of one text: digest, then sketch."""

_BLOCK = 1 << 17
"""Units that are sketched together: small enough for the processor's cache."""
_FACTOR = 0x9E3779B97F4A7C15
_MIXERS = (0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD)
_MASK = (1 << 64) - 1
_SPACELESS = 1 << 31


def records(texts: Sequence[str]) -> list[bytes]:
    """Digest and sketch of each text, `RECORD` bytes each."""
    import numpy as np

    if not texts:
        return []
    found = units(texts)
    digests = [hashlib.blake2b(unit.tobytes(), digest_size=DIGEST).digest() for unit in found]
    sizes = np.cumsum([len(unit) for unit in found])
    cuts = np.flatnonzero(np.diff(sizes // _BLOCK)) + 1
    starts, ends = [0, *cuts.tolist()], [*cuts.tolist(), len(found)]
    sketches = np.concatenate([sketch(found[start:end]) for start, end in zip(starts, ends, strict=True)])
    return [digest + row.tobytes() for digest, row in zip(digests, sketches, strict=True)]


def units(texts: Sequence[str]) -> list[Array]:
    """The units of each text (uint32), without white space and punctuation; a text of nothing else keeps it."""
    import numpy as np

    points, lengths = code_points(texts)
    marked = _marked()[points]
    said = marked != 0
    sizes, spaceless = per_text(said, lengths), per_text(marked >= _SPACELESS, lengths)
    found = _slices(marked[said] & np.uint32(_SPACELESS - 1), sizes)
    spaced = np.flatnonzero(5 * spaceless < sizes).tolist()
    for row, hashed in zip(spaced, words([texts[row] for row in spaced]), strict=True):
        found[row] = hashed
    for row in np.flatnonzero(sizes == 0).tolist():
        found[row] = code_points(["".join(texts[row].split())])[0]
    return found


def words(texts: Sequence[str]) -> list[Array]:
    """The words of each text, hashed (uint32); in a script without spaces, each character is one. No context counts."""
    import numpy as np

    points, lengths = code_points([text + "\n" for text in texts])
    marked = _marked()[points]
    said = np.flatnonzero(marked)
    alone = marked[said] >= _SPACELESS
    first = np.flatnonzero((np.diff(said, prepend=-2) > 1) | alone | np.append(False, alone[:-1])[: len(said)])
    if not len(first):
        return [np.zeros(0, dtype=np.uint32)] * len(texts)
    place = np.arange(len(said)) - np.repeat(first, np.diff(first, append=len(said)))
    hashed = np.add.reduceat(marked[said] * _powers(64)[place % 64], first)
    starts = np.zeros(len(points), dtype=bool)
    starts[said[first]] = True
    return _slices((hashed >> np.uint64(32)).astype(np.uint32), per_text(starts, lengths))


def _slices(values: Array, sizes: Array) -> list[Array]:
    import numpy as np

    ends = np.cumsum(sizes).tolist()
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@cache
def _marked() -> Array:
    """Each code point folded (uint32), 0 if it is neither letter nor digit, marked if its script has no spaces."""
    import numpy as np

    kind = kinds()
    spaceless = (kind == HAN) | (kind == KANA) | (kind == THAI)
    return np.where(kind == OTHER, 0, folding() | np.where(spaceless, np.uint32(_SPACELESS), 0)).astype(np.uint32)


def sketch(found: Sequence[Array]) -> Array:
    """The sketches (uint16, texts by lanes) of texts given as units."""
    import numpy as np

    pad = np.zeros(WIDTH, dtype=np.uint32)  # a text of fewer units is one shingle
    hashes, text_of = runs([unit if len(unit) >= WIDTH else np.append(unit, pad[len(unit) :]) for unit in found], WIDTH)
    empty = np.uint64(_MASK)
    bins = np.full(len(found) * LANES, empty)
    home = text_of * LANES
    open_bins = np.ones(len(bins), dtype=bool)
    for number in range(2 * LANES):
        thrown = _rehash(hashes, number) if number else hashes
        into = home + ((thrown >> np.uint64(57)).astype(np.int64) if number < LANES else np.int64(number - LANES))
        value = thrown & np.uint64((1 << 57) - 1)
        if number:  # what an earlier round found is smaller
            fresh = open_bins[into]
            into, value = into[fresh], value[fresh]
        np.minimum.at(bins, into, value)
        open_bins = bins == empty
        unfinished = open_bins.reshape(-1, LANES).any(axis=1)
        if not unfinished.any():
            break
        again = unfinished[text_of]
        hashes, home, text_of = hashes[again], home[again], text_of[again]
    lanes: Array = bins.astype("<u2").reshape(-1, LANES)
    return lanes


def runs(found: Sequence[Array], width: int) -> tuple[Array, Array]:
    """Hashes (uint64) of all runs of `width` units within a text, and the text of each. A shorter text has none."""
    import numpy as np

    joined = np.concatenate([*found, np.zeros(0, dtype=np.uint32)]).astype(np.uint64)
    text_of = np.repeat(np.arange(len(found)), [len(unit) for unit in found])
    last = max(0, len(joined) - width + 1)
    hashes = np.zeros(last, dtype=np.uint64)
    for place, factor in enumerate(_powers(width)):
        hashes += joined[place : place + last] * factor
    within = text_of[:last] == text_of[len(joined) - last :]
    return _mix(hashes[within]), text_of[:last][within]


def _powers(count: int) -> Array:
    import numpy as np

    return np.cumprod(np.full(count, _FACTOR, dtype=np.uint64))


def _rehash(hashes: Array, number: int) -> Array:
    import numpy as np

    return _mix(hashes ^ np.uint64((number * _FACTOR) & _MASK))


def _mix(hashes: Array) -> Array:
    """Spread the bits of each number over all of it (in place)."""
    import numpy as np

    for factor in _MIXERS:
        hashes ^= hashes >> np.uint64(32)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(32)
    return hashes
