"""Servers in a child process of ours: started, waited for, shared, and gone whenever this process is.

The child is a module with `main()`, run as `python -m MODULE '{...}'`: it calls `follow_parent()`, loads its model,
prints its address as one line, and serves. Two models of a recipe with the same weights and options share one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson

from kun_builder.errors import ModelError

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Child:
    """What a server process is started with. Two models whose `Child` is equal share one server.

    module: the Python module that runs. parameters: what it is told, as JSON. path: the weights, for messages.
    hint: the cure in the error message if it does not start.
    """

    module: str
    parameters: str
    path: str
    hint: str = ""

    @classmethod
    def of(cls, module: str, parameters: Mapping[str, object], *, path: str, hint: str) -> Child:
        """The child that runs `module` with `parameters`."""
        return cls(module, orjson.dumps(parameters).decode(), path, hint)


class ChildServer:
    """A server as a child process. It ends when its stdin is closed, so also when this process is killed."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.users = 0
        self.url = ""
        self.lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, patience: float) -> None:
        """Start the child and wait, `patience` seconds at most, until its model is loaded.

        Raises ModelError with the end of the child's log.
        """
        started = time.monotonic()
        log.info("starting a server for %s", self.child.path)
        with tempfile.TemporaryFile() as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", self.child.module, self.child.parameters),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={"GOMP_SPINCOUNT": "2000", **os.environ},  # OpenMP's own spinning starves a busy machine
                start_new_session=True,  # Ctrl-C is for this process, which then ends the child
            )
            self.url = await self._first_line(patience)
            if not self.url.startswith("http://"):
                await self.stop()
                errors.seek(0)
                raise ModelError(_failure(self.child, patience, errors.read()), hint=self.child.hint)
        log.info("%s is ready after %.1f s", self.child.path, time.monotonic() - started)

    async def _first_line(self, patience: float) -> str:
        if self._process is None or self._process.stdout is None:
            return ""
        try:
            return (await asyncio.wait_for(self._process.stdout.readline(), patience)).decode().strip()
        except TimeoutError:
            return ""

    async def stop(self) -> None:
        """End the child: by closing its stdin, and by force if it does not follow."""
        process, self._process, self.url = self._process, None, ""
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 3)
        except TimeoutError:
            process.kill()
            await process.wait()


def _failure(child: Child, patience: float, said: bytes) -> str:
    tail = " | ".join(said.decode("utf-8", "replace").strip().splitlines()[-5:]) or "it said nothing"
    return f"the embedded server did not load {child.path} within {patience:.0f} s: {tail}"


_servers: dict[tuple[asyncio.AbstractEventLoop, Child], ChildServer] = {}


@asynccontextmanager
async def shared_server(child: Child, patience: float) -> AsyncIterator[str]:
    """The address of the one server with this set-up, started by its first user and stopped by its last.

    patience: seconds that it has to load. Raises ModelError if it does not.
    """
    key = asyncio.get_running_loop(), child
    server = _servers.setdefault(key, ChildServer(child))
    server.users += 1
    try:
        async with server.lock:
            if not server.url:
                await server.start(patience)
        yield server.url
    finally:
        server.users -= 1
        if not server.users:
            del _servers[key]
            await server.stop()


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a daemon thread, which unlike that of an executor does not delay the end of the process."""
    result: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # whatever it is, it belongs to the coroutine that waits
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.shield(asyncio.wrap_future(result))


def cores() -> int:
    """Physical cores that this process may use: more threads than these slow a model down."""
    import psutil  # type: ignore[import-untyped]

    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed, _quota()))


def _quota() -> int:
    """CPUs that the container's limit allows."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no such limit, or `max`
        return sys.maxsize


# --- in the child ----------------------------------------------------------------------------------------------


def follow_parent() -> None:
    """From now on, end this process when its stdin is closed, or when the parent is gone (a fork of it may still hold
    the pipe)."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def report(address: str) -> None:
    """Print the address for the parent. What is printed later goes to the log, since the pipe is not read any more."""
    print(address, flush=True)
    os.dup2(2, 1)


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin], [], [], 1.0)
        if readable and not os.read(sys.stdin.fileno(), 1):
            break
    os._exit(0)  # a clean shutdown would wait for the requests in flight, whose client is gone
