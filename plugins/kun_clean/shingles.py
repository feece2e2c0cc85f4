"""Texts as sets of shingles: runs of a few units, a unit being one character in a script written without spaces and one
word in any other. White space, punctuation, width, case and script (traditional or simplified) make no difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from .characters import HAN, KANA, OTHER, THAI, code_points, folding, kinds, per_text

if TYPE_CHECKING:
    from .characters import Array

    Texts: TypeAlias = tuple[Array, Array]
    """The units (uint32) of several texts in one array, and where each text ends in it."""

_BLOCK = 1 << 17
"""Characters that are worked on together: small enough for the processor's cache."""
_FACTOR = 0x9E3779B97F4A7C15
_SPACELESS = 1 << 31


def blocks(texts: Sequence[str], size: int = _BLOCK) -> Iterator[Sequence[str]]:
    """`texts` in parts of about `size` characters."""
    start, before = 0, 0
    for end, total in enumerate(accumulate(map(len, texts)), 1):
        if total - before >= size or end == len(texts):
            yield texts[start:end]
            start, before = end, total


def units(texts: Sequence[str]) -> Texts:
    """The units of each text, without white space and punctuation; a text of nothing else keeps its punctuation."""
    import numpy as np

    points, lengths = code_points(texts)
    marked = _marked().take(points)
    said = np.flatnonzero(marked != 0)
    values, ends = marked.take(said), np.searchsorted(said, np.cumsum(lengths))
    sizes = np.diff(ends, prepend=0)
    of_words = np.searchsorted(np.flatnonzero(values < _SPACELESS), ends)
    spaced = np.flatnonzero(5 * np.diff(of_words, prepend=0) > 4 * sizes)
    silent = np.flatnonzero(sizes == 0)
    if len(spaced) or len(silent):
        found = _slices(values, sizes)
        for row, hashed in zip(spaced.tolist(), words([texts[row] for row in spaced.tolist()]), strict=True):
            found[row] = hashed
        for row in silent.tolist():
            found[row] = code_points(["".join(texts[row].split())])[0]
        return _joined(found)
    return values, ends


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


def shingles(texts: Texts, width: int) -> tuple[Array, Array]:
    """A hash (of the type of the units) for each run of `width` units within a text, and the number of its text.

    A text of fewer units is one shingle.
    """
    import numpy as np

    values, ends = _padded(texts, width)
    hashes = rolled(values, width)
    text_of = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    within = np.ones(len(values), dtype=bool)
    within[(ends[:, None] - np.arange(1, width)).ravel()] = False
    within = within[: len(hashes)]
    return hashes[within], text_of[: len(hashes)][within]


def runs(found: Sequence[Array], width: int) -> tuple[Array, Array]:
    """Hashes (uint64) of all runs of `width` units within a text, and the text of each. A shorter text has none."""
    import numpy as np

    values, ends = _joined([unit if len(unit) >= width else unit[:0] for unit in found])
    long = np.flatnonzero(np.diff(ends, prepend=0))
    hashes, text_of = shingles((values.astype(np.uint64), ends[long]), width)
    return spread(hashes), long[text_of]


def rolled(values: Array, width: int) -> Array:
    """A polynomial of each run of `width` values, in their own type: equal for equal runs, and else by mere chance."""
    import numpy as np

    count = max(0, len(values) - width + 1)
    hashes = np.zeros(count, dtype=values.dtype)
    for place, factor in enumerate(_powers(width).astype(values.dtype)):
        hashes += values[place : place + count] * factor
    return hashes


def spread(hashes: Array) -> Array:
    """Spread the bits of each uint64 over all of it (in place)."""
    import numpy as np

    for factor in (0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD):
        hashes ^= hashes >> np.uint64(32)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(32)
    return hashes


def _padded(texts: Texts, width: int) -> Texts:
    """Texts of fewer than `width` units with zeros behind them."""
    import numpy as np

    values, ends = texts
    sizes = np.diff(ends, prepend=0)
    if not len(sizes) or sizes.min() >= width:
        return texts
    longer = np.cumsum(np.maximum(sizes, width))
    padded = np.zeros(int(longer[-1]), dtype=values.dtype)
    moved = np.diff(longer, prepend=0).cumsum() - np.maximum(sizes, width) - (ends - sizes)
    padded[np.arange(len(values)) + np.repeat(moved, sizes)] = values
    return padded, longer


def _joined(found: Sequence[Array]) -> Texts:
    import numpy as np

    values = np.concatenate([*found, np.zeros(0, dtype=np.uint32)])
    return values, np.cumsum([0, *map(len, found)])[1:]


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


@cache
def _powers(count: int) -> Array:
    import numpy as np

    return np.cumprod(np.full(count, _FACTOR, dtype=np.uint64))
