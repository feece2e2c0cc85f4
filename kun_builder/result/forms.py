"""In which forms instructions ask, and which of them are alike but for their subject: what a reader notices first.

Chinese and English are known; whatever else there is counts as `other`. No rows are dropped by this: it is for the
report and the card, to show a dataset in which a third of the questions end alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

_MOST_PATTERNS = 200_000
"""Patterns that are remembered at a time; when there are more, those that were seen once are forgotten."""
_UNIT = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\d_\u3400-\u9fff]+(?:['’][a-z]+)?|\d+")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_ENDING, _OPENING, _WORDS, _LONGEST = 5, 3, 3, 60

_QUESTIONS: Mapping[str, str] = {
    "why": r"为什么|为何|(?i:\bwhy\b)",
    "how many": r"多少|几[个种年次点位人]|(?i:\bhow (?:many|much|long|old|far|often)\b)",
    "how": r"如何|怎[么样麼]|(?i:\bhow\b)",
    "which": r"哪|(?i:\bwhich\b)",
    "who": r"谁|何人|(?i:\bwho(?:se|m)?\b)",
    "when, where": r"何[时地处]|什么(?:时候|地方)|(?i:\b(?:when|where)\b)",
    "what": r"什么|何[为谓]|有何|(?i:\bwhat\b)",
    "yes or no": r"是否|能否|可否|吗[？?。]?$|是不是"
    r"|(?i:^(?:is|are|was|were|do|does|did|can|could|should|will|would|has|have)\b)",
}
_COMMANDS: Mapping[str, str] = {
    "introduce": r"介绍|简介|(?i:\bintroduce\b)",
    "explain": r"解释|说明|阐述|讲解|(?i:\bexplain\b)",
    "describe": r"描述|叙述|讲述|(?i:\b(?:describe|tell)\b)",
    "list": r"列出|列举|(?i:\b(?:list|name|give)\b)",
    "summarise": r"总结|概括|概述|归纳|(?i:\b(?:summari[sz]e|outline)\b)",
    "compare": r"比较|对比|区别|(?i:\b(?:compare|contrast)\b)",
    "analyse": r"分析|评价|评析|讨论|探讨|(?i:\b(?:analy[sz]e|evaluate|discuss)\b)",
    "advise": r"推荐|建议|(?i:\b(?:recommend|suggest|advise)\b)",
    "write": r"写|创作|起草|翻译|(?i:\b(?:write|compose|draft|translate)\b)",
    "compute": r"计算|求|证明|(?i:\b(?:calculate|compute|prove|solve)\b)",
}
_FORMS = tuple(
    (f"{kind}: {name}", re.compile(pattern))
    for kind, patterns in (("question", _QUESTIONS), ("command", _COMMANDS))
    for name, pattern in patterns.items()
)
_ENDS = re.compile(r"[？?][\"”’」』)）]*\s*$")
OTHER = "other"


def form(instruction: str) -> str:
    """The form of an instruction, such as `question: how` or `command: explain`; `other` if it has none that is known.

    What ends with a question mark is a question first; anything else is a command first, if it has the verb of one.
    """
    found = [name for name, pattern in _FORMS if pattern.search(instruction)]
    if not _ENDS.search(instruction):
        found.sort(key=lambda name: name.startswith("question"))
    return found[0] if found else OTHER


def pattern(instruction: str) -> str:
    """What is left of an instruction without its subject: the end of a Chinese question, the opening of all others."""
    units = _UNIT.findall(instruction.lower())
    if not units:
        return ""
    if not _HAN.search(instruction):
        return " ".join(units[:_WORDS])[:_LONGEST] + " …"
    if form(instruction).startswith("question"):
        return "…" + "".join(units[-_ENDING:])[-_LONGEST:]
    return "".join(units[:_OPENING])[:_LONGEST] + "…"


class FormCounts:
    """Running counts of forms and patterns."""

    def __init__(self) -> None:
        self.forms: Counter[str] = Counter()
        self._patterns: Counter[str] = Counter()

    def add(self, instructions: Iterable[str | None]) -> None:
        """Count these."""
        for instruction in instructions:
            if instruction:
                self.forms[form(instruction)] += 1
                self._patterns[pattern(instruction)] += 1
        if len(self._patterns) > _MOST_PATTERNS:
            self._patterns = Counter({name: count for name, count in self._patterns.items() if count > 1})

    def largest(self, number: int = 10) -> dict[str, int]:
        """The patterns that most instructions share, of those that at least two do."""
        return {name: count for name, count in self._patterns.most_common(number) if count > 1 and name}
