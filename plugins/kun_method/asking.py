"""In which forms instructions ask: by question word or by verb, in Chinese of both scripts and in English.

Declared by `label`, counted by the report and the card: a reader notices first that a third of the questions ask alike.
"""

from __future__ import annotations

from collections.abc import Iterator

_QUESTIONS = {
    "why": r"[为為]什[么麼]|[为為]何|(?i:\bwhy\b)",
    "how many": r"多少|[几幾][个個种種年次点點位人]|(?i:\bhow (?:many|much|long|old|far|often)\b)",
    "how": r"如何|怎[么样麼]|(?i:\bhow\b)",
    "which": r"哪|(?i:\bwhich\b)",
    "who": r"[谁誰]|何人|(?i:\bwho(?:se|m)?\b)",
    "when, where": r"何[时時地处處]|什[么麼](?:[时時]候|地方)|(?i:\b(?:when|where)\b)",
    "what": r"什[么麼]|何[为為谓謂]|有何|(?i:\bwhat\b)",
    "yes or no": r"是否|能否|可否|[吗嗎][？?。]?$|是不是"
    r"|(?i:^(?:is|are|was|were|do|does|did|can|could|should|will|would|has|have)\b)",
}
_COMMANDS = {
    "introduce": r"介[绍紹]|[简簡]介|(?i:\bintroduce\b)",
    "explain": r"解[释釋]|[说說]明|[阐闡]述|[讲講]解|(?i:\bexplain\b)",
    "describe": r"描述|[叙敘]述|[讲講]述|(?i:\b(?:describe|tell)\b)",
    "list": r"列出|列[举舉]|(?i:\b(?:list|name|give)\b)",
    "summarise": r"[总總][结結]|概括|概述|[归歸][纳納]|(?i:\b(?:summari[sz]e|outline)\b)",
    "compare": r"比[较較]|[对對]比|[区區][别別]|(?i:\b(?:compare|contrast)\b)",
    "analyse": r"分析|[评評][价價]|[评評]析|[讨討][论論]|探[讨討]|(?i:\b(?:analy[sz]e|evaluate|discuss)\b)",
    "advise": r"推[荐薦]|建[议議]|(?i:\b(?:recommend|suggest|advise)\b)",
    "write": r"[写寫]|[创創]作|起草|翻[译譯]|(?i:\b(?:write|compose|draft|translate)\b)",
    "compute": r"[计計]算|求|[证證]明|(?i:\b(?:calculate|compute|prove|solve)\b)",
}
_MARKED = r"[？?][\"”’」』)）]*\s*$"


def _forms() -> Iterator[tuple[str, str]]:
    """What ends with a question mark is a question first; anything else is a command first, if it has such a verb."""
    yield from ((f"question: {name}", f"(?s)^(?:.*)(?:{words})(?:.*){_MARKED}") for name, words in _QUESTIONS.items())
    yield from ((f"command: {name}", words) for name, words in _COMMANDS.items())
    yield from ((f"question: {name}", words) for name, words in _QUESTIONS.items())


FORMS = tuple(_forms())
"""Name and RE2 pattern, in order: the first that matches says how an instruction asks."""
