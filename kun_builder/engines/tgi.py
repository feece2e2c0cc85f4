"""The `tgi` engine: Text Generation Inference's own protocol, `/generate` with details.

Strings go to the server as they are; messages are written out by the model's own chat template first, since `/generate`
knows no roles. Protocol: TGI 3 (its OpenAPI description and, for what that leaves out, its router's validation).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from kun_builder.engines.answers import mapping, tgi_answer
from kun_builder.engines.bodies import generation_limit
from kun_builder.engines.child_server import in_thread
from kun_builder.engines.field_support import Fields, Refusals
from kun_builder.engines.forced import one_of
from kun_builder.engines.http import Server, open_servers
from kun_builder.engines.manners import (
    SHORT_TOKENS,
    THINKING_TOKENS,
    THINKS,
    Thinking,
    ThinkingOption,
    room_to_think,
    short_question,
    thinking_of,
    variant_of,
)
from kun_builder.engines.probe import first_count, is_healthy, load_of, text_of, token_count
from kun_builder.engines.prompt_tokens import TGI_FIELD, most_tokens
from kun_builder.engines.reasoning import Habits, opens_reasoning
from kun_builder.engines.tokenizers import CHARACTERS, ChatTemplate, load_template, token_counter
from kun_builder.errors import ModelError, RejectedError
from kun_builder.hookspecs import hookimpl
from kun_builder.types import Completion, Endpoint, Engine, ModelInfo, ModelSpec, Request

kun_api = 1
log = logging.getLogger(__name__)

_SHORT = "Say yes."
_MOST_STOPS = 4
_FIXED: Mapping[str, Any] = {"details": True, TGI_FIELD: False, "return_full_text": False}


@asynccontextmanager
async def connect(
    spec: ModelSpec,
    *,
    thinking: ThinkingOption = "auto",
    thinking_tokens: Annotated[int, Field(ge=0)] = THINKING_TOKENS,
) -> AsyncIterator[Sequence[Endpoint]]:
    """Endpoints at TGI servers; nothing is asked yet.

    thinking: `off` and `on` switch a model's reasoning where its chat template can, `auto` leaves it as it is.
        Reasoning is taken off the answer either way.
    thinking_tokens: room that a model which thinks gets besides the tokens of its answer.
    """
    async with open_servers(spec) as servers:
        yield [TGIEndpoint(server, spec, thinking_of(thinking), thinking_tokens) for server in servers]


class TGIEndpoint:
    """One TGI server."""

    def __init__(
        self, server: Server, spec: ModelSpec, thinking: Thinking = "auto", thinking_tokens: int = THINKING_TOKENS
    ) -> None:
        self.url, self.running = server.url, 0
        self._server = server
        self._spec = spec
        self._thinking: Thinking = thinking
        self._thinking_tokens = thinking_tokens
        self._room = self._context = 0
        self._refusals = Refusals(server.url)
        self._template: ChatTemplate | None = None
        self._lock = asyncio.Lock()
        self._count: Callable[[str], int] | None = None

    async def info(self) -> ModelInfo:
        """Who answers here, from `/info`; asks two short questions to see whether alternatives come with the answer,
        log-probabilities with the prompt, and whether the model thinks first."""
        about = mapping(await self._server.get("/info"))
        name = text_of(about.get("model_id"))
        if not name:
            raise ModelError(
                f"{self.url}/info names no model: that is no Text Generation Inference",
                hint="check `endpoints`, or say `engine: openai` for a server of another kind",
            )
        info = ModelInfo(
            id=name,
            revision=text_of(about.get("model_sha")) or self._spec.revision,
            context_length=first_count(self._spec.context_length, about.get("max_total_tokens")),
            prompt=self._spec.prompt,
            tokenizer=self._spec.tokenizer or name,
            variant=variant_of({}, self._thinking, self._thinking_tokens),
        )
        self._room, self._context = 0, info.context_length
        answer = await self.complete(Request(short_question(info.prompt), SHORT_TOKENS, top_logprobs=1))
        prompt = await self.complete(Request(_SHORT, 1, prompt_logprobs=True))
        context = max(0, info.context_length - self._room)
        return replace(
            info,
            context_length=context,
            logprobs=bool(answer.tokens),
            prompt_logprobs=bool(prompt.prompt_logprobs),
        )

    async def healthy(self) -> bool:
        """Whether requests can be sent now."""
        return await is_healthy(self._server)

    async def queued(self) -> int | None:
        """Requests waiting at the server: its `tgi_queue_size`."""
        waiting, self.running = await load_of(self._server)
        return waiting

    async def count_tokens(self, text: str) -> int:
        """Tokens of `text` by `/tokenize`; without a fast tokenizer there, by the model's, loaded here."""
        if self._count is None:
            count = await token_count(self._server, text, self._spec.model)
            if count is not None:
                return count
            named = self._spec.tokenizer or await self._own_tokenizer()
            self._count = await in_thread(partial(token_counter, named, self._spec))
        return self._count(text)

    async def complete(self, request: Request) -> Completion:
        """One request; repeated without a parameter only when the server turns out to refuse it."""
        inputs = request.prompt
        if not isinstance(inputs, str):
            template = self._template or await self._load_template()
            inputs = template.render(inputs, self._thinking)
        refusals = self._refusals
        habits = Habits(opens=opens_reasoning(inputs))
        if habits.opens:
            self._notice_thinking()
        while True:
            room = 0 if request.prompt_logprobs else self._room
            lessons = refusals.lessons
            fields = refusals.apply(_fields(request))
            try:
                body, headers = await self._ask(inputs, request.max_new_tokens + room, fields)
            except RejectedError:
                if not await refusals.blame(fields, lessons, self._accepts):
                    raise
            else:
                stop, shown = request.stop, self._server.shown
                answer = tgi_answer(body, headers, self.url, stop, habits=habits, shown=shown)
                if habits.thinks:
                    self._notice_thinking()
                if room == self._room or request.prompt_logprobs or answer.text or answer.finish_reason != "length":
                    return answer

    def _notice_thinking(self) -> None:
        if self._room or not self._thinking_tokens:
            return
        self._room = room_to_think(self._thinking_tokens, self._context)
        log.warning("%s: the model %s", self.url, THINKS)

    async def _ask(self, inputs: str, tokens: int, fields: Fields) -> tuple[Any, Mapping[str, str]]:
        parameters = {**_FIXED, "max_new_tokens": tokens, **fields}
        told = most_tokens(inputs) if fields.get(TGI_FIELD) else 0
        limit = generation_limit(tokens, fields.get("top_n_tokens", 1), told)
        return await self._server.post("/generate", {"inputs": inputs, "parameters": parameters}, limit=limit)

    async def _accepts(self, fields: Fields) -> bool:
        try:
            await self._ask(_SHORT, 1, fields)
        except RejectedError:
            return False
        return True

    async def _load_template(self) -> ChatTemplate:
        async with self._lock:
            if self._template is None:
                named = self._spec.tokenizer
                if named in ("", CHARACTERS):  # which counts, and writes no chats
                    named = await self._own_tokenizer()
                self._template = await in_thread(partial(load_template, named, self._spec))
            return self._template

    async def _own_tokenizer(self) -> str:
        """The name of the model's own tokenizer."""
        name: str = self._spec.model or (await self._server.get("/info"))["model_id"]
        return name


def _fields(request: Request) -> Fields:
    """The parameters that a request sets; TGI refuses values that mean the same as leaving them out."""
    fields: Fields = {}
    if request.temperature > 0:
        fields |= {"do_sample": True, "temperature": request.temperature}
        if request.top_p < 1:
            fields["top_p"] = request.top_p
        if request.seed is not None:
            fields["seed"] = request.seed + 1  # TGI's description demands a seed above 0
    if request.repetition_penalty != 1:
        fields["repetition_penalty"] = request.repetition_penalty
    if request.stop:
        fields["stop"] = request.stop[:_MOST_STOPS]  # the answer is cut at the others here
    if request.top_logprobs:
        fields["top_n_tokens"] = request.top_logprobs
    if request.prompt_logprobs:
        fields[TGI_FIELD] = True
    if request.schema is not None:
        fields["grammar"] = {"type": "json", "value": request.schema}
    elif request.choices:
        fields["grammar"] = {"type": "regex", "value": one_of(request.choices)}
    return fields


@hookimpl
def kun_engines() -> list[Engine]:
    """Text Generation Inference."""
    return [Engine(name="tgi", connect=connect)]
