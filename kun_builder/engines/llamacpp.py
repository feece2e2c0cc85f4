"""The `llamacpp` engine, the embedded default: a real small model in llama.cpp's own server, started and stopped here.

The server runs in a child process on a free port of 127.0.0.1 and is then an OpenAI-style endpoint like any other. Two
models of a recipe with the same weights and options share one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from kun_builder.engines import openai
from kun_builder.engines.http import Server, open_session
from kun_builder.engines.openai import OpenAIEndpoint
from kun_builder.engines.weights import DEFAULT, find_weights
from kun_builder.errors import ModelError
from kun_builder.hookspecs import hookimpl
from kun_builder.types import Endpoint, Engine, ModelSpec

kun_api = 1
log = logging.getLogger(__name__)
T = TypeVar("T")

_CONTEXT = 4096
"""Tokens of context for each slot, unless the recipe gives `context_length`."""


@dataclass(frozen=True, slots=True)
class Setup:
    """All that decides whether two models can share a server; the child's parameters."""

    path: str
    name: str
    threads: int
    slots: int
    context_length: int


@asynccontextmanager
async def connect(spec: ModelSpec, *, threads: int = 0, slots: int = 4) -> AsyncIterator[Sequence[Endpoint]]:
    """Fetch the weights if need be, start the server, yield its endpoint, stop it.

    `model` is a known name, a GGUF path or `org/repo/file.gguf`. `threads` 0 means one per physical core; `slots`
    requests are answered at once, each with `context_length` tokens (default 4,096). With `endpoints` given nothing is
    started.
    """
    if spec.endpoints:
        async with openai.connect(spec) as endpoints:
            yield endpoints
        return
    model = spec.model or DEFAULT
    weights = await _in_thread(lambda: find_weights(model, spec.revision))
    setup = Setup(str(weights.path), weights.id, threads or cores(), slots, spec.context_length or _CONTEXT)
    facts = {"id": weights.id, "revision": weights.sha256, "license": weights.license}
    facts["tokenizer"] = spec.tokenizer or (model if weights.license else str(weights.path))
    async with _shared(setup, spec.wait) as url, open_session() as session:
        server = Server(session, url, timeout=spec.timeout)
        yield [OpenAIEndpoint(server, replace(spec, model=weights.id, revision=""), facts)]


def cores() -> int:
    """Physical cores that this process may use: more threads than these slow llama.cpp down."""
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


# --- the child process -----------------------------------------------------------------------------------------


class LlamaServer:
    """llama.cpp's server as a child process. It ends when its stdin is closed, so also when this process is killed."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.users = 0
        self.url = ""
        self.lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, patience: float) -> None:
        """Start the child and wait, `patience` seconds at most, until its model is loaded.

        Raises ModelError with the end of the child's log.
        """
        started = time.monotonic()
        log.info("starting %s on %d threads", self.setup.name, self.setup.threads)
        with tempfile.TemporaryFile() as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "kun_builder.engines.llama_child", json.dumps(asdict(self.setup))),
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
                raise ModelError(_failure(self.setup, patience, errors.read()), hint=_START_HINT)
        log.info("%s is ready after %.1f s", self.setup.name, time.monotonic() - started)

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


_START_HINT = "the file may be damaged or unknown to llama.cpp, or memory too short for `slots` x `context_length`"


def _failure(setup: Setup, patience: float, said: bytes) -> str:
    tail = " | ".join(said.decode("utf-8", "replace").strip().splitlines()[-5:]) or "it said nothing"
    return f"the embedded server did not load {setup.path} within {patience:.0f} s: {tail}"


_servers: dict[tuple[asyncio.AbstractEventLoop, Setup], LlamaServer] = {}


@asynccontextmanager
async def _shared(setup: Setup, patience: float) -> AsyncIterator[str]:
    """The address of the one server with this set-up, started by its first user and stopped by its last."""
    key = asyncio.get_running_loop(), setup
    server = _servers.setdefault(key, LlamaServer(setup))
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


async def _in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a daemon thread: unlike an executor's, it does not hold up the end of the process."""
    result: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # whatever it is, it belongs to the coroutine that waits
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.shield(asyncio.wrap_future(result))


@hookimpl
def kun_engines() -> list[Engine]:
    """The embedded model."""
    return [Engine(name="llamacpp", connect=connect)]
