"""Strings on which a regular expression may take quadratic time, made from the expression itself; and a stop-watch."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from re import _constants as op
from re import _parser as parser

LARGEST = 100_000
"""Characters."""

_CATEGORIES = {op.CATEGORY_SPACE: " \n", op.CATEGORY_DIGIT: "1", op.CATEGORY_WORD: "a中", op.CATEGORY_NOT_SPACE: "x"}
_ANYTHING = " \na1中。`*#"


def alphabet(tree) -> set[str]:
    """Characters that the expression speaks of."""
    found: set[str] = set()
    for code, value in tree:
        if code in (op.LITERAL, op.NOT_LITERAL):
            found.add(chr(value))
        elif code is op.RANGE:
            found.update(map(chr, value[:1]))
        elif code is op.CATEGORY:
            found.update(_CATEGORIES.get(value, "."))
        elif code is op.ANY:
            found.add("x")
        else:
            found.update(*map(alphabet, _children(code, value)))
    return found


def sample(tree, dice: random.Random, more: int = 3) -> str:
    """A string that the expression more or less matches, with up to `more` repetitions beyond those it demands."""
    text = ""
    for code, value in tree:
        if code is op.LITERAL:
            text += chr(value)
        elif code in (op.IN, op.NOT_LITERAL, op.ANY, op.CATEGORY):
            text += (
                dice.choice(sorted(alphabet([(code, value)])))
                if code is not op.IN or value[0][0] is not op.NEGATE
                else "x"
            )
        elif code is op.BRANCH:
            text += sample(dice.choice(value[1]), dice, more)
        elif code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            low, high, inner = value
            text += "".join(sample(inner, dice, more) for _ in range(dice.randint(low, min(high, low + more))))
        elif code in (op.SUBPATTERN, op.ATOMIC_GROUP):
            text += sample(value[-1] if code is op.SUBPATTERN else value, dice, more)
    return text


def _endless(tree, before: str, dice: random.Random) -> Iterator[tuple[str, str]]:
    """Before each part that may be repeated without end: the shortest text that leads to it, and what it repeats."""
    for code, value in tree:
        if code in (op.MAX_REPEAT, op.MIN_REPEAT) and value[1] is op.MAXREPEAT:
            for letter in sorted(alphabet(value[2]))[:3]:
                yield before, letter
            yield before, sample(value[2], dice, 0)
        for child in _children(code, value):
            if code is not op.IN:
                yield from _endless(child, before, dice)
        before += sample([(code, value)], dice, 0)


def _children(code, value) -> Iterator:
    if code is op.BRANCH:
        yield from value[1]
    elif code is op.IN:
        yield value
    elif code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        yield value[2]
    elif code in (op.SUBPATTERN, op.ASSERT, op.ASSERT_NOT):
        yield value[-1]
    elif code is op.ATOMIC_GROUP:
        yield value


def _parts(tree) -> Iterator:
    """The expression and all expressions in it."""
    yield tree
    for code, value in tree:
        for child in _children(code, value):
            if code is not op.IN:
                yield from _parts(child)


def units(pattern: re.Pattern[str], seed: int = 0) -> list[tuple[str, str]]:
    """(Beginning, what follows again and again): one character, two in turn, parts of the pattern."""
    dice, tree = random.Random(seed), parser.parse(pattern.pattern, pattern.flags)
    letters = sorted(alphabet(tree) | set(_ANYTHING))
    marks = [char for char in letters if not char.isalpha()]
    some = [*dice.sample(letters, min(len(letters), 25)), *marks]
    runs = [*some, *dice.sample([a + b for a in _ANYTHING for b in some if a != b], 30)]
    parts = list(dict.fromkeys(text for part in _parts(tree) if (text := sample(part, dice))))
    parts = dice.sample(parts, min(len(parts), 25))
    cut = [text[: dice.randint(1, len(text))] for text in (sample(tree, dice) for _ in range(20)) if text]
    begun = [(text, dice.choice([*marks, "x", "中"])) for text in cut]
    followed = [(text, space) for text in parts for space in (" ", "\n")]
    endless = [unit for unit in _endless(tree, "", dice) if unit[1]]
    endless = dice.sample(endless, min(len(endless), 60))
    return list(dict.fromkeys([*(("", run) for run in (*runs, *parts)), *begun, *followed, *endless]))


def text_of(unit: tuple[str, str], size: int) -> str:
    """The hostile string of about `size` characters; what it ends in, no pattern knows.

    Strings of every size are cut at the same place of the run: where it is cut may decide how much there is to do.
    """
    begin, run = unit
    size -= (size - LARGEST) % len(run)
    return (begin + run * (size // len(run) + 1))[:size] + "\N{CURRENCY SIGN}"


def seconds(function: Callable[[str], object], text: str, allowed: float = 0.0) -> float:
    """Processor time of one call: the least of a few, since the machine may be busy; one that is allowed is enough."""
    least = float("inf")
    for _ in range(6):
        start = time.thread_time()  # other threads of this process have nothing to do with it
        function(text)
        least = min(least, time.thread_time() - start)
        if least <= allowed:
            break
    return least


def grows_too_fast(function: Callable[[str], object], unit: tuple[str, str]) -> str:
    """Why the time of `function` is no linear one on this string, "" if it is: four times the length may take eight
    times as long; what takes no time at all is not measured."""
    allowed = float("inf")
    for size in (LARGEST // 64, LARGEST // 16, LARGEST // 4, LARGEST):
        took = seconds(function, text_of(unit, size), allowed)
        if took > allowed:
            return f"{took:.3f} s for {size} characters of {unit}, {allowed:.4f} s would do"
        allowed = max(0.03, 8 * took)
    return ""
