"""The `openai` engine: `/v1/chat/completions` and `/v1/completions` as TGI, vLLM, SGLang, llama.cpp, `transformers
serve` and the Hugging Face Inference Providers speak them.

Messages go to the chat route, strings to the completion route. Beyond model, prompt and `max_tokens` every field is
optional: it is sent only where a request sets it, and left out where the server refuses it (`refusals.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from kun_builder.engines.answers import openai_answer
from kun_builder.engines.bodies import generation_limit
from kun_builder.engines.child import in_thread
from kun_builder.engines.choices import FORMS, PROBE_CHOICES, choice_fields
from kun_builder.engines.facts import is_healthy, model_facts, queue_length, token_count
from kun_builder.engines.http import Server, open_servers
from kun_builder.engines.manners import Manners, Thinking, all_manners
from kun_builder.engines.reasoning import starts_to_think
from kun_builder.engines.refusals import Fields, Refusals
from kun_builder.engines.tokenizers import token_counter
from kun_builder.errors import FatalError, RejectedError, RequestError, TransientError
from kun_builder.hookspecs import hookimpl
from kun_builder.types import Completion, Endpoint, Engine, Message, ModelInfo, ModelSpec, Request

kun_api = 1
log = logging.getLogger(__name__)

_PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}
_BROKEN_BY_INPUT = frozenset({500})  # what some servers answer where a chat template raises
_ROLE = "You answer briefly."
_SHORT = "Say yes."
"""Asked to find out what a server can do."""

Kind = Literal["chat", "completion"]


@asynccontextmanager
async def connect(
    spec: ModelSpec,
    *,
    extra_body: dict[str, Any] | None = None,
    thinking: Thinking = "auto",
    thinking_tokens: Annotated[int, Field(ge=0)] = 2048,
) -> AsyncIterator[Sequence[Endpoint]]:
    """Endpoints at OpenAI-style servers; nothing is asked yet.

    extra_body: further fields of every request, for example `{top_k: 20, chat_template_kwargs: {...}}`. Answers to
        other fields are other answers: they are part of the journal's key.
    thinking: `off` and `on` switch a model's reasoning in the way that the server takes, `auto` leaves it as it is.
        Reasoning is taken off the answer either way.
    thinking_tokens: room that a model which thinks gets besides the tokens of its answer.
    """
    async with open_servers(spec) as servers:
        yield [
            OpenAIEndpoint(server, spec, extra=extra_body, thinking=thinking, thinking_tokens=thinking_tokens)
            for server in servers
        ]


class OpenAIEndpoint:
    """One OpenAI-style server. `facts` replace what the server says of itself (the embedded one knows no digest);
    with `asked` false they are all there is, and it is not asked (transformers' server lists its cache, not its model).
    """

    def __init__(
        self,
        server: Server,
        spec: ModelSpec,
        facts: Mapping[str, Any] | None = None,
        *,
        asked: bool = True,
        extra: Mapping[str, Any] | None = None,
        thinking: Thinking = "auto",
        thinking_tokens: int = 2048,
    ) -> None:
        self.url = server.url
        self._server = server
        self._spec = spec
        self._facts = dict(facts or {})
        self._asked = asked
        self._about: ModelInfo | None = None
        self._model = spec.model
        self._fingerprint, self._changed = "", False
        self._penalty = "repetition_penalty"
        self._refusals = Refusals(server.url)
        self._forms: dict[Kind, str] = {}
        self._lock = asyncio.Lock()
        self._extra = dict(extra or {})
        self._thinking: Thinking = thinking
        self._thinking_tokens = thinking_tokens
        self._room = 0
        self._manners: dict[Kind, Manners] = {}
        self._count: Callable[[str], int] | None = None

    async def info(self) -> ModelInfo:
        """Who answers here; asks for one token to see how the server wants to be asked, whether log-probabilities come
        with it, and whether the model thinks first."""
        about = await self._introduce()
        await self._learn_manners(about.prompt)
        self._room = 0
        answer = await self.complete(Request(_short(about.prompt), max_new_tokens=1, top_logprobs=5))
        if answer.reasoning_tokens or (answer.tokens and starts_to_think(answer.tokens[0].text)):
            self._notice_thinking()
        return replace(about, logprobs=any(token.top for token in answer.tokens), fingerprint=self._fingerprint)

    def _notice_thinking(self) -> None:
        self._room = self._thinking_tokens
        cure = "`thinking: off` switches it off where the server can" if self._thinking == "auto" else ""
        cure = "it does so although `thinking` is off" if self._thinking == "off" else cure
        log.warning(
            "%s: %s thinks before it answers; its reasoning is taken off, counted, and costs%s",
            *(self.url, self._model, f": {cure}" if cure else ""),
        )

    async def _learn_manners(self, kind: Kind) -> None:
        """Try the ways to ask until one is taken. Raises what the usual one raises if none is."""
        if kind in self._manners:
            return
        refused: RequestError | None = None
        for manners in all_manners(self._thinking, kind):
            self._manners[kind] = manners
            try:
                await self._ask(kind, _short(kind), 1, {})
            except (RejectedError, TransientError) as error:
                if isinstance(error, TransientError) and error.status not in _BROKEN_BY_INPUT:
                    del self._manners[kind]
                    raise
                refused = refused or error
            else:
                if refused is not None:
                    log.warning("%s: %s; asked with %s from now on", self.url, refused.message, manners.told)
                return
        del self._manners[kind]
        assert refused is not None
        if isinstance(refused, TransientError):
            raise refused
        raise FatalError(
            f"{self.url} refuses even a short question: {refused.message}",
            status=refused.status,
            endpoint=self.url,
            hint="check `model` and `prompt` (chat or completion) of this model, and its `extra_body`",
        )

    async def healthy(self) -> bool:
        """Whether requests can be sent now."""
        return await is_healthy(self._server)

    async def queued(self) -> int | None:
        """Requests waiting at the server, by its `/metrics`."""
        return await queue_length(self._server)

    async def count_tokens(self, text: str) -> int:
        """Tokens of `text` by the server's tokenizer; where it offers none, by the model's, loaded here."""
        if self._count is None:
            about = self._about or await self._introduce()
            count = await token_count(self._server, text, self._model)
            if count is not None:
                return count
            self._count = await in_thread(partial(token_counter, about.tokenizer, self._spec))
        return self._count(text)

    async def complete(self, request: Request) -> Completion:
        """One request; repeated without a field only when the server turns out to refuse that field."""
        kind: Kind = "completion" if isinstance(request.prompt, str) else "chat"
        if self._about is None:
            await self._introduce()
        form = await self._choice_form(kind) if request.choices else ""
        refusals = self._refusals
        while True:
            lessons = refusals.lessons
            fields = refusals.apply(self._fields(request, kind, form))
            try:
                body = await self._ask(kind, request.prompt, request.max_new_tokens, fields)
            except RejectedError:
                if not await refusals.blame(fields, lessons, partial(self._accepts, kind), kind):
                    raise
            else:
                return self._read(body, request.stop if "stop" in refusals.names else ())

    def _read(self, body: Any, stop: Sequence[str] = ()) -> Completion:
        off = self._thinking == "off"
        return openai_answer(body, self.url, stop, reasoning_is_answer=off, shown=self._server.shown)

    async def _introduce(self) -> ModelInfo:
        about, owner = await model_facts(self._server, self._spec) if self._asked else (ModelInfo(self._spec.model), "")
        self._model = self._model or about.id
        self._penalty = "repeat_penalty" if owner == "llamacpp" else "repetition_penalty"
        self._about = replace(about, **{"variant": self._variant(), **self._facts})
        return self._about

    async def _ask(self, kind: Kind, prompt: str | Sequence[Message], tokens: int, fields: Fields) -> Any:
        tokens += self._room
        manners = self._manners.get(kind) or next(all_manners(self._thinking, kind))
        body = manners.body(self._model, prompt, tokens, {**fields, **self._extra})
        limit = generation_limit(tokens, fields.get("top_logprobs") or fields.get("logprobs") or 0)
        answer = (await self._server.post(_PATHS[kind], body, limit=limit))[0]
        self._recognise(answer)
        return answer

    def _variant(self) -> str:
        """A digest of what the recipe adds to every request; empty where it adds nothing."""
        if not self._extra and self._thinking == "auto":
            return ""
        added = orjson.dumps((self._extra, self._thinking), option=orjson.OPT_SORT_KEYS)
        return "+" + hashlib.sha256(added).hexdigest()[:16]

    def _recognise(self, answer: Any) -> None:
        """Keep the server's `system_fingerprint`, and warn when it is another one than before."""
        found = answer.get("system_fingerprint") if isinstance(answer, dict) else None
        if not isinstance(found, str) or found == self._fingerprint:
            return
        if self._fingerprint and not self._changed:
            self._changed = True  # once: behind some addresses there are many servers, which take turns
            log.warning("%s was %.80r and says now that it is %.80r", self.url, self._fingerprint, found)
        self._fingerprint = found

    def _fields(self, request: Request, kind: Kind, form: str) -> Fields:
        """The optional fields of a request, in the server's names."""
        fields: Fields = {"temperature": request.temperature}
        if request.temperature > 0:  # greedy decoding has no use for these
            fields["top_p"] = request.top_p
            if request.seed is not None:
                fields["seed"] = request.seed
        if request.repetition_penalty != 1:
            fields[self._penalty] = request.repetition_penalty
        if request.stop:
            fields["stop"] = request.stop
        if top := request.top_logprobs:
            fields |= {"logprobs": True, "top_logprobs": top} if kind == "chat" else {"logprobs": top}
        if form:
            fields |= choice_fields(form, request.choices)
        return fields

    async def _accepts(self, kind: Kind, fields: Fields) -> bool:
        try:
            await self._ask(kind, _short(kind), 1, fields)
        except RejectedError:
            return False
        return True

    async def _choice_form(self, kind: Kind) -> str:
        """How this server is made to answer with one of a few strings, tried out once; empty if it cannot be."""
        async with self._lock:
            if kind not in self._forms:
                self._forms[kind] = ""
                for form in FORMS:
                    if await self._obeys(kind, form):
                        self._forms[kind] = form
                        break
            return self._forms[kind]

    async def _obeys(self, kind: Kind, form: str) -> bool:
        fields = {"temperature": 0, **choice_fields(form, PROBE_CHOICES)}
        try:
            body = await self._ask(kind, _short(kind), 4, fields)
        except RejectedError:
            return False
        return self._read(body).text.strip().startswith(PROBE_CHOICES[0][0])


def _short(kind: str) -> str | tuple[Message, ...]:
    return ({"role": "system", "content": _ROLE}, {"role": "user", "content": _SHORT}) if kind == "chat" else _SHORT


@hookimpl
def kun_engines() -> list[Engine]:
    """The OpenAI protocol, as most servers speak it."""
    return [Engine(name="openai", connect=connect)]
