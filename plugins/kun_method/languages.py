"""What the method knows of a language: its prompts, its two words of judgement, and the form of its requests.

Chinese and English are here; every text is treated in its own language, row by row. A plugin adds another by
`languages.add(Language(...))` when it is imported, and says `kun_extends = "kun-method"`, so that what was made with it
is made again when it changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from kun_builder import Prompt

from .scripts import simplified
from .texts import han_apart, han_share, letters, units

Task: TypeAlias = Literal[
    "label",
    "label_kun",
    "label_completion",
    "score",
    "polish",
    "polish_kun",
    "verify",
    "alone",
    "answered",
    "backed",
    "repair",
    "follow_up_ask",
    "follow_up_answer",
]

_PROMPTS = Path(__file__).parent / "prompts"
_TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True, slots=True)
class Language:
    """One language of texts.

    code: ISO 639, as the stage `language` tells it. prompts: by task, with the slots of the stages' own prompts; a task
        that is not among them is put in English. good, bad: the words of judgement, each one token where it can be.
        is_request: whether a sentence asks or demands something. share: how much of a text is in this language, 0..1;
        the language with the largest share, from a fifth on, is the text's. findings: by reason of `verify`, the
        sentence that tells a model what was wrong with its answer; English where there is none.
    """

    code: str
    prompts: Mapping[Task, Prompt]
    good: str
    bad: str
    is_request: Callable[[str], bool]
    share: Callable[[str], float]
    findings: Mapping[str, str] = field(default_factory=dict)

    def prompt(self, task: Task) -> Prompt:
        """The prompt of a task."""
        return self.prompts.get(task) or EN.prompts[task]

    def finding(self, reason: str) -> str:
        """What a model is told that is asked to mend an answer dropped for `reason`."""
        return self.findings.get(reason) or EN.findings.get(reason, reason)


def prompts_in(folder: Path) -> dict[Task, Prompt]:
    """The prompts of a folder, one file `TASK.txt` for each task."""
    return {task: Prompt.load(folder / f"{task}.txt") for task in _TASKS}


def findings_in(folder: Path) -> dict[str, str]:
    """The sentences of a folder's `findings.json`."""
    found: dict[str, str] = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    return found


_QUESTION_WORDS = (
    r"什么|如何|怎么|怎样|怎麼|为什么|为何|何[时地处种人]|哪|谁|多少|几[个种年次点]"
    r"|是否|能否|可否|区别|吗|呢|还是|有何|不[^，。]?[？?]"
)
CHINESE_QUESTION = re.compile(_QUESTION_WORDS)
CHINESE_ASKS = re.compile(
    r"[？?][”’\"')）」]*$|[（(]\s*[)）]|_{2,}|[=＝]\s*(?:\$\s*)?[.．]?$|\s\u3000\s|[为是有]\s*[.．]?$"
    rf"|(?:{_QUESTION_WORDS})[^。，,；;]{{0,40}}$"
)
_COMMANDS = re.compile(
    r"^(?:\d+[.、．]\s*)?(?:首先|然后|同时|并且?|再|假设.{1,40}?[，,]|(?:作为|如果|针对|关于|对于|根据|基于|结合|用|以|从|在|将|把|对|为|给).{1,40}?[，,]?)?"
    r"(?:请|烦请|麻烦|帮我|帮忙|告诉我|教我|给我|给出|我想(?:知道|了解|要)|我需要|能不能|能否|可以"
    r"|(?:简要|简单|详细|具体|分别|试着?|举例|用.{1,12}?[话字语])?(?:地)?"
    r"(?:介绍|解释|说明|描述|阐述|概述|简述|简介|叙述|论述|列举|列出|总结|概括|归纳|比较|对比|讨论|谈谈|谈一谈|说说|讲讲|讲述|写|翻译|设计|编写|推荐|计算|证明"
    r"|判断|补充|完成|回答|分析|评价|评析|探讨|提供|制定|推导|求|画出|指出))(?![了过着人员师者家作信])"
)
_ENGLISH_ASKS = re.compile(r"\?[\"'”’)]*\s*$|_{2,}|=\s*$")
_ENGLISH_COMMANDS = re.compile(
    r"^\W*(?:\d+[.)]\s*)?(?:(?:in|for|with|using|based on|given|as|if|when|imagine|suppose)\b[^.?!]{1,80}?,\s*)?"
    r"(?:please\s+|kindly\s+)?"
    r"(?:(?:briefly|clearly|fully|now|first|then|also)\s+)?"
    r"(?:explain|describe|introduce|give|list|name|tell|show|outline|summari[sz]e|compare|contrast|discuss|provide|write|define|state"
    r"|identify|present|illustrate|analy[sz]e|evaluate|trace|sketch|detail|walk|help|teach|suggest|recommend|create|design|calculate|compute"
    r"|find|solve|prove|derive|translate|rewrite|complete|answer|implement|draw|determine|discover|share|review|clarify)\b",
    re.IGNORECASE,
)


