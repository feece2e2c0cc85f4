"""The same for English: an instruction without the sides that its text says nothing of (see `sides`).

A side is an item of a list (its habitat, diet and legacy), a clause with a question word of its own (how does it
breed), or a further question.
"""

from __future__ import annotations

import re

_BETWEEN = re.compile(r"(, and |, | and )")
_CLAUSE = re.compile(
    r"(?:(?:at|by|for|from|in|of|on|to|with) )?(?:how|what|where|when|why|which|who|whom|whose)\b", re.IGNORECASE
)
_SENTENCE = re.compile(r"[^.?!]+[.?!]*\s*")
_BACK = re.compile(r"\b(?:it|its|they|their|them|he|his|him|she|her)\b", re.IGNORECASE)
_BEFORE = re.compile(r"(?:some of )?(?:(?:its|their|his|her|the|any|some) )?(?:most )?(?:[a-z-]{1,30} )?", re.I)
"""What may stand before a side and goes with it: an article, an adjective."""
_OPENS = re.compile(
    r"\b(?:[a-z]{1,20} (?:the|its|their|his|her)|(?:what|describe|explain|give|list|outline)(?: \w{1,20})?) \Z", re.I
)
_WORD = re.compile(r"[a-z]{4,}")
_GENERAL = re.compile(
    r"\b(?:also|among|been|call(?:ed)?|causes?|come|does|each|effects?|examples?|from|give|have|history|into|kinds?|known|like"
    r"|lives?|long|looks?|made|main|makes?|many|most|much|names?|often|others?|parts?|people|place|purpose|reasons?|roles?|some"
    r"|that|their|them|these|they|this|time|types?|used|uses|ways|were|what|when|where|which|with|works?|different|important"
    r"|characteristics|features|during)\b"
)
"""Words of questions that say nothing of what is asked for."""
_WON = re.compile(r" (?:(?:that|which) )?(?:he|she|it|they) \w+", re.IGNORECASE)
"""What may stand behind a side and goes with it: the awards he won."""
_OF = re.compile(r" (?:of|in|for) \S.*", re.IGNORECASE)
"""The topic, behind the last side of a list, which all of them have in common."""


def without(instruction: str, side: str) -> str:
    """`instruction` without the first side of this name, "" where it cannot go without harm."""
    asking = next((sentence for sentence in _SENTENCE.findall(instruction) if side in sentence), "")
    before, _, behind = instruction.partition(asking)
    body = asking.rstrip(".?! \n")
    shorter = _shorter(_BETWEEN.split(body), side)
    if shorter:
        return before + shorter + asking[len(body) :] + behind
    alone = before and _CLAUSE.match(body) and _BACK.search(body) and not _BETWEEN.search(body)
    return (before + behind).strip() if alone else ""


def told(instruction: str, text: str) -> str:
    """`instruction` without the further clauses of whose content `text` has not one word (how long do they nurse).

    The words are compared by their first letters. A clause with fewer than two of its own may ask for the same in other
    words, and so may the first one, which names the topic.
    """
    known = {word[:5] for word in _WORD.findall(text.lower())}
    for sentence in _SENTENCE.findall(instruction):
        body = sentence.rstrip(".?! \n")
        parts = _BETWEEN.split(body)
        for place in range(len(parts) - 1, 1, -2):
            own = {word[:5] for word in _WORD.findall(_GENERAL.sub("", parts[place].lower()))}
            if len(own) > 1 and known.isdisjoint(own) and _stands_alone(parts, place):
                parts = _BETWEEN.split(_joined(parts, place))
        instruction = instruction.replace(body, "".join(parts), 1)
    return instruction


def _shorter(parts: list[str], side: str) -> str:
    """Items and what stands between them, in turn, without the one that is `side`; "" where it is part of another."""
    place = next((place for place in range(0, len(parts), 2) if side in parts[place]), -1)
    if place < 0 or len(parts) == 1:
        return ""
    head, _, rest = parts[place].partition(side)
    last = place == len(parts) - 1
    if place and _CLAUSE.match(head):
        return _joined(parts, place) if _stands_alone(parts, place) else ""
    if place == 0:
        return "".join([head, _bare(parts[2]), *parts[3:]]) if not rest and _OPENS.search(head) else ""
    if _WON.fullmatch(rest):
        rest = ""
    if not _BEFORE.fullmatch(head) or (not last and rest):
        return ""
    if rest and not (_OF.fullmatch(rest) and not any(_OF.search(part) for part in parts[:place])):
        return ""
    return _joined(parts, place) + rest


def _stands_alone(parts: list[str], place: int) -> bool:
    """Whether the item asks with a question word of its own, and what comes next does not go on with it."""
    return bool(_CLAUSE.match(parts[place])) and all(_CLAUSE.match(part) for part in parts[place + 2 : place + 3])


def _bare(item: str) -> str:
    """An item without its article, which stands before it already."""
    return re.sub(r"^(?:its|their|his|her|the) ", "", item)


def _joined(parts: list[str], place: int) -> str:
    """`parts` without the item at `place`; where it was the last one, one of its kind is joined as it was."""
    kept = parts[: place - 1] + parts[place + 1 :]
    alike = bool(_CLAUSE.match(kept[-1])) == bool(_CLAUSE.match(parts[place]))
    if place == len(parts) - 1 and len(kept) > 1 and alike:
        kept[-2] = parts[place - 1] if len(kept) > 3 else " and "
    return "".join(kept)
