"""Starts, asks and ends servers with a pretended model, each in a process of its own: see `servers.llm_server`.

with simulator(slots=8, faults=Faults(http_503=0.1)) as server:
    ...                      # ask `server.url` as any server of the OpenAI protocol
    server.counts()
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple
from urllib.request import urlopen

import orjson
from servers import llm_server
from servers.llm_server import Settings


class Repeat(NamedTuple):
    """A request that was answered once more: when, by the monotonic clock, it had been answered before, and as which of
    all answers; and the first 8 characters of its answer, which tell requests apart."""

    at: float
    number: int
    begins: str


class Simulator:
    """A running simulator; made by `simulator`."""

    def __init__(self, settings: Settings, port: int = 0) -> None:
        self.settings = settings
        self._start(port)

    def _start(self, port: int) -> None:
        command = [sys.executable, llm_server.__file__, str(port), orjson.dumps(asdict(self.settings)).decode()]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def counts(self) -> dict[str, Any]:
        """See `llm_server.Model.counts`."""
        return dict(self._get("counts"))

    def stats(self) -> dict[str, Any]:
        """See `llm_server.Model.stats`."""
        return dict(self._get("stats"))

    def repeated(self) -> list[Repeat]:
        """Requests that were answered once more, one for each time."""
        return [Repeat(*one) for one in self._get("repeated")]

    def _get(self, name: str) -> Any:
        with urlopen(f"{self.url}/{name}", timeout=30) as answer:
            return orjson.loads(answer.read())

    def kill(self) -> None:
        """End it at once, with everything that it was working on."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def revive(self) -> None:
        """Start a new one at the same address; its counts begin anew."""
        self._start(self.port)


@contextmanager
def simulator(settings: Settings | None = None, **changes: Any) -> Iterator[Simulator]:
    """A simulator at `.url` until the end of the block."""
    running = Simulator(settings or Settings(**changes))
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()
