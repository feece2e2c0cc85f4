"""How one OpenAI-style server wants to be asked, found out once, at the start, with what the stages will send.

Servers differ in more than optional fields: newer APIs take `max_completion_tokens` and refuse `max_tokens`, templates
of some models refuse a system message, and each has its own way to switch thinking off.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kun_builder.types import Message

Thinking = Literal["auto", "on", "off"]

_SWITCHES: Mapping[Thinking, tuple[dict[str, Any], ...]] = {
    "auto": ({},),
    "on": ({"chat_template_kwargs": {"enable_thinking": True, "thinking": True}}, {"reasoning_effort": "medium"}),
    "off": (
        {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        {"reasoning_effort": "none"},
        {"reasoning_effort": "minimal"},
        {"reasoning_effort": "low"},
        {"think": False},
    ),
}
"""Fields by which thinking is switched: templates of Qwen3, GLM, DeepSeek and others; OpenAI's APIs; Ollama."""


@dataclass(frozen=True, slots=True)
class Manners:
    """limit: name of the field for the most tokens. merged: system messages go into the user's turn. switch: what
    switches thinking."""

    limit: str = "max_tokens"
    merged: bool = False
    switch: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """What is unusual, for people."""
        parts = [f"`{self.limit}`"] if self.limit != "max_tokens" else []
        parts += ["the system text in the user's turn"] if self.merged else []
        parts += [f"`{name}`" for name in self.switch]
        return ", ".join(parts) or "the usual fields"

    def body(
        self, model: str, prompt: str | Sequence[Message], tokens: int, extra: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A request without its optional fields. `extra` are the recipe's own fields: they win."""
        if isinstance(prompt, str):
            asked: dict[str, Any] = {"prompt": prompt}
        else:
            asked = {"messages": merge_system(prompt) if self.merged else prompt}
        switch = {} if isinstance(prompt, str) else self.switch
        return {"model": model, **asked, self.limit: tokens, **switch, **extra}


def all_manners(thinking: Thinking, kind: str) -> Iterator[Manners]:
    """The ways to ask, the usual one first."""
    merged = (False, True) if kind == "chat" else (False,)
    switches = _SWITCHES[thinking] if kind == "chat" else ({},)
    for switch, merge, limit in itertools.product(switches, merged, ("max_tokens", "max_completion_tokens")):
        yield Manners(limit, merge, switch)


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with the system's text at the head of the first user turn."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    turns = [dict(message) for message in messages if message["role"] != "system"]
    if system and turns and turns[0]["role"] == "user":
        turns[0]["content"] = f"{system}\n\n{turns[0]['content']}"
    elif system:
        turns.insert(0, {"role": "user", "content": system})
    return list(turns)
