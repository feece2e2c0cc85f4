"""The form check: is what a label model wrote an instruction at all?

Small models often answer a text with its first sentence, a heading or a summary instead of the question behind it.
Every defect has its own reason, so that the report tells what a label model gets wrong.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TypeAlias

from kun_builder import Prompt

from .context import has_material
from .languages import CHINESE_QUESTION, language_of
from .scripts import simplified
from .texts import bare, han_share, longer, sentences, shared_run, units

Defect: TypeAlias = tuple[str, object]
"""A reason and the value that was measured."""

SHORTEST = 5
"""Characters of an instruction."""

_ROW = 200
"""Characters of Chinese up to which several questions are a row of questions; beyond, they are the parts of one
exercise."""

_LABEL = re.compile(
    r"^(?:(?:好的|当然)?[，,。！!：:\s]*)(?:(?:请回答|以下是|这是)?(?:以下|下面|用户)?的?(?:指令|问题|提问|请求|题目)(?:是|为)?"
    r"|instruction|question|q)\s*[:：]\s*",
    re.IGNORECASE,
)
_MARK = re.compile(r"^(?:[-*•>#]+\s+|1\s*[.、)）](?!\d)\s*|```\w*)")
_ASKING = re.compile(r"(?:what|which|how|where|who|why)\b", re.IGNORECASE)
_HOW_TO = re.compile(r"(?:^[Hh]|(?:(?<=, )|(?<=and )(?<!when and )(?<!where and )(?<!what and ))h)ow to (?=[a-z])")
_WHAT_ARE = re.compile(
    r"\b([Ww]hat) are( (?:its|their|his|her) (?:[a-z]{1,20} )?[a-z]{1,20}"
    r"(?:ment|tion|ness|ance|ence|ity|ism|tem|ture|raphy|logy))(?=\?)"
)
"""A question for one thing, by the end of its word, that asks as for several."""
_LONGEST_MARK = 200
"""Characters in which a label or a mark is looked for."""

_QUOTES = {"“": "”", '"': '"', "'": "'", "「": "」", "『": "』", "《": "》", "`": "`", "‘": "’", "【": "】"}

_MOST_SIDES = 5
"""Items of a list in one sentence: of the kept labels with more, all asked for something that their text has not."""
_SIDE = re.compile(r"[^、。？！?!\n]{1,20}、")
_LAST_SIDE = re.compile(r"、[^、。？！?!\n]{1,20}?(?:以及|[和与與及])")

_EXERCISE = re.compile(r"回\s*答|完\s*成|[（(]\s*[1１一Ⅰ]\s*[)）]|下列|求|写\s*出|补\s*写|翻\s*译|说\s*明|分\s*析")


def tidy(answer: str) -> str:
    """The instruction in a model's answer: without labels such as 指令：, quotation and list marks, white space."""
    text = answer.strip()
    while (shorter := _without_ends(text)) != text or "**" in text:
        text = shorter if shorter != text else text.replace("**", "").strip()
    return "\n".join(line.rstrip() for line in map(_with_subject, text.splitlines()))


def _with_subject(question: str) -> str:
    """An English question with `how do you make` for `how to make`, which does not ask on its own, and with `what is
    its system` for `what are its system`."""
    if not _ASKING.match(question) or not question.rstrip().endswith("?"):
        return question
    return _WHAT_ARE.sub(r"\1 is\2", _HOW_TO.sub(lambda match: f"{match[0][:3]} do you ", question))


def _without_ends(text: str) -> str:
    """`text` without labels, list marks, fences and quotation marks at its ends, however many there are."""
    begin, end, before = 0, len(text), (-1, -1)
    while (begin, end) != before:
        before = begin, end
        for pattern in (_LABEL, _MARK):
            if match := pattern.match(text[begin : min(end, begin + _LONGEST_MARK)]):
                begin += match.end()
        if text.endswith("```", begin, end):
            end -= 3
        while begin < end and text[begin].isspace():
            begin += 1
        while begin < end and text[end - 1].isspace():
            end -= 1
        if begin < end and _QUOTES.get(text[begin]) == text[end - 1] and text.find(text[begin], begin + 1, end - 1) < 0:
            begin, end = begin + 1, max(begin + 1, end - 1)
    return text[begin:end].strip()


_ASKED = re.compile(
    r"^[ \t*#]*(?:[问問][题題]|指令|question|instruction)[ \t*]*[:：][ \t*]*(?=\S)", re.MULTILINE | re.I
)
_SIDES = re.compile(r"^[^，。？！\n]{2,40}的[^。？！\n]{1,60}[、和与][^。？！\n]{1,40}[。.]?$")
_OWN_TURN = re.compile(r"^\[assistant\][ \t]*\n.*?(?=^\[(?:system|user)\]|\Z)", re.MULTILINE | re.DOTALL)
_TOPIC = re.compile(r"^[ \t*#]*(?:[话話][题題]|主[题題]|topic)[ \t*]*[:：][ \t*]*(.+)", re.MULTILINE | re.I)