def _chinese_request(sentence: str) -> bool:
    sentence = simplified(sentence)
    return bool(CHINESE_ASKS.search(sentence) or _COMMANDS.search(sentence))


def _english_request(sentence: str) -> bool:
    return bool(_ENGLISH_ASKS.search(sentence) or _ENGLISH_COMMANDS.search(sentence))


def by_words(binding: str) -> Callable[[str], float]:
    """A `Language.share` for Latin script: the share of Latin words, if one in twelve of them is among `binding`, the
    words, separated by spaces, that bind the sentences of the language. Formulas have letters too."""
    known = re.compile(rf"\b(?:{'|'.join(map(re.escape, binding.split()))})\b", re.IGNORECASE)

    def share(text: str) -> float:
        if not (latin := letters(text, LATIN)):
            return 0.0
        return latin if len(known.findall(han_apart(text)[2])) * 12 >= latin * units(text) else 0.0

    return share


LATIN = "a-zà-öø-ÿ"

ZH = Language("zh", prompts_in(_PROMPTS / "zh"), "好", "差", _chinese_request, han_share, findings_in(_PROMPTS / "zh"))
EN = Language(
    "en",
    prompts_in(_PROMPTS / "en"),
    "good",
    "bad",
    _english_request,
    by_words("the of and to is are was in a an for with how what why do does"),
    findings_in(_PROMPTS / "en"),
)

_KNOWN: dict[str, Language] = {"en": EN, "zh": ZH}
_LEAST = 0.2


def add(language: Language) -> None:
    """Make a language known, or replace the one of its code."""
    _KNOWN[language.code] = language
    language_of.cache_clear()


@lru_cache(maxsize=512)
def language_of(text: str) -> Language:
    """The language of a text by its words. Where none has a fifth of them, Chinese if there is a Han character, or no
    word at all, else English.

    Words in Latin script are at home in Chinese texts, so that Chinese needs only half as many as the others.
    """
    shares = {code: language.share(text) * (2 if code == "zh" else 1) for code, language in _KNOWN.items()}
    best = max(shares, key=lambda code: shares[code])
    if shares[best] >= _LEAST:
        return _KNOWN[best]
    return ZH if shares["zh"] or not units(text) else EN


def is_known(code: str) -> bool:
    """Whether there are prompts for texts of the language with this code, or it says nothing: empty, or `und`."""
    return code in ("", "und") or code in _KNOWN


def chosen(prompt: Prompt, task: Task, text: str, *, trained: bool = False) -> Prompt:
    """`prompt`, or that of the text's own language where it is the default one, which is Chinese.

    A model that was `trained` with `prompt` is asked in no other words, whatever the language.
    """
    if trained:
        return prompt
    return language_of(text).prompt(task) if prompt == ZH.prompts[task] else prompt


def words(
    prompt: Prompt, task: Task, text: str, good: str, bad: str, *, trained: bool = False
) -> tuple[Prompt, str, str]:
    """Prompt and words of a judgement about `text`: those of its language where all three are the default and the model
    was not `trained` with them."""
    if not trained and prompt == ZH.prompts[task] and (good, bad) == (ZH.good, ZH.bad):
        language = language_of(text)
        return language.prompt(task), language.good, language.bad
    return prompt, good, bad
