"""Endpoints that a file lists, one address a line: servers that come and go while a run goes on.

    http://gpu1:8000
    http://gpu2:8000    # what is after a `#` is for people

The file is looked at every few seconds. A server that is new in it joins once it answers and serves the same model; one
that is no longer in it is given nothing more, and what it is working on is waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from kun_builder.errors import KunError, ModelError, TransientError
from kun_builder.models.pool import Pool
from kun_builder.recipe.parts import url_fault
from kun_builder.status import Status
from kun_builder.types import Endpoint, ModelInfo, ModelSpec

LOOK = 2.0
"""Seconds between two looks at the file."""
_STRANGER = 60.0  # seconds until a server that is not what it should be is asked again

Open = Callable[[AsyncExitStack, str], Awaitable[Endpoint]]
"""The endpoint at an address, until the stack is closed."""


class Roster:
    """The endpoints of one model that a file lists. `async with` closes them."""

    def __init__(self, spec: ModelSpec, open_: Open, status: Status) -> None:
        self._model, self._path, self._wait = spec.name, Path(spec.endpoints_file), spec.wait
        self._open, self._status = open_, status
        self._said: set[str] = set()
        self._here: dict[str, tuple[AsyncExitStack, Endpoint]] = {}
        """The endpoints that the pool has now, by their line in the file."""
        self._joining: set[str] = set()

    async def __aenter__(self) -> Roster:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for stack, _ in self._here.values():
            await stack.aclose()

    async def first(self) -> list[tuple[Endpoint, ModelInfo]]:
        """The endpoints that answer now, with who they say they are. Waits until there is one, for at most the model's
        `wait`; then raises ModelError."""
        began, why = time.monotonic(), None
        while True:
            known = []
            for line in await asyncio.to_thread(self._read) or ():
                stack = AsyncExitStack()
                endpoint = await self._open(stack, line)
                try:
                    known.append((endpoint, await endpoint.info()))
                except TransientError as error:
                    why = error
                    await stack.aclose()
                else:
                    self._here[line] = stack, endpoint
            if known:
                return known
            if time.monotonic() - began >= self._wait:
                raise ModelError(
                    f"model `{self._model}`: nobody answers of those in {self._path}: {why or 'it lists none'}",
                    hint="write addresses of servers into it, one a line, also while kun-build waits for them",
                )
            self._say(f"model `{self._model}`: waiting up to {self._wait:g} s for a server in {self._path}")
            await asyncio.sleep(min(LOOK, self._wait))

    @asynccontextmanager
    async def following(self, pool: Pool, check: Callable[[Endpoint], Awaitable[None]]) -> AsyncIterator[None]:
        """During the block, give the pool the endpoints that the file lists, and take those away that it lists no more.

        check: asked before an endpoint joins; it raises KunError for one that must not.
        """
        task = asyncio.create_task(self._follow(pool, check))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _follow(self, pool: Pool, check: Callable[[Endpoint], Awaitable[None]]) -> None:
        missing: set[str] = set()
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(LOOK)
                listed = await asyncio.to_thread(self._read)
                if listed is None:
                    continue
                gone = set(self._here) - set(listed)
                for line in gone & missing:  # twice: once, the file may be half written
                    tasks.create_task(self._leave(line, pool))
                missing = gone
                for line in set(listed) - set(self._here) - self._joining:
                    tasks.create_task(self._join(line, pool, check))

    async def _join(self, line: str, pool: Pool, check: Callable[[Endpoint], Awaitable[None]]) -> None:
        self._joining.add(line)
        stack = AsyncExitStack()
        try:
            endpoint = await self._open(stack, line)
            await check(endpoint)
            await pool.add(endpoint)
        except TransientError:
            await stack.aclose()
        except KunError as error:
            await stack.aclose()
            self._say(f"{error.message}: not taken")
            await asyncio.sleep(_STRANGER)
        else:
            self._here[line] = stack, endpoint
            self._status.say(f"model `{self._model}`: {endpoint.url} joins")
        finally:
            self._joining.discard(line)

    async def _leave(self, line: str, pool: Pool) -> None:
        stack, endpoint = self._here.pop(line)
        (member,) = (member for member in pool.members if member.endpoint is endpoint)
        self._status.say(
            f"model `{self._model}`: {endpoint.url} leaves; {member.window.in_flight} requests are waited for there"
        )
        await pool.remove(member)
        await stack.aclose()

    def _read(self) -> list[str] | None:
        """The addresses, each once; None if the file cannot be read just now. Wrong lines are left out, and the user is
        told."""
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return None
        listed = dict.fromkeys(filter(None, (line.partition("#")[0].strip() for line in lines)))
        faults = {line: fault for line in listed if (fault := url_fault(line))}
        for fault in faults.values():
            self._say(f"{self._path}: {fault}; the line is left out")
        return [line for line in listed if line not in faults]

    def _say(self, message: str) -> None:
        """Tell the user, but only once for each message."""
        if message not in self._said:
            self._said.add(message)
            self._status.say(message)
