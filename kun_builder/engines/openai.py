"""The `openai` engine: `/v1/chat/completions` and `/v1/completions` as TGI, vLLM, SGLang, llama.cpp, `transformers
serve` and the Hugging Face Inference Providers speak them.

Messages go to the chat route, strings to the completion route. Beyond model, prompt and `max_tokens` every field is
optional: it is sent only where a request sets it. A server that refuses a request is asked once, with a short prompt,
whether a field is to blame; if so, the field is left out from then on, and no row pays for it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal

import orjson

from kun_builder.engines.answers import openai_answer
from kun_builder.engines.facts import is_healthy, model_facts, queue_length, token_count
from kun_builder.engines.http import Server, open_session
from kun_builder.errors import ModelError, RejectedError
from kun_builder.hookspecs import hookimpl
from kun_builder.types import Completion, Endpoint, Engine, ModelInfo, ModelSpec, Request

kun_api = 1
log = logging.getLogger(__name__)

_PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}
_PROBE = "Say yes."
_PROBE_CHOICES = ("\u00a75", "\u00a77")
"""Answers that no model gives by itself: a server that gives one of them has been made to."""

Kind = Literal["chat", "completion"]
Fields = dict[str, Any]


@asynccontextmanager
async def connect(spec: ModelSpec) -> AsyncIterator[Sequence[Endpoint]]:
    """Endpoints at OpenAI-style servers; nothing is asked yet."""
    if not spec.endpoints:
        raise ModelError(
            f"model {spec.name!r} has no endpoints", hint="give `endpoints: [http://host:port]` or `--endpoint URL`"
        )
    async with open_session() as session:
        yield [
            OpenAIEndpoint(Server(session, url, api_key=spec.api_key, timeout=spec.timeout), spec)
            for url in spec.endpoints
        ]


class OpenAIEndpoint:
    """One OpenAI-style server. `facts` replace what the server says of itself (the embedded server knows no digest)."""

    def __init__(self, server: Server, spec: ModelSpec, facts: Mapping[str, Any] | None = None) -> None:
        self.url = server.url
        self._server = server
        self._spec = spec
        self._facts = dict(facts or {})
        self._about: ModelInfo | None = None
        self._model = spec.model
        self._penalty = "repetition_penalty"
        self._refused: set[str] = set()
        self._lessons = 0
        self._innocent: set[tuple[object, ...]] = set()
        self._most_logprobs = 20
        self._forms: dict[Kind, str] = {}
        self._lock = asyncio.Lock()

    async def info(self) -> ModelInfo:
        """Who answers here; asks for one token to see whether log-probabilities come with it."""
        about = await self._introduce()
        answer = await self.complete(Request(_short(about.prompt), max_new_tokens=1, top_logprobs=5))
        return replace(about, logprobs=any(token.top for token in answer.tokens))

    async def healthy(self) -> bool:
        """Whether requests can be sent now."""
        return await is_healthy(self._server)

    async def queued(self) -> int | None:
        """Requests waiting at the server, by its `/metrics`."""
        return await queue_length(self._server)

    async def count_tokens(self, text: str) -> int:
        """Tokens of `text` by the server's tokenizer; where it offers none, its UTF-8 bytes, which are never fewer."""
        count = await token_count(self._server, text, self._model)
        return len(text.encode("utf-8", "surrogatepass")) if count is None else count

    async def complete(self, request: Request) -> Completion:
        """One request; repeated without a field only when the server turns out to refuse that field."""
        kind: Kind = "completion" if isinstance(request.prompt, str) else "chat"
        if self._about is None:
            await self._introduce()
        form = await self._choice_form(kind) if request.choices else ""
        while True:
            lessons = self._lessons
            fields = self._fields(request, kind, form)
            try:
                body = await self._ask(kind, request.prompt, request.max_new_tokens, fields)
            except RejectedError:
                if not await self._blame(kind, fields, lessons):
                    raise
            else:
                return openai_answer(body, self.url, request.stop if "stop" in self._refused else ())

    async def _introduce(self) -> ModelInfo:
        about, owner = await model_facts(self._server, self._spec)
        self._model = self._model or about.id
        self._penalty = "repeat_penalty" if owner == "llamacpp" else "repetition_penalty"
        self._about = replace(about, **self._facts)
        return self._about

    async def _ask(self, kind: Kind, prompt: str | Sequence[Mapping[str, str]], tokens: int, fields: Fields) -> Any:
        name = "messages" if kind == "chat" else "prompt"
        body = {"model": self._model, name: prompt, "max_tokens": tokens, **fields}
        return await self._server.post(_PATHS[kind], body)

    def _fields(self, request: Request, kind: Kind, form: str) -> Fields:
        """The optional fields of a request, in the server's names, without those that it refuses."""
        fields: Fields = {"temperature": request.temperature}
        if request.temperature > 0:  # greedy decoding has no use for these
            fields["top_p"] = request.top_p
            if request.seed is not None:
                fields["seed"] = request.seed
        if request.repetition_penalty != 1:
            fields[self._penalty] = request.repetition_penalty
        if request.stop:
            fields["stop"] = request.stop
        if request.top_logprobs:
            fields |= _logprob_fields(kind, min(request.top_logprobs, self._most_logprobs))
        if form:
            fields |= _choice_fields(form, request.choices)
        if self._refused:
            fields = {name: value for name, value in fields.items() if name not in self._refused}
        return fields

    async def _blame(self, kind: Kind, fields: Fields, lessons: int) -> bool:
        """After a refusal, ask a short question with the same fields. True if the fields were to blame and some have
        been struck off since they were chosen; False if the input is to blame."""
        shape = (kind, *fields, fields.get("top_logprobs"), len(fields.get("stop", ())))
        async with self._lock:
            if lessons != self._lessons:  # another request has found it out while this one was on its way
                return True
            if shape in self._innocent or await self._accepts(kind, fields) or not await self._accepts(kind, {}):
                self._innocent.add(shape)
                return False
            await self._strike(kind, fields)
            return True

    async def _accepts(self, kind: Kind, fields: Fields) -> bool:
        try:
            await self._ask(kind, _short(kind), 1, fields)
        except RejectedError:
            return False
        return True

    async def _strike(self, kind: Kind, fields: Fields) -> None:
        """Find the refused ones among `fields` one by one and leave them out from now on."""
        if "logprobs" in fields and not await self._accepts(kind, _only(fields, "logprobs")):
            if self._most_logprobs > 5 and await self._accepts(kind, _logprob_fields(kind, 5)):
                self._most_logprobs = 5  # the limit of the original protocol
            else:
                self._refused |= {"logprobs", "top_logprobs"}
        others = [name for name in fields if name not in {"logprobs", "top_logprobs"}]
        refused = {name for name in others if not await self._accepts(kind, _only(fields, name))}
        self._refused |= refused
        self._lessons += 1
        if self._refused:
            log.warning("%s refuses the fields %s: left out from now on", self.url, ", ".join(sorted(self._refused)))

    async def _choice_form(self, kind: Kind) -> str:
        """How this server is made to answer with one of a few strings, tried out once; empty if it cannot be."""
        async with self._lock:
            if kind not in self._forms:
                self._forms[kind] = ""
                for form in _FORMS:
                    if await self._obeys(kind, form):
                        self._forms[kind] = form
                        break
            return self._forms[kind]

    async def _obeys(self, kind: Kind, form: str) -> bool:
        fields = {"temperature": 0, **_choice_fields(form, _PROBE_CHOICES)}
        try:
            body = await self._ask(kind, _short(kind), 4, fields)
        except RejectedError:
            return False
        return openai_answer(body, self.url).text.strip().startswith(_PROBE_CHOICES[0][0])


