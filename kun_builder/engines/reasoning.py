"""What a model thinks before it answers, told apart from the answer: it is counted, and never published.

Servers with a reasoning parser give it in a field of its own; without one it stands in the text, between tags of the
model's family, often without the opening one, which the chat template has written already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields of a message beside `content`: vLLM, SGLang, llama.cpp and DeepSeek; newer vLLM and routers; Ollama."""

_OWN = r"(?:seed:)?think(?:ing)?"
_NAMES = rf"(?:{_OWN}|thoughts?|reason(?:ing)?|reflection|scratchpad)"
_OPEN = re.compile(
    rf"\s*(?:<{_NAMES}>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|thinking|think|START_THINKING)\|>"
    r"|<unused94>(?:thought)?|<\|channel>thought|Here(?:'s| is) my thought process:)",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"</{_OWN}>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|/thinking|/think|END_THINKING)\|>|<unused95>|<channel\|>",
    re.IGNORECASE,
)
_CLOSE_OF_OPENED = re.compile(rf"{_CLOSE.pattern}|</{_NAMES}>|Here(?:'s| is) my response:", re.IGNORECASE)
"""Words that may as well be tags of a document end a reasoning only where one began."""
_AGAIN = re.compile(rf"<{_OWN}>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|START_THINKING)\|>", re.IGNORECASE)
_BARE_HEAD, _BARE_FINAL = re.compile(r"\s*analysis(?=[A-Z\u4e00-\u9fff])"), "assistantfinal"
"""Channels whose control tokens a server has left out: the words of their heads run into the text."""
_CHANNEL = re.compile(r"<\|channel\|>\s*+(\w++)[^<]*+<\|message\|>")
_TAG = 40  # characters that a tag and the white space behind it have at most
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_SOLUTION = re.compile(
    r"<\|(?:begin|end)_of_solution\|>|<\|(?:START|END)_RESPONSE\|>|<\|im_end\|>|\A\s*</?answer>|</?answer>\s*\Z"
)


@dataclass(slots=True)
class Habits:
    """How one model thinks, as far as its answers have shown."""

    thinks: bool = False
    opens: bool = False
    """Whether the chat template writes the opening tag. An answer without any tag is then an unfinished thought."""
    swallows: bool = False
    """Whether the server's parser takes answers for reasoning although the model does not think."""

    def split(self, text: str) -> tuple[str, str]:
        """Split as `split_reasoning` does, but with what is known of the model; `thinks` is updated."""
        answer, thought = split_reasoning(text)
        if self.opens and text and answer == text:
            answer, thought = "", text
        self.thinks = self.thinks or bool(thought) or answer != text
        return answer, thought


def split_reasoning(text: str) -> tuple[str, str]:
    """The answer in `text`, and what was thought before it. If the thinking does not end, the answer is empty.

    Tags that an answer quotes from the corpus are not mistaken for the model's own: they stand at another place, and
    in the values of a prompt they were broken (`prompts.neutralise`).
    """
    if "<|channel|>" in text:
        return _of_channels(text)
    if bare := _BARE_HEAD.match(text):
        thought, final, answer = text[bare.end() :].rpartition(_BARE_FINAL)
        return (answer.strip(), thought.strip()) if final else ("", answer)
    begin, end = _thinking(text)
    if end == 0:  # no tag has ended any thinking; an opening one begins some that has no end
        again = _AGAIN.search(text, begin)
        if begin or again is None:
            return ("", text[begin:]) if begin else (text, "")
        return text[: again.start()].strip(), text[again.end() :]
    again = _AGAIN.search(text, end)
    answer = text[end : again.start()] if again else text[end:]
    return _SOLUTION.sub("", answer).strip(), _CLOSE.sub("", text[begin:end]).strip()


def _thinking(text: str) -> tuple[int, int]:
    """Where the opening tag at the head of `text` ends, and where the last end tag does; 0 for none."""
    opened = _OPEN.match(text)
    begin, end = opened.end() if opened else 0, 0
    if opened and (closed := _CLOSE_OF_OPENED.search(text, begin)):
        end = closed.end()
    for closed in _CLOSE.finditer(text, max(begin, end)):
        end = closed.end()
    return begin, end


def opens_reasoning(prompt: str) -> bool:
    """Whether a prompt, as a chat template has written it, ends with the opening tag of a reasoning."""
    opened = list(_AGAIN.finditer(prompt[-_TAG:]))
    return bool(opened) and not prompt[-_TAG:][opened[-1].end() :].strip()


def ends_without_beginning(text: str) -> bool:
    """Whether a reasoning ends in `text` that began before it: the template has written the opening tag."""
    return not _OPEN.match(text) and not _AGAIN.search(text) and bool(_CLOSE.search(text))


def _of_channels(text: str) -> tuple[str, str]:
    """The `final` channel of the Harmony format (gpt-oss), and all others."""
    answer, thought = "", [text[: text.index("<|channel|>")].removesuffix("<|start|>assistant")]
    starts = list(_CHANNEL.finditer(text))
    for number, start in enumerate(starts):
        end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        said = _CHANNEL_END.split(text[start.end() : end])[0]
        if start[1] == "final":
            answer = said
        else:
            thought.append(said)
    return answer.strip(), "".join(thought).strip()


def ends_reasoning(text: str) -> bool:
    """Whether a text ends with the end tag of a reasoning, white space aside."""
    said = text.rstrip()
    return any(match.end() == len(said) for match in _CLOSE.finditer(said)) or said.endswith("final<|message|>")


def starts_to_think(text: str) -> bool:
    """Whether a text, perhaps cut off after its first token, begins with an opening tag."""
    return bool(_OPEN.match(text)) or text.lstrip().startswith("<|channel|>")


def reasoning_beside(message: Mapping[str, Any]) -> str:
    """The reasoning in a message's own fields, "" if there is none."""
    for name in FIELDS:
        if isinstance(found := message.get(name), str) and found.strip():
            return found
    for name, kinds in (("reasoning_details", None), ("content", ("thinking", "reasoning"))):
        parts = message.get(name)
        if isinstance(parts, list):
            thoughts = [part for part in parts if isinstance(part, dict) and (not kinds or part.get("type") in kinds)]
            if said := "".join(map(_thought, thoughts)):
                return said
    return ""


def _thought(part: Mapping[str, Any]) -> str:
    """The text of a part that holds reasoning; Mistral's such parts are lists of parts of text."""
    found = next((part[name] for name in ("text", "thinking", "reasoning", "summary") if part.get(name)), "")
    if isinstance(found, list):
        return "".join(_thought(inner) for inner in found if isinstance(inner, dict))
    return str(found)
