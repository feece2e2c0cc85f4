"""The `openai` engine: `/v1/chat/completions` and `/v1/completions` as TGI, vLLM, SGLang, llama.cpp, `transformers
serve` and the Hugging Face Inference Providers speak them.

Messages go to the chat route, strings to the completion route. Beyond model, prompt and `max_tokens` every field is
optional: it is sent only where a request sets it, and left out where the server refuses it (`engines.field_support`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from kun_builder.engines.answers import message_text, openai_answer, swallowed_yes
from kun_builder.engines.bodies import generation_limit
from kun_builder.engines.child_server import in_thread
from kun_builder.engines.field_support import Fields, Refusals
from kun_builder.engines.forced import Forced
from kun_builder.engines.http import Post, Server, open_servers
from kun_builder.engines.manners import (
    CURES,
    SHORT_TOKENS,
    THINKING_TOKENS,
    THINKS,
    Kind,
    Manners,
    Thinking,
    ThinkingOption,
    all_manners,
    check_extra,
    no_secrets,
    optional_fields,
    room_to_think,
    short_question,
    switched,
    thinking_of,
    variant_of,
)
from kun_builder.engines.origin import Fingerprint
from kun_builder.engines.probe import Facts, enough_for, is_healthy, load_of, model_facts, token_count
from kun_builder.engines.prompt_tokens import FIELD, most_tokens
from kun_builder.engines.reasoning import Habits, ends_without_beginning, starts_to_think
from kun_builder.engines.tokenizers import token_counter
from kun_builder.errors import FatalError, RejectedError, RequestError, TransientError
from kun_builder.hookspecs import hookimpl
from kun_builder.types import Completion, Endpoint, Engine, Message, ModelInfo, ModelSpec, Request

kun_api = 1
log = logging.getLogger(__name__)

_PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}
_BROKEN_BY_INPUT = frozenset({500})  # what some servers answer where a chat template raises
_TRIAL_TOKENS = 512  # what a model that thinks needs, at most, to say yes
_FORM_TOKENS = 48  # besides those of a short answer, for a small piece of JSON with white space
_TRIAL = Request("", SHORT_TOKENS, temperature=0.5, top_p=0.95, seed=0, top_logprobs=5)
"""All that the stages send: what a server refuses is found out before a row pays for it."""


@asynccontextmanager
async def connect(
    spec: ModelSpec,
    *,
    extra_body: Annotated[dict[str, Any] | None, AfterValidator(no_secrets)] = None,
    thinking: ThinkingOption = "auto",
    thinking_tokens: Annotated[int, Field(ge=0)] = THINKING_TOKENS,
) -> AsyncIterator[Sequence[Endpoint]]:
    """Endpoints at OpenAI-style servers; nothing is asked yet.

    extra_body: further fields of every request, for example `{top_k: 20, chat_template_kwargs: {...}}`. Answers to
        other fields are other answers: they are part of the journal's key.
    thinking: `off` and `on` switch a model's reasoning in the way that the server takes, `auto` leaves it as it is.
        Reasoning is taken off the answer either way.
    thinking_tokens: room that a model which thinks gets besides the tokens of its answer.
    """
    check_extra(spec.name, extra_body or {})
    async with open_servers(spec) as servers:
        settings: dict[str, Any] = {"thinking": thinking_of(thinking), "thinking_tokens": thinking_tokens}
        yield [OpenAIEndpoint(server, spec, extra=extra_body, **settings) for server in servers]


class OpenAIEndpoint:
    """One OpenAI-style server. `facts` replace what it says about itself, such as a digest unknown to llama.cpp. With
    `asked` false it is not asked at all: transformers' server would list its cache instead of its model.
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
        thinking_tokens: int = THINKING_TOKENS,
        carrier: Post | None = None,
    ) -> None:
        """carrier: sends the requests of rows, for example in batches; trial questions at the start go directly."""
        self.url, self.in_flight, self.running = server.url, 0, 0
        self._carrier = carrier or server.post
        self._server = server
        self._spec = spec
        self._facts = dict(facts or {})
        self._asked = asked
        self._about: ModelInfo | None = None
        self._model = spec.model
        self._fingerprint = Fingerprint(server.url)
        self._owner, self._penalty = "", "repetition_penalty"
        self._refusals = Refusals(server.url)
        self._forced = Forced(server.url, self._forced_answer)
        self._lock = asyncio.Lock()
        self._extra = dict(extra or {})
        self._thinking: Thinking = thinking
        self._thinking_tokens = thinking_tokens
        self._room = self._fits = 0
        self._habits = Habits()
        self._trying = False
        self._manners: dict[Kind, Manners] = {}
        self._count: Callable[[str], int] | None = None

    async def info(self) -> ModelInfo:
        """Who answers here. Asks short questions to find out how the server wants to be asked, whether
        log-probabilities come with an answer, and whether the model thinks first."""
        about = await self._introduce()
        self._room, self._habits, self._trying = 0, Habits(), True
        try:
            await self._learn_manners(about.prompt)
            trial = replace(_TRIAL, prompt=short_question(about.prompt))
            answer = await self.complete(trial)
            await self._learn_habits(about.prompt, answer)
            if self._habits.thinks:
                self._notice_thinking(about.context_length)
            if self._habits.thinks or self._habits.swallows:  # only now an answer is to be seen
                answer = await self.complete(trial)
        finally:
            self._trying = False
        context = max(0, about.context_length - self._room)
        logprobs = any(token.top for token in answer.tokens)
        return replace(
            about,
            context_length=context,
            logprobs=logprobs,
            fingerprint=self._fingerprint.last,
            prompt_logprobs=await self._tells_of_prompts(),
        )

    async def _tells_of_prompts(self) -> bool:
        """Whether the server gives log-probabilities of a prompt. Only vLLM is asked: no other server of this kind has
        them, and some would refuse the field."""
        if self._owner != "vllm":
            return False
        try:
            body = await self._tried("completion", {FIELD: 0})
        except FatalError:  # it has no route for raw prompts
            return False
        return not isinstance(body, RequestError) and bool(self._read(body).prompt_logprobs)

    async def _learn_habits(self, kind: Kind, answer: Completion) -> None:
        """Learn whether the model thinks where a short answer does not show it: the template may write the opening tag,
        or the server's parser may take the answer itself for reasoning."""
        habits = self._habits
        if answer.tokens and starts_to_think(answer.tokens[0].text):
            habits.thinks = True
        unclear = answer.finish_reason == "length" and not habits.thinks and not self._facts
        if kind != "chat" or (answer.finish_reason in ("stop", "length") and not unclear):
            return
        body = await self._ask(kind, short_question(kind), _TRIAL_TOKENS, {})
        if unclear:
            habits.opens = ends_without_beginning(message_text(body))
            self._read(body)
            return
        habits.swallows = swallowed_yes(body, self.url, self._server.shown)
        habits.thinks = habits.thinks and not habits.swallows

    def _notice_thinking(self, context: int) -> None:
        self._room = room_to_think(self._thinking_tokens, context)
        log.warning("%s: %s %s%s", self.url, self._model, THINKS, CURES[self._thinking])

    async def _learn_manners(self, kind: Kind) -> None:
        """Try the ways to ask until one is taken. Raises what the usual one raises if none is."""
        if kind in self._manners:
            return
        refused: RequestError | None = None
        for manners in all_manners(kind):
            error = await self._try(kind, manners)
            if error is None:
                if refused is not None:
                    log.warning("%s: %s; asked with %s from now on", self.url, refused.message, manners.told)
                self._manners[kind] = await self._switch(kind, manners)
                return
            refused = refused or error
        assert refused is not None
        if isinstance(refused, TransientError):
            raise refused
        raise FatalError(
            f"{self.url} refuses even a short question: {refused.message}",
            status=refused.status,
            endpoint=self.url,
            hint="check `model` and `prompt` (chat or completion) of this model, and its `extra_body`",
        )

    async def _switch(self, kind: Kind, manners: Manners) -> Manners:
        """The manners with thinking switched as the recipe wants it: by the first way that has an effect, else by the
        first that the server accepts, else not at all."""
        taken = None
        for way in switched(manners, self._thinking) if kind == "chat" else ():
            self._habits = Habits()
            if await self._try(kind, way) is None:
                if self._thinking == "on" or not self._habits.thinks:
                    return way
                taken = taken or way
        self._habits = Habits()
        return taken or manners

    async def _try(self, kind: Kind, manners: Manners) -> RequestError | None:
        """Ask a short question in this way; returns the error if the server refuses it, else None."""
        body = await self._tried(kind, {}, manners)
        if isinstance(body, RequestError):
            return body
        self._read(body)
        self._habits.thinks = self._habits.thinks and not swallowed_yes(body, self.url, self._server.shown)
        return None

    async def healthy(self) -> bool:
        """Whether requests can be sent now."""
        return await is_healthy(self._server)

    async def queued(self) -> int | None:
        """Requests waiting at the server, by its `/metrics`."""
        waiting, self.running = await load_of(self._server)
        return waiting

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
        forced = await self._forced.fields(kind, request)
        refusals = self._refusals
        while True:
            lessons = refusals.lessons
            fields = refusals.apply(optional_fields(request, kind, self._penalty) | forced)
            room = 0 if request.prompt_logprobs else self._room
            try:
                post = self._server.post if self._trying else self._carrier
                body = await self._ask(kind, request.prompt, request.max_new_tokens + room, fields, post=post)
            except (RejectedError, TransientError) as error:
                if not self._refused(error):
                    raise
                if room and await self._takes_less_room(kind, room):
                    continue
                if not await refusals.blame(fields, lessons, partial(self._accepts, kind), kind):
                    raise
                continue
            stop = request.stop if "stop" in refusals.names else ()
            answer = self._read(body, stop, forced=bool(forced), most=request.max_new_tokens + room)
            if not self._habits.thinks or room or self._trying or not self._thinking_tokens or request.prompt_logprobs:
                return answer
            if not self._room:  # the start has not shown it
                self._notice_thinking(self._about.context_length if self._about else 0)
            if answer.finish_reason != "length" or answer.text:
                return answer

    def _refused(self, error: RequestError) -> bool:
        """Whether the request's fields may be to blame: any refusal; at the start also a server that breaks down."""
        return isinstance(error, RejectedError) or (self._trying and error.status in _BROKEN_BY_INPUT)

    def _read(self, body: Any, stop: Sequence[str] = (), *, forced: bool = False, most: int = 0) -> Completion:
        """Read an answer. If it was `forced` into a form, text without an end tag is the answer and no thought."""
        habits, shown = self._habits, self._server.shown
        if forced and habits.opens:
            habits = Habits(thinks=True)
        known: dict[str, Any] = {"reasoning_is_answer": habits.swallows, "habits": habits, "most": most}
        return openai_answer(body, self.url, stop, shown=shown, **known)

    async def _introduce(self) -> ModelInfo:
        facts = await model_facts(self._server, self._spec) if self._asked else Facts(ModelInfo(self._spec.model))
        self._model = self._model or facts.info.id
        self._owner = facts.owner
        self._penalty = "repeat_penalty" if facts.owner == "llamacpp" else "repetition_penalty"
        self.in_flight = enough_for(facts.slots)
        variant = variant_of(self._extra, self._thinking, self._thinking_tokens)
        self._about = replace(facts.info, **{"variant": variant, **self._facts})
        return self._about

    async def _ask(
        self,
        kind: Kind,
        prompt: str | Sequence[Message],
        tokens: int,
        fields: Fields,
        manners: Manners | None = None,
        post: Post | None = None,
    ) -> Any:
        manners = manners or self._manners.get(kind) or Manners()
        body = manners.body(self._model, prompt, tokens, {**fields, **self._extra})
        told = most_tokens(prompt) if FIELD in fields else 0
        limit = generation_limit(tokens, fields.get("top_logprobs") or fields.get("logprobs") or 0, told)
        answer = (await (post or self._server.post)(_PATHS[kind], body, limit=limit))[0]
        self._fingerprint.notice(answer)
        return answer

    async def _accepts(self, kind: Kind, fields: Fields) -> bool:
        return not isinstance(await self._tried(kind, fields), RequestError)

    async def _takes_less_room(self, kind: Kind, room: int) -> bool:
        """Halve the room to think if even a short question is refused with it, since the context is smaller than the
        server or the recipe says. Returns whether there is less room now than `room`."""
        async with self._lock:
            if room == self._room != self._fits:
                refused = isinstance(await self._tried(kind, {}, room=room), RequestError)
                self._room, self._fits = (room // 2, 0) if refused else (room, room)
            return self._room < room

    async def _tried(self, kind: Kind, fields: Fields, manners: Manners | None = None, room: int = 0) -> Any:
        """The answer to a short question, or the error of a server that refuses it or breaks by it."""
        try:
            return await self._ask(kind, short_question(kind), SHORT_TOKENS + room, fields, manners)
        except (RejectedError, TransientError) as error:
            if isinstance(error, TransientError) and error.status not in _BROKEN_BY_INPUT:
                raise
            return error

    async def _forced_answer(self, kind: Kind, fields: Fields) -> str:
        """What the server answers to a short question that demands a form; empty if it refuses."""
        body = await self._tried(kind, fields, room=self._room + _FORM_TOKENS)
        return "" if isinstance(body, RequestError) else openai_answer(body, self.url).text


@hookimpl
def kun_engines() -> list[Engine]:
    """The OpenAI protocol, as most servers speak it."""
    return [Engine(name="openai", connect=connect)]
