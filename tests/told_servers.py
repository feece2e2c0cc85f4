"""Servers of a pool that answer when a test tells them to, in this process."""

from __future__ import annotations

import asyncio

from served_models import ask_for

from kun_builder.models.pool import Pool
from kun_builder.status import Status
from kun_builder.types import Completion


class Server:
    """An endpoint. Each request waits for `answer` or `fail`, in the order in which they came."""

    def __init__(self, name="a", queue=None, running=0):
        self.url, self._queue, self.running = f"http://{name}", queue, running
        self.waiting = []
        self.looks = 0

    async def complete(self, request):
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return await future

    async def queued(self):
        self.looks += 1
        return self._queue

    async def healthy(self):
        return True

    async def count_tokens(self, text):
        return len(text)

    def answer(self):
        self.waiting.pop(0).set_result(Completion("答", prompt_tokens=5, completion_tokens=10))

    def fail(self, error):
        self.waiting.pop(0).set_exception(error)


async def turns(count=20):
    """Let everything happen that happens without waiting."""
    for _ in range(count):
        await asyncio.sleep(0)


def pool(*servers, said=None, **settings):
    return Pool("chat", servers, Status(say=(said if said is not None else []).append), **settings)


def ask(own, number=1, **where):
    return asyncio.create_task(own.ask(ask_for(number), "label", **where))
