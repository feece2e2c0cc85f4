"""In which forms instructions ask, and which of them are alike but for their subject: what a reader notices first.

Forms are declared by the stage that writes the instructions (`RowStage.forms`). No rows are dropped by this: it is for
the report and the card, to show a dataset in which a third of the questions end alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kun_builder.report import StepFacts

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_PATTERNS = 200_000
"""Patterns that are remembered at a time; when there are more, those that were seen once are forgotten."""
_UNIT = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\d_\u3400-\u9fff]+(?:['’][a-z]+)?|\d+")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_ENDING, _OPENING, _WORDS, _LONGEST = 5, 3, 3, 60
_ENDS = re.compile(r"[？?][\"”’」』)）]*\s*$")
OTHER = "other"

Forms = Sequence[tuple[str, str]]
"""Name and RE2 pattern of each form; the first that matches counts."""


def forms_of(steps: Iterable[StepFacts]) -> Forms:
    """The forms that the steps of a report declare; of runs of earlier versions, none."""
    return [form for step in steps for form in step.forms or ()]


def pattern(instruction: str) -> str:
    """What is left of an instruction without its subject: the end of a Chinese question, the opening of all others."""
    units = _UNIT.findall(instruction.lower())
    if not units:
        return ""
    if not _HAN.search(instruction):
        return " ".join(units[:_WORDS])[:_LONGEST] + " …"
    if _ENDS.search(instruction):
        return "…" + "".join(units[-_ENDING:])[-_LONGEST:]
    return "".join(units[:_OPENING])[:_LONGEST] + "…"


class FormCounts:
    """Running counts of forms and patterns."""

    def __init__(self, forms: Forms = ()) -> None:
        self.forms: Counter[str] = Counter()
        self._known = forms
        self._patterns: Counter[str] = Counter()

    def add(self, instructions: pa.Array | pa.ChunkedArray) -> None:
        """Count the forms and patterns of further instructions, nulls left out."""
        said = instructions.drop_null()
        self.forms.update(self._forms(said))
        self._patterns.update(map(pattern, said.to_pylist()))
        if len(self._patterns) > _MOST_PATTERNS:
            self._patterns = Counter({name: count for name, count in self._patterns.items() if count > 1})

    def _forms(self, said: pa.Array | pa.ChunkedArray) -> Counter[str]:
        import numpy as np
        import pyarrow.compute as pc

        free, counts = np.ones(len(said), dtype=bool), Counter[str]()
        for name, words in self._known:
            hit = np.asarray(pc.match_substring_regex(said, words)) & free
            counts[name] += int(hit.sum())
            free &= ~hit
        counts[OTHER] = int(free.sum()) if self._known else 0
        return +counts

    def largest(self, number: int = 10) -> dict[str, int]:
        """The patterns that most instructions share, of those that at least two do."""
        return {name: count for name, count in self._patterns.most_common(number) if count > 1 and name}
