"""Damage done on purpose, the same each time: bad instructions for the judge, rough texts for the polisher.

No language and no corpus is assumed: pieces are moved, cut, doubled and mixed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence

DAMAGES: dict[str, Callable[[str, str, random.Random], str]] = {
    "shuffled": lambda text, other, chance: _shuffled(text, chance),
    "truncated": lambda text, other, chance: text[: max(1, len(text) * 2 // 5)].rstrip("。？?.！! "),
    "repeated": lambda text, other, chance: text * 3,
    "other_text": lambda text, other, chance: other,
}
"""Ways to spoil an instruction: (instruction, another pair's instruction, random numbers) -> bad instruction."""

_SENTENCE = re.compile(r"[^。！？!?\n]*[。！？!?\n]+|[^。！？!?\n]+$")


OTHER_TEXT = "other_text"


def visible_damages(slots: Collection[str]) -> tuple[str, ...]:
    """The damages that a judge can see whose prompt has these slots: without the text, another text's instruction
    is as good as any."""
    return tuple(kind for kind in DAMAGES if kind != OTHER_TEXT or {"text", "output"} & set(slots))


def damaged(instruction: str, other: str, key: str, kinds: Sequence[str]) -> str:
    """A bad version of `instruction`; `key` decides which of `kinds`, and how."""
    chance = random.Random(f"{key}/{len(kinds)}")
    return DAMAGES[chance.choice(kinds)](instruction, other, chance)


def roughened(text: str, other: str, key: str) -> str:
    """`text` as a careless copy of a web page has it: a sentence of another page, a doubled one, stray line breaks."""
    chance = random.Random(key)
    sentences = _SENTENCE.findall(text) or [text]
    strange = _SENTENCE.findall(other) or [other]
    sentences.insert(chance.randrange(len(sentences) + 1), chance.choice(strange))
    if len(sentences) > 2:
        at = chance.randrange(len(sentences))
        sentences.insert(at, sentences[at])
    if chance.random() < 0.5:
        sentences = [sentence.replace("\n", " ") for sentence in sentences]
    return "".join(_broken(sentence, chance) if chance.random() < 0.2 else sentence for sentence in sentences).strip()


def _shuffled(text: str, chance: random.Random) -> str:
    """The words of `text` in another order; in a script without spaces, its characters by twos."""
    words = text.split()
    pieces = words if len(words) > 3 else [text[at : at + 2] for at in range(0, len(text), 2)]
    joiner = " " if len(words) > 3 else ""
    mixed = pieces[:]
    for _ in range(8):
        chance.shuffle(mixed)
        if mixed != pieces:
            return joiner.join(mixed)
    return text[::-1]


def _broken(sentence: str, chance: random.Random) -> str:
    at = chance.randrange(len(sentence) + 1)
    return sentence[:at] + "\n" + sentence[at:]
