"""Traditional and simplified Chinese: a model's words in the script of the text that they are about.

Small models answer a traditional text in simplified characters or in a mixture of both. Which character belongs to
which script, and the conversion by phrases, are OpenCC's.
"""

from __future__ import annotations

import sys
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_EITHER = frozenset(
    "后里台只干几了云丑才斗冬范丰谷刮胡回伙姜借卷克夸困累漓帘蒙面辟仆曲舍沈咸向余郁愿岳占折征致制钟周朱准症注吁吊家升"
)
"""Characters that both scripts have, with one meaning or another."""

_NUMBERS, _UNKNOWN, _FIRST_HAN = {"": 0, "t": 1, "s": 2}, 3, 0x3400

_CLEAR = 10
"""So many times as often as those of the other script: then a text is written in one of them."""


def in_script_of(text: str, words: str) -> str:
    """`words`, in the script of `text` where that has a clear one and `words` have characters of the other."""
    traditional, simplified = _counts(text)
    said_traditional, said_simplified = _counts(words)
    if said_simplified and traditional > _CLEAR * simplified:
        return _converted(words, "s2tw", "s" if said_traditional > said_simplified else "", text)
    if said_traditional and simplified > _CLEAR * traditional:
        return _converted(words, "t2s", "t" if said_simplified > said_traditional else "", text)
    return words


def _converted(words: str, direction: str, only: str, text: str) -> str:
    """`words` in the other script; of words that are in it for the most part, only the characters of the script `only`,
    for OpenCC takes those of both scripts (體系, 公里) for simplified ones. A character of both stays where the text
    writes it beside one of its neighbours (三征, not 三徵)."""
    converted = str(_converter(direction).convert(words))
    if len(converted) != len(words):
        return converted
    if only:
        pairs = zip(words, converted, strict=True)
        return "".join(theirs if _script(ours) == only else ours for ours, theirs in pairs)
    return "".join(
        ours if ours in _EITHER and ours != theirs and _told(text, converted, place, ours) else theirs
        for place, (ours, theirs) in enumerate(zip(words, converted, strict=True))
    )


def _told(text: str, converted: str, place: int, character: str) -> bool:
    """Whether `text` has the character beside one of its neighbours in the converted words."""
    before, behind = converted[max(0, place - 1) : place], converted[place + 1 : place + 2]
    return any(pair in text for pair in (before + character, character + behind) if len(pair) == 2)


@lru_cache(maxsize=128)  # of one row, several checks ask for the same words
def simplified(words: str) -> str:
    """`words` in simplified characters: forms of speech are known in these."""
    return str(_converter("t2s").convert(words))


@lru_cache(maxsize=512)  # a text is compared with all that is said of it
def _counts(text: str) -> tuple[int, int]:
    """How many characters of `text` only traditional script has, and how many only simplified."""
    import numpy as np

    scripts = _scripts()
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    found = scripts[characters]
    if (new := found == _UNKNOWN).any():
        for character in set(characters[new].tolist()):
            scripts[character] = _NUMBERS[_script(chr(character))]
        found = scripts[characters]
    counts = np.bincount(found, minlength=len(_NUMBERS)).tolist()
    return counts[_NUMBERS["t"]], counts[_NUMBERS["s"]]


@cache
def _scripts() -> npt.NDArray[np.uint8]:
    """The script of each character, as a number; those from the first Han character on are filled in as they come."""
    import numpy as np

    scripts = np.zeros(sys.maxunicode + 1, np.uint8)
    scripts[_FIRST_HAN:] = _UNKNOWN
    return scripts


@cache
def _script(character: str) -> str:
    if character in _EITHER:
        return ""
    if _converter("t2s").convert(character) != character:
        return "t"
    return "s" if _converter("s2tw").convert(character) != character else ""


@cache
def _converter(direction: str) -> Any:
    from opencc import OpenCC

    return OpenCC(direction)