def _short(kind: str) -> str | tuple[Mapping[str, str], ...]:
    return ({"role": "user", "content": _PROBE},) if kind == "chat" else _PROBE


def _only(fields: Fields, name: str) -> Fields:
    names = {"logprobs", "top_logprobs"} if name == "logprobs" else {name}
    return {name: value for name, value in fields.items() if name in names}


def _logprob_fields(kind: Kind, top: int) -> Fields:
    return {"logprobs": True, "top_logprobs": top} if kind == "chat" else {"logprobs": top}


_FORMS = ("structured_outputs", "grammar", "guided_choice", "regex", "response_format")


def _choice_fields(form: str, choices: Sequence[str]) -> Fields:
    """One of the extensions by which servers enforce a choice: vLLM, llama.cpp, older vLLM, SGLang, TGI."""
    match form:
        case "structured_outputs":
            return {form: {"choice": choices}}
        case "grammar":
            quoted = (orjson.dumps(choice).decode() for choice in choices)  # GBNF strings are written as in JSON
            return {form: "root ::= " + " | ".join(quoted)}
        case "guided_choice":
            return {form: choices}
        case "regex":
            return {form: _one_of(choices)}
        case _:
            return {form: {"type": "regex", "value": _one_of(choices)}}


def _one_of(choices: Sequence[str]) -> str:
    return "(" + "|".join(map(re.escape, choices)) + ")"


@hookimpl
def kun_engines() -> list[Engine]:
    """The OpenAI protocol, as most servers speak it."""
    return [Engine(name="openai", connect=connect)]
