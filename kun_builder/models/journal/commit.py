"""Group commit: one process appends to one log of the journal, and learns when what it wrote is on disk.

An append is written at once, so that it survives the death of the process; `fdatasync` runs in a thread, a few
milliseconds later, once for all appends that came meanwhile, so that it survives the machine's. The file grows in
advance, by zeros: while one thread waits for a growing file to be synced, a write to it would wait too.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from kun_builder.errors import RunError
from kun_builder.models.journal import records

COMMIT_AFTER = 0.008
"""Seconds that a commit waits for further appends. With the disk's own time it is under 20 ms on common disks."""

_AHEAD = 2 << 20
_GO_ON = 2  # rows that go on in one turn of the event loop: after each turn, answers that have come are read

Waiting = tuple[bytes, int, "asyncio.Future[None]"]


def log_name(when: float) -> str:
    """The beginning of the name of a log that is made at this Unix time. Names sort by age."""
    return f"{int(when * 1e6):017d}"


def log_time(name: str) -> float:
    """The Unix time at which the log of this name was made."""
    return int(name[:17]) / 1e6


class LogWriter:
    """A new log in `folder`. All methods belong to one event loop; `thread` does what waits for the disk."""

    def __init__(self, folder: Path, thread: Executor) -> None:
        self.path = folder / f"{log_name(time.time())}-{os.getpid()}-{secrets.token_hex(3)}.log"
        self.fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        records.lock(self.fd)
        self.offsets: dict[bytes, int] = {}
        """Offset in the file of each record that is on disk, by its key."""
        self.count = 0
        self.sealed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Done when the log is complete: True if an index lies beside it."""
        self._thread = thread
        self._size = self._allocated = 0
        self._written: list[Waiting] = []
        self._durable: deque[asyncio.Future[None]] = deque()
        """What is on disk, and whose rows do not know it yet."""
        self._busy = self._ending = False

    def append(self, key: bytes, payload: bytes) -> asyncio.Future[None]:
        """Add a record; the future is done when it is on disk, or has a RunError."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        record = records.encode(key, payload)
        self.count += 1
        try:
            self._write(record)
        except OSError as error:
            _fail([durable], self.path, error)
        else:
            self._written.append((key, self._size, durable))
            self._size += len(record)
        self._next()
        return durable

    def seal(self) -> asyncio.Future[bool]:
        """End the log: commit what is under way, then write the index. `sealed` tells when that is done."""
        self._ending = True
        if not self._busy:
            self._finish()
        return self.sealed

    def _write(self, data: bytes) -> None:
        """Write at the log's end. On OSError the end stays where it was; bytes beyond are overwritten or cut off."""
        end = self._size + len(data)
        if end > self._allocated:
            os.posix_fallocate(self.fd, self._allocated, end + _AHEAD - self._allocated)
            self._allocated = end + _AHEAD
        view = memoryview(data)
        while view:
            view = view[os.pwrite(self.fd, view, end - len(view)) :]

    def _next(self) -> None:
        """Start the next commit if something was written, or finish the log if it was sealed."""
        if self._busy:
            return
        if self._written:
            self._busy = True
            asyncio.get_running_loop().call_later(COMMIT_AFTER, self._commit)
        elif self._ending:
            self._finish()

    def _commit(self) -> None:
        group, self._written = self._written, []
        sync = asyncio.get_running_loop().run_in_executor(self._thread, os.fdatasync, self.fd)
        sync.add_done_callback(partial(self._committed, group))

    def _committed(self, group: Sequence[Waiting], sync: asyncio.Future[None]) -> None:
        error = None if sync.cancelled() else sync.exception()
        if error is not None:
            _fail([durable for *_, durable in group], self.path, error)
        else:
            self.offsets.update((key, at) for key, at, _ in group)
            if not self._durable:
                asyncio.get_running_loop().call_soon(self._release)
            self._durable.extend(durable for *_, durable in group)
        self._busy = False
        self._next()

    def _release(self) -> None:
        """Let a few rows go on in each turn of the event loop. If all went on at once, answers that come meanwhile
        would wait, then be read and committed all at once too, and the load would never spread again."""
        for _ in range(min(_GO_ON, len(self._durable))):
            durable = self._durable.popleft()
            if not durable.done():  # its row may have been cancelled
                durable.set_result(None)
        if self._durable:
            asyncio.get_running_loop().call_soon(self._release)

    def _finish(self) -> None:
        if not self.offsets:
            self.path.unlink(missing_ok=True)
            self._finished(None)
            return
        os.ftruncate(self.fd, self._size)
        index = asyncio.get_running_loop().run_in_executor(
            self._thread, records.index_log, self.path, self.offsets.items()
        )
        index.add_done_callback(self._finished)

    def _finished(self, index: asyncio.Future[Path] | None) -> None:
        indexed = index is not None and not index.cancelled() and index.exception() is None
        if not self.sealed.done():
            self.sealed.set_result(indexed)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


def _fail(waiting: Sequence[asyncio.Future[None]], path: Path, error: BaseException) -> None:
    for durable in waiting:
        if not durable.done():
            durable.set_exception(
                RunError(
                    f"cannot write the journal {path.parent}: {error}",
                    hint="free some disk space, then run the same command again: it goes on where it stopped",
                )
            )
