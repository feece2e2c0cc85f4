"""An instruction without what its text says nothing of: 材料、步骤和注意事项, of a recipe that warns of nothing.

Small models ask for the same sides of whatever they read (see `aspects`). Where such a side is an item of a list, a
clause or a question by itself, the rest of the instruction is a good one without it.
"""

from __future__ import annotations

import re

from . import sides_english
from .aspects import asks_beyond
from .context import has_material
from .texts import han_share

_SENTENCE = re.compile(r"[^。？！?!]+[。？！?!]*\s*")
_CLAUSE = re.compile(r"[，,]\s*")
_AND = re.compile(r"以及|[和与與及]")
_BETWEEN = re.compile(rf"(、|(?:{_CLAUSE.pattern})?(?:{_AND.pattern})|{_CLAUSE.pattern})")
_OPENS = re.compile(r"(?:的|[写列]出|包括|哪些|说明|介绍|其|所需)\Z")
"""How what stands before the first item of a list may end."""
_ASKS = r"(?:请?(?:说明|介绍|写出)|有哪些|有什么|有何|哪些|什么|它们?|其|[他她]们?)*的?(?:有哪些|有什么)?"
_MORE = r"(?:[经經][历歷]|背景)?"
"""What belongs to the name of a side and goes with it."""
_REST = re.compile(
    r"(?:等?(?:方面)?的?(?:[详詳][细細])?(?:情[况況]|信息)?)?(?:[是为為](?:什么|什麼|多少|怎样的?)|有哪些|有什么|如何|怎么样|怎[样樣])?"
)
"""What may stand behind the last item of a list, and stays."""


def answerable(instruction: str, text: str) -> str:
    """`instruction` without the items, clauses and questions that ask for what `text` says nothing of; what cannot be
    taken out without harm stays."""
    if has_material(instruction):
        return instruction
    chinese = han_share(instruction) > 0
    without = _without if chinese else sides_english.without
    while beyond := asks_beyond(instruction, text):
        shorter = without(instruction, beyond)
        if not shorter:
            break
        instruction = shorter
    return instruction if chinese else sides_english.told(instruction, text)


def _without(instruction: str, side: str) -> str:
    """`instruction` without the first side of this name, "" where it does not stand by itself."""
    asking = next((sentence for sentence in _SENTENCE.findall(instruction) if side in sentence), "")
    if not asking:  # its words are those of two sentences
        return ""
    before, _, behind = instruction.partition(asking)
    body = asking.rstrip("。？！?! \n")
    if re.fullmatch(_ASKS + re.escape(side) + _MORE + _REST.pattern, body):
        return (before + behind).strip()
    shorter = _shorter(_BETWEEN.split(body), side)
    return before + shorter + asking[len(body) :] + behind if shorter else ""


def _shorter(parts: list[str], side: str) -> str:
    """Items and what stands between them, in turn, without the item `side`; "" where it is part of another."""
    place = next((place for place in range(0, len(parts), 2) if side in parts[place]), -1)
    if place < 0:
        return ""
    head, rest = re.split(re.escape(side) + _MORE, parts[place], maxsplit=1)
    opens = place == 0 or _CLAUSE.fullmatch(parts[place - 1])
    closes = place == len(parts) - 1 or _CLAUSE.fullmatch(parts[place + 1])
    if opens and closes:
        alone = place > 0 and re.fullmatch(_ASKS, head) and _REST.fullmatch(rest)
        kept = parts[: place - 1] + parts[place + 1 :] if alone else []
    elif opens:
        kept = [*parts[:place], head, *parts[place + 2 :]] if _OPENS.search(head) and not rest else []
    elif head or not _REST.fullmatch(rest) or (rest and not closes):
        kept = []
    else:
        kept = [*parts[: place - 1], rest, *parts[place + 1 :]]
        if closes and _AND.fullmatch(parts[place - 1]) and place > 2 and parts[place - 3] == "、":
            kept[place - 3] = parts[place - 1]  # what is the last item now is joined as the last one was
    return "".join(kept)