def split_outline(answer: str) -> tuple[str, str]:
    """What a model noted before its instruction, "" if nothing, and the instruction, tidied.

    Behind an outline, a list of sides (竹节虫的外形、习性和繁殖。) is a request that only lacks its verb.
    """
    asked = list(_ASKED.finditer(answer))
    outline, instruction = (answer[: asked[-1].start()].strip(), answer[asked[-1].end() :]) if asked else ("", answer)
    instruction = tidy(instruction)
    if outline and _SIDES.search(instruction) and not is_request(instruction):
        instruction = f"请介绍{instruction}"
    return outline, instruction


def topic_of(outline: str) -> str:
    """The topic that an outline names, or ""."""
    match = _TOPIC.search(outline)
    return match[1].strip() if match else ""


def defect(instruction: str, text: str, prompt: Prompt, questions: int = 2) -> Defect | None:
    """What is wrong with the form of `instruction`, written for `text` by a model that was asked with `prompt`.

    More than `questions` question marks in a short instruction are several requests, and so are more than five sides.
    """
    length = len(instruction)
    if length < SHORTEST:
        return "too_short", length
    share = han_share(instruction)
    if han_share(text) > 0.5 and share < 0.2 and share * units(instruction) < 10:  # ten make a sentence about English
        return "wrong_language", round(share, 2)
    if share > 0.5 and not has_material(instruction) and language_of(text).code != "zh":
        return "wrong_language", round(share, 2)
    if leaked := leak(instruction, prompt):
        return "prompt_leak", leaked
    if (asked := _questions(instruction)) > questions:
        return "several_requests", asked
    if (sides := _sides(instruction)) > _MOST_SIDES:
        return "several_requests", sides
    if copied := _copied(instruction, text):
        return "copies_text", copied
    known = han_share(text) > 0.5 or (not has_material(instruction) and language_of(text).code != "zh")
    if known and not is_request(instruction, text):
        return "not_a_request", instruction
    return None


def is_request(instruction: str, text: str = "") -> bool:
    """Whether a sentence of `instruction` asks or demands something, by the rules of its language or of its text's."""
    if longer(instruction, _ROW) and _EXERCISE.search(instruction):
        return True
    rules = [language_of(written).is_request for written in (instruction, text) if written]
    return any(asks(sentence) for asks in rules for sentence in sentences(instruction))


def leak(answer: str, prompt: Prompt, *, longest: int = 12) -> str:
    """The piece of at least `longest` characters that `answer` has in common with the words of `prompt`, or "".

    The model's own turns in an example are left out: they show the form that an answer is wanted in.
    """
    words, part = _without_own_turns(prompt.text), (longest + 1) // 2
    if not any(answer[start : start + part] in words for start in range(0, len(answer) - part + 1, part)):
        return ""  # wherever a piece begins that is as long, it has one of these parts in it
    run = shared_run(answer, words)
    return run if len(bare(run)) >= longest else ""


@cache  # of as many prompts as recipes and languages have
def _without_own_turns(words: str) -> str:
    return _OWN_TURN.sub("", words)


def _sides(instruction: str) -> int:
    """Items of the longest list in one sentence of a short instruction."""
    if longer(instruction, _ROW):
        return 1
    if han_share(instruction) == 0:
        return 1 + max(map(_commas_and_last, sentences(instruction)))
    return 1 + max(
        len(_SIDE.findall(sentence)) + bool(_LAST_SIDE.search(sentence)) for sentence in sentences(instruction)
    )


def _commas_and_last(sentence: str) -> int:
    """What stands between the items of an English list: commas, and the last `and` without one. What stands before
    `including` is their sum and no item."""
    *items, last = sentence.rpartition("including ")[2].split(", ")
    return len(items) + (" and " in last)


def _questions(instruction: str) -> int:
    """Number of questions in a row."""
    return instruction.count("？") + instruction.count("?") if not longer(instruction, _ROW) else 1


def _copied(instruction: str, text: str) -> str:
    """The piece of `text` that makes up nearly all of `instruction`, if it is more than a heading and asks nothing."""
    if CHINESE_QUESTION.search(simplified(instruction)):
        return ""
    run = shared_run(instruction[:_ROW], text)
    long = units(run) >= 12 and units(run) >= 0.7 * units(instruction)
    return run if long and not is_request(run) else ""
