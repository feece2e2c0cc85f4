"""Characters as texts are compared: tables over all code points, and a shard's texts as one array of them.

Two texts that differ only in width (`Ａ`, `A`), case, or traditional and simplified script say the same. The folding
here lets the language model and the search for duplicates see them so; the texts themselves stay as they are.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

OTHER, DIGIT, LETTER, HAN, KANA, HANGUL, THAI = range(7)
"""Kinds of characters: none of the others; a digit of any script; a letter of one that has no kind of its own. `THAI`
stands for the scripts of South-East Asia that are, like Han and kana, written without spaces."""

_SIZE = 0x110000
_ASSIGNED = 0x32400
"""Nothing beyond is a letter or white space."""
_BLOCKS = (
    (
        HAN,
        (
            (0x2E80, 0x2FD6),
            (0x3005, 0x3008),
            (0x3400, 0x4DC0),
            (0x4E00, 0xA000),
            (0xF900, 0xFB00),
            (0x20000, _ASSIGNED),
        ),
    ),
    (KANA, ((0x3041, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFFA0))),
    (HANGUL, ((0x1100, 0x1200), (0x3130, 0x3190), (0xAC00, 0xD7B0), (0xFFA0, 0xFFDD))),
    (THAI, ((0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800))),
)


def code_points(texts: Sequence[str]) -> tuple[Array, Array]:
    """All code points of `texts` in one array (uint32), and the length of each text (int64)."""
    import numpy as np

    points = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
    return points, np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))


def per_text(hits: Array, lengths: Array) -> Array:
    """How many of a text's code points are hits, for each text."""
    import numpy as np

    before_end: Array = np.searchsorted(np.flatnonzero(hits), np.cumsum(lengths))
    return np.diff(before_end, prepend=0)


@cache
def kinds() -> Array:
    """The kind of each code point (uint8)."""
    import numpy as np

    of_category = {"L": LETTER, "M": LETTER, "N": DIGIT}
    categories = (unicodedata.category(chr(point)) for point in range(_ASSIGNED))
    table = np.zeros(_SIZE, dtype=np.uint8)
    table[:_ASSIGNED] = [of_category.get(category[0], OTHER) for category in categories]
    for kind, blocks in _BLOCKS:
        for first, end in blocks:
            table[first:end][table[first:end] == LETTER] = kind
    return table


@cache
def white() -> Array:
    """Whether each code point is white space, as `str.split` has it (bool)."""
    import numpy as np

    table = np.zeros(_SIZE, dtype=bool)
    table[:_ASSIGNED] = [chr(point).isspace() for point in range(_ASSIGNED)]
    return table


def seen(texts: pa.ChunkedArray) -> Array:
    """How many characters of each text can be seen (int64): all but white space.

    In UTF-8, where only the few bytes with which white space begins are looked at, no character is made for it.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pa.concat_arrays([pa.array([], pa.large_string()), *texts.cast(pa.large_string()).chunks])
    _, ends, content = column.buffers()
    ends = np.frombuffer(ends, np.int64)[: len(column) + 1]
    data = np.frombuffer(content or b"", np.uint8)[: ends[-1]]
    at = np.flatnonzero(np.frombuffer(data.tobytes().translate(_may_begin_white()), bool))  # `take` is slower by far
    first, *others = (data.take(at + step, mode="clip").astype(np.uint32) for step in range(3))
    second, third = (byte & 0x3F for byte in others)
    long = np.where(first < 0xE0, (first & 0x1F) << 6 | second, (first & 0x0F) << 12 | second << 6 | third)
    blank = at[white().take(np.where(first < 0x80, first, long))]
    return pc.utf8_length(column).to_numpy() - np.diff(np.searchsorted(blank, ends))


@cache
def _may_begin_white() -> bytes:
    """Whether a character of white space can begin with a byte in UTF-8, 1 or 0; none of them has four bytes."""
    import numpy as np

    table = np.zeros(0x100, dtype=bool)
    table[[chr(point).encode()[0] for point in np.flatnonzero(white()).tolist()]] = True
    return table.tobytes()


@cache
def folding() -> Array:
    """Each code point (uint32) as it is compared: compatibility form, lower case, simplified; one to one only.

    White space and what cannot be seen becomes a space, but for the newline.
    """
    import numpy as np

    table = np.arange(_SIZE, dtype=np.uint32)
    for point in range(_ASSIGNED):
        character = chr(point)
        folded = unicodedata.normalize("NFKC", character).lower()
        if character.isspace() or unicodedata.category(character) in ("Cc", "Cf"):
            table[point] = ord(" ")
        elif len(folded) == 1:
            table[point] = ord(folded)
    table[ord("\n")] = ord("\n")
    han = np.flatnonzero(kinds() == HAN)
    simplified = simplify("\n".join(map(chr, table[han].tolist()))).split("\n")  # each stands alone: no phrases
    table[han] = [ord(character) for character in simplified]
    return table


def simplify(text: str) -> str:
    """`text` in simplified Chinese, by OpenCC's rules for phrases and characters."""
    simplified: str = _converter().convert(text)
    return simplified


@cache
def _converter() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")
