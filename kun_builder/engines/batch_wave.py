"""A wave: the requests that go into one batch, on disk from the first one on, and what is known of their batch.

    NAME.part     lines that are being collected; the API has not got them yet
    NAME.jsonl    the lines as they are, or were, uploaded
    NAME.json     the batch's id, once it is known

The process that works on a wave holds a lock on its lines. The waves of a process that died are taken over.
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
"""What became of a request: its line of an output file, the error instead of one, or None if it must be asked again."""

_HEAD = b'{"custom_id":"'
ID_LENGTH = 32
_KEPT = 30 * 86_400
"""Seconds for which batch APIs keep files."""


class Wave:
    """Requests of one route by their ids. The future of each is done when it is known what became of the request."""

    def __init__(self, path: Path, route: str, descriptor: int) -> None:
        self.path, self.route, self.name = path, route, path.stem
        self.batch = ""
        self.over = False
        """Whether the batch has ended. No further answers come from it then."""
        self.doubtful = False
        """Whether the API may have made a batch of this wave although its id was never noted."""
        self.idle = False
        """Whether a dead process left the wave behind and no row has asked for one of its answers yet."""
        self.results: dict[str, asyncio.Future[Result]] = {}
        self.left = 0
        """Number of requests whose answer no row has taken yet."""
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
        """Write one more request to the wave's file; returns its future. Raises RunError if the disk refuses."""
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
        """Close the wave for further requests and sync its lines to disk, ready for the upload."""
        with _disk(self.path):
            os.fsync(self._descriptor)
            self.path = self.path.rename(self.path.with_suffix(".jsonl"))
            self.note()

    def note(self) -> None:
        """Write down what is known of the batch."""
        with _disk(self.path):
            write_note(self.path.with_suffix(".json"), {"route": self.route, "batch": self.batch, "over": self.over})

    def settle(self, line_id: str, result: Result) -> None:
        """Set what became of one request. An id that is not of this wave, or has its result already, is ignored."""
        future = self.results.get(line_id)
        if future is not None and not future.done():
            future.set_result(result)

    def settle_all(self, result: Result) -> None:
        """Set the same result for all requests that have none yet."""
        for line_id in self.results:
            self.settle(line_id, result)

    def forget(self) -> None:
        """Delete the files of the wave: nothing in it is wanted any more."""
        for suffix in (".part", ".jsonl", ".json"):
            self.path.with_suffix(suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock. A sent wave's files stay until its batch has ended and all answers were taken."""
        if self.path.suffix == ".part" or (self.over and not self.left):
            self.forget()
        os.close(self._descriptor)


def left_behind(folder: Path) -> Iterator[Wave]:
    """The waves that dead processes left behind. Those never sent, and those too old for the API, are deleted.

    A wave may stay unused, since answers that the dead process had in the journal are not asked for again.
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
            hint="free some disk space, then run the same command again: it goes on where it stopped",
        ) from error
