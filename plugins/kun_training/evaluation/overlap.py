"""What can be counted about instructions without another model: overlap, copying, leaks, defects, variety."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

_LOOP = re.compile(r"(.{2,60}?)\1{3,}", re.DOTALL)
_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W\d_]+")
_COPIED = 12
"""Characters in one piece, at least, that an instruction must share with the text to be called copied."""
_LEAKED = 8
"""Characters in one piece of the prompt's own words that make a leak."""


def chrf(generated: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF (Popović 2015) as sacrebleu computes it, 0 to 100."""
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().corpus_score(list(generated), [list(references)]).score)


def bigram_f1(generated: str, reference: str) -> float:
    """Harmonic mean of precision and recall of character bigrams, 0 to 1; blind to white space and punctuation."""
    one, other = (Counter(_ngrams(bare(text), 2)) for text in (generated, reference))
    shared = sum((one & other).values())
    return 2 * shared / (sum(one.values()) + sum(other.values())) if shared else 0.0


def distinct(texts: Sequence[str], size: int) -> float:
    """Different character n-grams among all (distinct-n, Li et al. 2016), 0 to 1."""
    grams = [gram for text in texts for gram in _ngrams(bare(text), size)]
    return len(set(grams)) / len(grams) if grams else 0.0


def is_copied(instruction: str, text: str) -> bool:
    """Whether most of `instruction` stands in `text` in one piece."""
    short, long = bare(instruction), bare(text)
    match = SequenceMatcher(None, short, long, autojunk=False).find_longest_match()
    return match.size >= _COPIED and match.size >= 0.6 * len(short)


def leaks(instruction: str, prompt: str, text: str) -> bool:
    """Whether `instruction` repeats the prompt's own words; those that `text` has as well do not count."""
    own, given = bare(instruction), bare(text)
    return any(
        gram in own and gram not in given for gram in set(_ngrams(bare(re.sub(r"\{\w+\}", "", prompt)), _LEAKED))
    )


def is_loop(text: str) -> bool:
    """Whether a piece of `text` is repeated four times or more in a row."""
    return bool(_LOOP.search(text))


def main_script(text: str) -> str:
    """The script of most characters or words, as Unicode names it (CJK, LATIN, HIRAGANA ...); empty for none.

    A Han character counts as much as a word of an alphabet.
    """
    scripts = Counter(unicodedata.name(unit[0], "").split(" ")[0] for unit in _UNIT.findall(text))
    return scripts.most_common(1)[0][0] if scripts else ""


def bare(text: str) -> str:
    """Letters and digits only, in one width and case."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).casefold()


def _ngrams(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(len(text) - size + 1)]
