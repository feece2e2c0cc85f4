"""In which forms instructions ask: by question word or by verb, in Chinese and English.

Declared by `label`, counted by the report and the card: a reader notices first that a third of the questions ask alike.
"""

from __future__ import annotations

from collections.abc import Iterator

_QUESTIONS = {
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
_COMMANDS = {
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
_MARKED = r"[？?][\"”’」』)）]*\s*$"


def _forms() -> Iterator[tuple[str, str]]:
    """What ends with a question mark is a question first; anything else is a command first, if it has such a verb."""
    yield from ((f"question: {name}", f"(?s)^(?:.*)(?:{words})(?:.*){_MARKED}") for name, words in _QUESTIONS.items())
    yield from ((f"command: {name}", words) for name, words in _COMMANDS.items())
    yield from ((f"question: {name}", words) for name, words in _QUESTIONS.items())


FORMS = tuple(_forms())
"""Name and RE2 pattern, in order: the first that matches says how an instruction asks."""
