"""Few-shot examples out of seed pairs of people: the ones most like the text at hand, put before it as turns."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

from kun_builder import KunError
from kun_builder.types import Message, PromptText

from .languages import language_of
from .pairs import grams

Pair = tuple[str, str]
"""Instruction and answer."""

_LONGEST = 600
"""Characters of an answer that serves as an example: longer ones would fill the prompt of every row."""


@functools.cache
def read_seeds(path: str) -> tuple[tuple[Pair, frozenset[str]], ...]:
    """The usable pairs of a JSON Lines file, with the grams of their answers. Raises KunError with file and line."""
    found = []
    try:
        with Path(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    pair = _pair(json.loads(line), f"{path}:{number}")
                    if len(pair[1]) <= _LONGEST:
                        found.append((pair, grams(pair[1])))
    except (OSError, ValueError) as error:
        raise KunError(
            f"`examples`: {path} cannot be read: {error}", hint="JSON Lines with instruction, output"
        ) from error
    if not found:
        raise KunError(f"`examples`: {path} has no pair with an answer of at most {_LONGEST} characters")
    return tuple(found)


def _pair(record: object, place: str) -> Pair:
    if isinstance(record, dict):
        instruction, output = record.get("instruction"), record.get("output")
        if isinstance(instruction, str) and isinstance(output, str) and instruction and output:
            return instruction, output
    raise KunError(f"`examples`: {place}: a seed needs the texts `instruction` and `output`")


def nearest(path: str, text: str, number: int) -> list[Pair]:
    """The `number` seeds in the language of `text` whose answers share most grams with it, the nearest last; the same
    in every run. None where no seed is in that language: a model that is shown Chinese ones asks in Chinese."""
    own, code = grams(text), language_of(text).code

    def likeness(seed: tuple[Pair, frozenset[str]]) -> tuple[float, str]:
        pair, of_seed = seed
        return len(own & of_seed) / (len(own | of_seed) or 1), pair[0]

    known = [seed for seed in read_seeds(path) if language_of(seed[0][1]).code == code]
    return [pair for pair, _ in sorted(known, key=likeness)[-number:]]


def with_examples(prompt: PromptText, turns: Sequence[tuple[str, str]]) -> PromptText:
    """A chat prompt with `turns` (user, assistant) before its last message; a completion prompt stays as it is."""
    if isinstance(prompt, str) or not turns:
        return prompt
    shown: list[Message] = []
    for asked, answered in turns:
        shown += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return (*prompt[:-1], *shown, prompt[-1])
