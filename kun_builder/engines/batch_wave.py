"""A wave: the requests that go into one batch, on disk from the first one on, and what is known of their batch.

    NAME.part     lines that are being collected: nobody has them yet
    NAME.jsonl    the lines as they are uploaded, or were
    NAME.json     the batch's id, once it is known

The process that works on a wave holds a lock on its lines. What another one has left behind, dead, is taken over.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from kun_builder.cache import write_note
from kun_builder.errors import RequestError, RunError

Result = bytes | RequestError | None
"""A line of an output file; what became of the request instead; None if it has to be asked anew."""

_HEAD = b'{"custom_id":"'
ID_LENGTH = 32
_KEPT = 30 * 86_400
"""Seconds for which batch APIs keep files."""


class Wave:
    """Requests of one route, by their ids; each has a future, done when it is known what became of it."""

    def __init__(self, path: Path, route: str, descriptor: int) -> None:
        self.path, self.route, self.name = path, route, path.stem
        self.batch = ""
        self.over = False
        """Whether its batch has ended; then it answers nothing that it has not answered."""
        self.doubtful = False
        """Whether a batch may have been made of it without our knowing."""
        self.idle = False
        """Whether it was left behind, and nobody has asked for anything in it yet."""
        self.results: dict[str, asyncio.Future[Result]] = {}
        self.left = 0
        """Requests that nobody has taken the answer of."""
        self.size = 0
        self.last = time.monotonic()
        self.born = time.time()
        self._descriptor = descriptor

    @classmethod
    def begin(cls, folder: Path, route: str) -> Wave:
        """A new wave without requests."""
        path = folder / f"{secrets.token_hex(8)}.part"
        with _disk(path):
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return cls(path, route, descriptor)

    def add(self, line_id: str, body: bytes) -> asyncio.Future[Result]:
        """One more request; its future."""
        line = b'%s%s","method":"POST","url":"%s","body":%s}\n' % (_HEAD, line_id.encode(), self.route.encode(), body)
        with _disk(self.path):
            os.write(self._descriptor, line)
        self.size, self.last = self.size + len(line), time.monotonic()
        return self._expect(line_id)

    def _expect(self, line_id: str) -> asyncio.Future[Result]:
        self.left += 1
        future = self.results[line_id] = asyncio.get_running_loop().create_future()
        return future

    def seal(self) -> None:
        """No more requests: from now on the lines are kept."""
        with _disk(self.path):
            os.fsync(self._descriptor)
            self.path = self.path.rename(self.path.with_suffix(".jsonl"))
            self.note()

    def note(self) -> None:
        """Keep what is known of the batch."""
        with _disk(self.path):
            write_note(self.path.with_suffix(".json"), {"route": self.route, "batch": self.batch, "over": self.over})

    def settle(self, line_id: str, result: Result) -> None:
        """It is known what became of a request. A line of nobody's is overlooked."""
        future = self.results.get(line_id)
        if future is not None and not future.done():
            future.set_result(result)

    def settle_all(self, result: Result) -> None:
        """The same became of all requests of which nothing is known."""
        for line_id in self.results:
            self.settle(line_id, result)

    def forget(self) -> None:
        """Remove it: nothing in it is wanted any more."""
        for suffix in (".part", ".jsonl", ".json"):
            self.path.with_suffix(suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it. It is kept if it was sent, and its batch has not ended or not all of its answers were taken."""
        if self.path.suffix == ".part" or (self.over and not self.left):
            self.forget()
        os.close(self._descriptor)


def left_behind(folder: Path) -> Iterator[Wave]:
    """The waves of processes that are no more; what was never sent, or is too old to be had any more, is removed.

    Answers that the killed process had written down are not asked for again, so a wave may stay here unused.
    """
    for path in sorted([*folder.glob("*.part"), *folder.glob("*.jsonl")]):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # sent, or done with, by its process just now
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        wave = _taken_over(path, descriptor)
        if path.suffix == ".part" or time.time() - wave.born > _KEPT:
            wave.forget()
            wave.close()
            continue
        yield wave


def _taken_over(path: Path, descriptor: int) -> Wave:
    wave = Wave(path, "", descriptor)
    wave.born = path.stat().st_mtime
    try:
        known = json.loads(path.with_suffix(".json").read_bytes())
        wave.route, wave.batch, wave.over = str(known["route"]), str(known["batch"]), bool(known["over"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # killed before it was written: the route is in the lines
    wave.doubtful, wave.idle = not wave.batch, True
    with path.open("rb") as lines:
        for line in lines:
            if line.startswith(_HEAD):
                wave.route = wave.route or json.loads(line)["url"]
                wave._expect(line[len(_HEAD) : len(_HEAD) + ID_LENGTH].decode())
    return wave


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write the requests of a batch to {path}: {error.strerror}",
            hint="free the disk, then run the same command again: it goes on where it stopped",
        ) from error
