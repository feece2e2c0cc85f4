"""A server in the manner of llama.cpp's on a slow machine: it cannot even tell its health while requests hold it.

Each request holds one of few threads until it is answered, so that more than these wait to be heard at all; all but
`/health` is done between two steps of its work, each of which takes long.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from servers.loopback import loopback


class FullThreads:
    """The server's state. `asked` counts how often it was asked what, `most` how many requests it held at once."""

    def __init__(self, slots: int, threads: int, step: float, tells: bool) -> None:
        self.asked: Counter[str] = Counter()
        self.url = ""
        self.most = 0
        self.hangs = False
        """Whether it answers nothing any more, though it takes connections."""
        self.step, self._held, self._tells, self._slots = step, 0, tells, slots
        self._ends = asyncio.Event()
        self._threads, self._free = asyncio.Semaphore(threads), asyncio.Semaphore(slots)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        if request.path == "/v1/chat/completions":
            body = json.loads(await request.text())
            return await self._chat(body["messages"][-1]["content"])
        async with self._threads:
            await self._hang()
            if request.path == "/health":
                return web.Response()
            if request.path == "/v1/models":
                return web.json_response({"data": [{"id": "m", "owned_by": "llamacpp", "max_model_len": 4096}]})
            if request.path == "/props" and self._tells:
                return web.json_response({"total_slots": self._slots})
            if request.path == "/metrics":
                if self._held:
                    await self._end_of_step()
                return web.Response(text=f"llamacpp:requests_deferred {max(0, self._held - self._slots)}\n")
            return web.Response(status=404)

    def end(self) -> None:
        """Hang no longer, so that it can be closed."""
        self._ends.set()

    async def _chat(self, question: str) -> web.StreamResponse:
        if "Say yes." not in question:  # no question of the start
            self.asked[question] += 1
            self._held += 1
            self.most = max(self.most, self._held)
            try:
                async with self._threads, self._free:
                    await self._end_of_step()
                    await asyncio.sleep(self.step)
                    await self._hang()
            finally:
                self._held -= 1
        choice = {"message": {"content": "答"}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})

    async def _end_of_step(self) -> None:
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(self.step - now % self.step)

    async def _hang(self) -> None:
        if self.hangs:
            await self._ends.wait()


@asynccontextmanager
async def full_threads(
    slots: int = 4, threads: int = 8, step: float = 0.1, *, tells: bool = False
) -> AsyncIterator[FullThreads]:
    """A server at `.url`. `tells`: whether it says how many slots it has."""
    server = FullThreads(slots, threads, step, tells)
    async with loopback(server.handle) as server.url:
        yield server
        server.end()
