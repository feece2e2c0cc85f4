"""Measures of text that several stages share: sentence ends, script, shared runs, loops. Pure functions."""

from __future__ import annotations

import re
from functools import lru_cache

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
HAN_CHARACTER = re.compile(f"[{HAN}]")
_HAN_RUN = re.compile(f"[{HAN}]+")
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE_END = re.compile(r"[。！？!?…]+[”’」』）)】\"']*|\.(?=\s)|\n")
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_NOISE = re.compile(r"[\W_]+")
_WORDS = re.compile(rf"[{HAN}]|[^\W\d_]{{3}}")
_GRAM = 8
_LONGEST_PERIOD = 60


@lru_cache(maxsize=512)  # as many texts as are under way at once: of one row, many checks ask for the same ones
def han_apart(text: str) -> tuple[int, int, str]:
    """Number of Han characters, number of words in other scripts, and `text` with `_` for each run of the former."""
    parts = _HAN_RUN.split(text)
    rest = "_".join(parts)
    return len(text) - len(rest) + len(parts) - 1, len(_WORD.findall(rest)), rest


def units(text: str) -> int:
    """Number of Han characters and of words in other scripts."""
    characters, words, _ = han_apart(text)
    return characters + words


def han_share(text: str) -> float:
    """Share of Han characters among the units of `text`; 0 if it has none."""
    characters, words, _ = han_apart(text)
    return characters / (characters + words) if characters else 0.0


def longer(text: str, characters: int) -> bool:
    """Whether `text` has more than so many characters, or three times as many where none is Han: a sentence in English
    takes three times the room of one in Chinese."""
    return len(text) > characters * (1 if HAN_CHARACTER.search(text) else 3)


def letters(text: str, script: str) -> float:
    """Share of words that begin with one of the letters `script`, a set for a regular expression, among the units of
    `text`."""
    text = text.lower()
    begins = rf"[{script}](?<=[^\W\d_])(?:(?<=[{HAN}])|(?<![^\W\d_{HAN}].))"
    return len(re.findall(begins, text, re.DOTALL)) / (units(text) or 1)


def sentence_ends(text: str) -> list[int]:
    """Positions at which `text` can be cut behind a whole sentence or line, ascending; the whole length is the last."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return ends if ends and ends[-1] == len(text) else [*ends, len(text)]


def sentences(text: str) -> list[str]:
    """The sentences and lines of `text`, without surrounding white space, empty ones left out."""
    starts = [0, *(ends := sentence_ends(text))]
    parts = (text[start:end].strip() for start, end in zip(starts, ends, strict=False))
    return [part for part in parts if part]


def bare(text: str) -> str:
    """Letters and digits only, in lower case: what stays the same when punctuation and white space change."""
    return _NOISE.sub("", text).lower()


def prose(text: str) -> str:
    """`text` without fenced code, in which repetition and other languages are no defect."""
    return _FENCE.sub("", text)


def shared_run(text: str, other: str) -> str:
    """The longest piece of `text` that also occurs in `other`. Meant for a short `text`: `len(text)` searches."""
    best, start = "", 0
    for end in range(1, len(text) + 1):
        while text[start:end] not in other:
            start += 1
        if end - start > len(best):
            best = text[start:end]
    return best


def said_twice(text: str, source: str) -> str:
    """The first run of 16 letters (64 where most are not Han) that `text` has twice and `source` does not, or ""."""
    said, size = bare(text), 16 if han_share(text) > 0.5 else 64
    runs = [said[start : start + size] for start in range(len(said) - size + 1)]
    if len(set(runs)) == len(runs):
        return ""
    known, seen = bare(source), set[str]()
    for run in runs:
        if run in seen and known.find(run, known.find(run) + 1) <= known.find(run):
            return run
        seen.add(run)
    return ""


def loop(text: str) -> str:
    """A piece of at most 60 characters, with words in it, that follows itself at least three times, or "".

    One pass: where a run of characters equals the one `period` before it for three periods on end, it loops.
    """
    grams = [text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1)]
    if len(set(grams)) == len(grams):
        return ""
    seen: dict[str, int] = {}
    period = matched = 0
    for start, gram in enumerate(grams):
        distance = start - seen.get(gram, -len(text))
        seen[gram] = start
        matched = matched + 1 if distance == period else int(distance <= _LONGEST_PERIOD)
        period = distance
        if matched and matched + _GRAM - 1 >= 3 * period and _WORDS.search(gram):
            return text[start + _GRAM - 4 * period : start + _GRAM] if period > 2 else gram
    return ""
