"""Models over test servers: what the tests of the serving layer share."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

from kun_builder.engines.openai import kun_engines
from kun_builder.models.generator import open_models
from kun_builder.models.journal.journal import Journal
from kun_builder.status import Status
from kun_builder.types import ModelSpec, Request

ENGINES = {engine.name: SimpleNamespace(value=engine) for engine in kun_engines()}


def run(main):
    """Run a test's coroutine."""
    return asyncio.run(main())


def ask_for(number, **changes):
    """A request that differs from others by its number."""
    return Request(({"role": "user", "content": f"第{number}篇"},), **changes)


async def until(happens):
    """Wait for something that others bring about, in other processes too; not for ever."""
    async with asyncio.timeout(100):
        while not await asyncio.to_thread(happens):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def models(folder, *servers, status=None, names=("chat",), **settings):
    """A generator over the servers' endpoints."""
    urls = tuple(server.url for server in servers)  # none, where `settings` name an `endpoints_file`
    specs = {name: ModelSpec(name=name, engine="openai", endpoints=urls, **settings) for name in names}
    async with open_models(specs, ENGINES, Journal.open(folder), status or Status()) as generator:
        yield generator
