"""Prompts are data: a text with slots, filled so that corpus text cannot leave its place.

A chat prompt has a line `[system]`, `[user]` or `[assistant]` before each message; a text without such lines is a
completion prompt. Slots are written `{text}`. Values go in by one pass over the template, so a slot inside a value
stays what it is, and whatever looks like a chat template's control token in a value is broken by a zero-width space.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kun_builder.types import Message

_ROLE = re.compile(r"^\[(system|user|assistant)\][ \t]*\n", re.MULTILINE)
_SLOT = re.compile(r"\{([a-z_]+)\}")
# Control tokens of the common templates and vocabularies: ChatML, Llama 2 and 3, Gemma, DeepSeek (full-width bar), GLM,
# Baichuan, InternLM, Mistral, T5, code models; with full-width brackets too, which SentencePiece makes ASCII of.
_CONTROL = re.compile(
    r"[<＜](?=[|｜])|(?<=[|｜])[>＞]|[<＜](?=[/／]?(?:s|unk|pad|bos|eos|mask|sep|cls|sop|eop|eoh|eoa|eom|start_of_turn|end_of_turn|think(?:ing)?|tool_call"
    r"|tool_response|im_start|im_end|endoftext|(?:reserved|unused|extra_id|SPECIAL|TOKENS_UNUSED|fim)_?\w{1,12}|PRE|SUF|MID|EOT)[>＞])"
    r"|[\[［](?=[/／]?(?:INST|SYS|[gs]MASK|CLS|SEP|UNK|PAD|MASK|BOS|EOS|PREFIX|SUFFIX|MIDDLE|THINK|IMG|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS"
    r"|SYSTEM_PROMPT|unused_?\d{1,4})[\]］])|[<＜](?=[<＜][/／]?SYS[>＞][>＞])"
)
_BRACKETS = re.compile(r"[<＜>＞\[［]")
"""What each of the control tokens has; most texts have none, and one look for all of them is cheap."""
_BREAK = "\u200b"
_BRACKET = re.compile(r"[<＜\[［]")
_RESTORE = re.compile(f"{_BREAK}(?=[>＞])|(?<=[<＜\\[［]){_BREAK}")


def neutralise(text: str) -> str:
    """`text` with every control-token lookalike broken by a zero-width space: no tokenizer sees a control token."""
    if not _BRACKETS.search(text):
        return text
    return _CONTROL.sub(lambda m: _BREAK + m[0] if m[0] in ">＞" else m[0] + _BREAK, text)


def breaker(tokens: Iterable[str]) -> Callable[[str], str]:
    """A function that breaks these tokens in a text, too, as far as they have a bracket and `neutralise` misses them.

    It returns the very object that it was given if none of them is in it. Tokens without a bracket, such as `▁` or
    words, are ordinary text and left alone.
    """
    own = [token for token in tokens if len(token) > 2 and _BRACKET.search(token) and neutralise(token) == token]
    if not own:
        return lambda text: text
    pattern = re.compile("|".join(map(re.escape, sorted(own, key=len, reverse=True))))
    broken = {token: _BRACKET.sub(lambda m: m[0] + _BREAK, token, count=1) for token in own}
    return lambda text: pattern.sub(lambda m: broken[m[0]], text) if pattern.search(text) else text


def restore(text: str) -> str:
    """Undo `neutralise` in an answer, so that a quoted token comes back as it was written."""
    return _RESTORE.sub("", text)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt template. `name` is for people; the digest of `text` is part of every key that depends on it."""

    text: str
    name: str = "inline"

    @classmethod
    def load(cls, path: str | Path) -> Prompt:
        """Read a template from a UTF-8 file."""
        path = Path(path)
        return cls(path.read_text(encoding="utf-8").strip() + "\n", path.stem)

    @property
    def digest(self) -> str:
        """SHA-256 of the text, first 16 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def slots(self) -> frozenset[str]:
        """Names of the slots."""
        return frozenset(_SLOT.findall(self.text))

    def fill(self, **values: str) -> str | tuple[Message, ...]:
        """Messages for a chat prompt, a string for a completion prompt. Raises KeyError for a slot without a value."""
        safe = {name: neutralise(value) for name, value in values.items()}
        if not (messages := _messages(self.text)):
            return _fill(self.text, safe).rstrip("\n")
        return tuple({"role": role, "content": _fill(content, safe).strip("\n")} for role, content in messages)


@lru_cache(maxsize=64)  # a prompt is filled for every row
def _messages(template: str) -> tuple[tuple[str, str], ...]:
    """Role and content of each message of a chat prompt; none of a completion prompt."""
    parts = _ROLE.split(template)
    return tuple(zip(parts[1::2], parts[2::2], strict=True))


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda m: values[m[1]], template)
