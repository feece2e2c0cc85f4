"""The `openai-batch` engine: chats and completions by way of OpenAI's Batch API, at half the price, within a day.

Stages ask as ever; their requests wait until all rows that may be under way have asked, and go out as one file. Each
request of a row that depends on another one's answer is a batch later. The few questions of the start are asked singly.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from kun_builder.cache import cache_folder
from kun_builder.engines.batches import Batches
from kun_builder.engines.http import open_servers
from kun_builder.engines.manners import THINKING_TOKENS, ThinkingOption, check_extra, no_secrets, thinking_of
from kun_builder.engines.openai import OpenAIEndpoint
from kun_builder.hookspecs import hookimpl
from kun_builder.types import Completion, Endpoint, Engine, ModelInfo, ModelSpec, Request

kun_api = 1

_AT_ONCE = 10_000


@asynccontextmanager
async def connect(
    spec: ModelSpec,
    *,
    linger: Annotated[float, Field(gt=0)] = 30.0,
    poll: Annotated[float, Field(gt=0)] = 30.0,
    extra_body: Annotated[dict[str, Any] | None, AfterValidator(no_secrets)] = None,
    thinking: ThinkingOption = "auto",
    thinking_tokens: Annotated[int, Field(ge=0)] = THINKING_TOKENS,
) -> AsyncIterator[Sequence[Endpoint]]:
    """Endpoints at batch APIs. `concurrency` of the model is how many requests wait at once, and so how many a batch
    has: 10,000 by default, at most 50,000. A run that is killed goes on with the batches that it has made.

    `cost` of the model is what batches cost, which price lists have beside the usual price.

    linger: seconds without another request after which a batch is sent, full or not.
    poll: seconds between two looks at a batch.
    extra_body, thinking, thinking_tokens: as for `openai`.
    """
    check_extra(spec.name, extra_body or {})
    settings: dict[str, Any] = {"thinking": thinking_of(thinking), "thinking_tokens": thinking_tokens}
    most = spec.concurrency or _AT_ONCE
    async with open_servers(spec) as servers, AsyncExitStack() as stack:
        endpoints = []
        for server in servers:
            named = hashlib.sha256(f"{server.url} {spec.model}".encode()).hexdigest()[:32]
            batches = Batches(
                server, cache_folder() / "batches" / named, most=most, linger=linger, poll=poll, wait=spec.wait
            )
            await stack.enter_async_context(batches)
            endpoint = OpenAIEndpoint(server, spec, extra=extra_body, carrier=batches.post, **settings)
            endpoints.append(BatchEndpoint(endpoint, most))
        yield endpoints


class BatchEndpoint:
    """An OpenAI-style endpoint whose answers come in batches."""

    def __init__(self, endpoint: OpenAIEndpoint, at_once: int) -> None:
        self.url, self._endpoint = endpoint.url, endpoint
        self.in_flight = at_once

    async def info(self) -> ModelInfo:
        """Who answers here. This is asked directly, not in a batch."""
        return await self._endpoint.info()

    async def healthy(self) -> bool:
        """Always True: a day without an answer is normal, and `Batches` itself waits for an API out of reach."""
        return True

    async def queued(self) -> int | None:
        """Always None: the API does not tell."""
        return None

    async def complete(self, request: Request) -> Completion:
        """The answer, when a batch has it."""
        return await self._endpoint.complete(request)

    async def count_tokens(self, text: str) -> int:
        """Number of tokens of `text`, by the server's tokenizer, asked directly, or by the model's, loaded here."""
        return await self._endpoint.count_tokens(text)


@hookimpl
def kun_engines() -> list[Engine]:
    """Batch APIs in the form of OpenAI's."""
    return [Engine(name="openai-batch", connect=connect, collects=True)]
