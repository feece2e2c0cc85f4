"""A server of kun-builder's own that starts at the first request, if an earlier start has noted who answers there.

What a model is follows from its weights and settings, so it is noted in the user's cache; a run whose answers are all
in the journal then loads no model.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import kun_builder
from kun_builder.cache import cache_folder, write_note
from kun_builder.types import Completion, Endpoint, ModelInfo, Request

log = logging.getLogger(__name__)


class LateEndpoint:
    """Opens an endpoint by `start` at the first request, or at once if there is no note yet of who answers there."""

    def __init__(
        self,
        name: str,
        settings: object,
        start: Callable[[], AbstractAsyncContextManager[Endpoint]],
        in_flight: int = 0,
        linger: float = 0.0,
    ) -> None:
        """`settings`: all that decides who answers, weights included, as JSON. `start` opens the endpoint. `in_flight`
        and `linger` are those of `Endpoint`."""
        key = hashlib.sha256(json.dumps([kun_builder.__version__, settings]).encode()).hexdigest()[:32]
        self._note = cache_folder() / "embedded" / f"{key}.json"
        self.url = f"the embedded {name}"
        """A name for people until the server is started, then its address."""
        self.in_flight, self.linger = in_flight, linger
        self._start = start
        self._noted: ModelInfo | None = None
        self._endpoint: Endpoint | None = None
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._noted = _read(self._note)
        if self._noted is None:
            self._endpoint = await self._stack.enter_async_context(self._start())
            self.url = self._endpoint.url
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def info(self) -> ModelInfo:
        """Who answers: from the note of an earlier start, or from the started server."""
        if self._endpoint is None and self._noted:
            return self._noted
        info = await (await self._started()).info()
        self._remember(info)
        return info

    async def healthy(self) -> bool:
        """Whether requests can be sent now: also before it is started."""
        return self._endpoint is None or await self._endpoint.healthy()

    async def queued(self) -> int | None:
        """Requests that wait at the server."""
        return await self._endpoint.queued() if self._endpoint else None

    async def complete(self, request: Request) -> Completion:
        """One request; the first one waits for the server."""
        return await (self._endpoint or await self._started()).complete(request)

    async def count_tokens(self, text: str) -> int:
        """Tokens of `text`, by the server."""
        return await (self._endpoint or await self._started()).count_tokens(text)

    async def _started(self) -> Endpoint:
        async with self._lock:
            if self._endpoint is None:
                endpoint = await self._stack.enter_async_context(self._start())
                self._remember(await endpoint.info())  # which also learns how it wants to be asked
                self._endpoint, self.url = endpoint, endpoint.url
            return self._endpoint

    def _remember(self, info: ModelInfo) -> None:
        try:
            write_note(self._note, asdict(info))
        except OSError:  # the next run starts the server at once
            log.info("cannot write %s", self._note)


def _read(note: Path) -> ModelInfo | None:
    try:
        noted = json.loads(note.read_bytes())
        facts: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in noted.items()}
        return ModelInfo(**facts)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
