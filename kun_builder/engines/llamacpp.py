"""The `llamacpp` engine, the embedded default: a real small model in llama.cpp's own server, started and stopped here.

The server runs in a child process on a free port of 127.0.0.1 and is then an OpenAI-style endpoint like any other. Two
models of a recipe with the same weights and options share one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from kun_builder.engines import openai, transformers
from kun_builder.engines.child_server import Child, cores, in_thread, shared_server
from kun_builder.engines.http import Server, open_session
from kun_builder.engines.late import LateEndpoint
from kun_builder.engines.manners import ThinkingOption, thinking_of
from kun_builder.engines.openai import OpenAIEndpoint
from kun_builder.engines.weights import DEFAULT, find_weights
from kun_builder.hookspecs import hookimpl
from kun_builder.types import Endpoint, Engine, ModelSpec

kun_api = 1

_CONTEXT = 4096
"""Tokens of context for each slot, unless the recipe gives `context_length`."""

_LINGER = 0.05
"""Seconds for which a slot is kept for the next request of its row: next to nothing beside reading the text again."""

_QUEUE = 8
"""Factor on `timeout`: the first requests of a run wait behind others, and a time-out would only ask again."""

_HINT = "the file may be damaged or unknown to llama.cpp, or memory too short for `slots` x `context_length`"


@asynccontextmanager
async def connect(
    spec: ModelSpec, *, threads: int = 0, slots: int = 4, thinking: ThinkingOption = "auto"
) -> AsyncIterator[Sequence[Endpoint]]:
    """Fetch the weights if need be, start the server, yield its endpoint, stop it. Where it has been started before, it
    starts at the first request: a run whose answers are all in the journal loads no model.

    `model` is a known name, a GGUF path or `org/repo/file.gguf`. `threads` 0 means one per physical core; `slots`
    requests are answered at once, each with `context_length` tokens (default 4,096): four give half as many tokens
    again per second of CPU as one, eight hardly more than four. A folder with safetensors, such as a trained one, is
    served by the `transformers` engine. `thinking` is as for `openai`. With `endpoints` given nothing is started.
    """
    if not spec.endpoints and transformers.is_model_folder(spec.model):
        async with transformers.connect(spec, threads=threads) as endpoints:
            yield endpoints
        return
    if spec.endpoints:
        async with openai.connect(spec, thinking=thinking) as endpoints:
            yield endpoints
        return
    model = spec.model or DEFAULT
    weights = await in_thread(lambda: find_weights(model, spec.revision))
    setup = {"path": str(weights.path), "name": weights.id, "threads": threads or cores(), "slots": slots}
    setup["context_length"] = spec.context_length or _CONTEXT
    child = Child.of("kun_builder.engines.llama_child", setup, path=str(weights.path), hint=_HINT)
    facts = {"id": weights.id, "revision": weights.sha256, "license": weights.license}
    facts["tokenizer"] = spec.tokenizer or (model if weights.license else str(weights.path))

    @asynccontextmanager
    async def start() -> AsyncIterator[Endpoint]:
        async with shared_server(child, spec.wait) as url, open_session() as session:
            server = Server(session, url, timeout=spec.timeout * _QUEUE)
            asked = replace(spec, model=weights.id, revision="")
            yield OpenAIEndpoint(server, asked, facts, thinking=thinking_of(thinking))

    decisive = [child.parameters, facts, spec.prompt, thinking_of(thinking)]
    # No request waits at the server: the slot that is free is then the one that has read the text of the row that asks.
    async with LateEndpoint(weights.id, decisive, start, in_flight=slots, linger=_LINGER) as endpoint:
        yield [endpoint]


@hookimpl
def kun_engines() -> list[Engine]:
    """The embedded model."""
    return [Engine(name="llamacpp", connect=connect)]
