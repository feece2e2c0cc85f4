"""How one OpenAI-style server wants to be asked, found out once, at the start, with what the stages will send.

Servers differ in more than optional fields: newer APIs take `max_completion_tokens` and refuse `max_tokens`, templates
of some models refuse a system message, and each has its own way to switch thinking off.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from kun_builder.engines.http import SECRET
from kun_builder.engines.prompt_tokens import FIELD
from kun_builder.errors import ModelError
from kun_builder.types import Message, Request

Kind = Literal["chat", "completion"]
Thinking = Literal["auto", "on", "off"]
ThinkingOption = Thinking | bool
"""The option as a recipe has it: YAML reads a bare `on` or `off` as true or false."""


_SECRET_NAME = re.compile(
    r"(?i)api[-_]?key|secret|passw|authorization|credential|(?:access|auth|bearer|session|api)[-_]?token"
)
SHORT_TOKENS = 16
"""Tokens for the answer to a short question: some servers refuse fewer; a tag or a word of thinking is in these."""
_ROLE, _SHORT = "You answer briefly.", "Say yes."

THINKING_TOKENS = 2048
"""Room that a model which thinks gets besides the tokens of its answer, unless the recipe says otherwise."""
THINKS = "thinks before it answers; its reasoning is removed from the answer, but counted and paid for"
"""What a user is told of a model, after its name."""
CURES = {
    "auto": ": `thinking: off` switches it off where the server can",
    "off": ": it does so although `thinking` is off",
    "on": "",
}
"""What is told after that, by what the recipe says of thinking."""


def room_to_think(tokens: int, context: int) -> int:
    """`tokens`, but at most half of the context, which must also hold the question; 0 is an unknown context."""
    return min(tokens, context // 2) if context else tokens


def check_extra(model: str, extra: Mapping[str, Any]) -> None:
    """Raise ModelError for a field of `extra_body` that would replace the question."""
    if clash := {"model", "messages", "prompt"} & extra.keys():
        raise ModelError(
            f"model `{model}`: `extra_body` cannot set `{min(clash)}`, which every request has of its own",
            hint="take it out of `extra_body`; `model` is an option of the model itself",
        )


def no_secrets(extra: Any) -> Any:
    """`extra` as it is. Raises ValueError for a field that looks like a secret: it would stand in the lock file."""
    if isinstance(extra, dict):
        for name, value in extra.items():
            if isinstance(value, str) and (_SECRET_NAME.search(str(name)) or SECRET.search(value)):
                raise ValueError(
                    f"has what looks like a secret in `{name}`, and all of it is written into recipe.lock.yaml: use"
                    " `api_key: ${NAME}` or `headers: {NAME: '${NAME}'}` of the model"
                )
            no_secrets(value)
    elif isinstance(extra, list):
        for value in extra:
            no_secrets({"": value})
    return extra


def variant_of(extra: Mapping[str, Any], thinking: Thinking, tokens: int) -> str:
    """A digest of what the recipe adds to every request; empty where it adds nothing. With more room to think, a
    question whose answer was cut off is another one."""
    added: list[object] = [extra, thinking]
    if tokens != THINKING_TOKENS:
        added.append(tokens)
    if added == [{}, "auto"]:
        return ""
    return "+" + hashlib.sha256(orjson.dumps(added, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def short_question(kind: Kind) -> str | tuple[Message, ...]:
    """A short prompt to find out what a server can do. A chat has a system message, as the stages' prompts have."""
    return ({"role": "system", "content": _ROLE}, {"role": "user", "content": _SHORT}) if kind == "chat" else _SHORT


def thinking_of(option: ThinkingOption) -> Thinking:
    """The option as one of the words `auto`, `on` and `off`."""
    return option if isinstance(option, str) else "on" if option else "off"


SOFT = "/"
"""A key in `_SWITCHES`: its value is no field but a word that is put at the end of the user's turn."""

_SWITCHES: Mapping[Thinking, tuple[dict[str, Any], ...]] = {
    "auto": (),
    "on": ({"chat_template_kwargs": {"enable_thinking": True, "thinking": True}}, {"reasoning_effort": "medium"}),
    "off": (
        {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        {"reasoning_effort": "none"},
        {"think": False},
        {"enable_thinking": False},
        {"thinking": {"type": "disabled"}},
        {"reasoning": {"enabled": False}},
        {SOFT: "/no_think"},
        {"reasoning_effort": "minimal"},
        {"reasoning_effort": "low"},
    ),
}
"""Fields by which thinking is switched: templates of Qwen3, GLM, DeepSeek and others; OpenAI's APIs; Ollama; DashScope;
the APIs of GLM and DeepSeek; routers; and Qwen3's word. The last two only shorten it."""


@dataclass(frozen=True, slots=True)
class Manners:
    """How one server is asked.

    limit: name of the field for the most tokens. merged: whether system messages go into the user's turn. switch:
    fields that switch thinking on or off."""

    limit: str = "max_tokens"
    merged: bool = False
    switch: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """The unusual parts of these manners, as a phrase for a log line."""
        parts = [f"`{self.limit}`"] if self.limit != "max_tokens" else []
        parts += ["the system text in the user's turn"] if self.merged else []
        parts += [f"`{value if name == SOFT else name}`" for name, value in self.switch.items()]
        return ", ".join(parts) or "the usual fields"

    def body(
        self, model: str, prompt: str | Sequence[Message], tokens: int, extra: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A request without its optional fields. `extra` are the recipe's own fields: they win."""
        if isinstance(prompt, str):
            return {"model": model, "prompt": prompt, self.limit: tokens, **extra}
        messages = merge_system(prompt) if self.merged else prompt
        if word := self.switch.get(SOFT):
            messages = [*messages[:-1], {**messages[-1], "content": f"{messages[-1]['content']}\n{word}"}]
        switch = {name: value for name, value in self.switch.items() if name != SOFT}
        return {"model": model, "messages": messages, self.limit: tokens, **switch, **extra}


def all_manners(kind: Kind) -> Iterator[Manners]:
    """The ways to ask, the usual one first."""
    merged = (False, True) if kind == "chat" else (False,)
    for merge, limit in itertools.product(merged, ("max_tokens", "max_completion_tokens")):
        yield Manners(limit, merge)


def switched(manners: Manners, thinking: Thinking) -> Iterator[Manners]:
    """The ways to switch thinking, the most usual one first."""
    for switch in _SWITCHES[thinking]:
        yield replace(manners, switch=switch)


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with the system's text at the head of the first user turn."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    turns = [dict(message) for message in messages if message["role"] != "system"]
    if system and turns and turns[0]["role"] == "user":
        turns[0]["content"] = f"{system}\n\n{turns[0]['content']}"
    elif system:
        turns.insert(0, {"role": "user", "content": system})
    return list(turns)


def optional_fields(request: Request, kind: Kind, penalty: str) -> dict[str, Any]:
    """The optional fields of a request. `penalty` is the server's name of the penalty for repetition."""
    fields: dict[str, Any] = {"temperature": request.temperature}
    if request.temperature > 0:  # greedy decoding has no use for these
        fields["top_p"] = request.top_p
        if request.seed is not None:
            fields["seed"] = request.seed
    if request.repetition_penalty != 1:
        fields[penalty] = request.repetition_penalty
    if request.stop:
        fields["stop"] = request.stop
    if top := request.top_logprobs:
        fields |= {"logprobs": True, "top_logprobs": top} if kind == "chat" else {"logprobs": top}
    if request.prompt_logprobs:
        fields[FIELD] = 0
    return fields
