"""The durable log of finished generations: what a model has answered once is never asked, nor paid for, again.

A folder of files that only grow, one for each process that writes (`commit`), and of sorted indexes (`records`). Any
number of processes may share it. A killed process loses no answer that it had read, and a row goes on only when its
answer is safe from a power cut too. A damaged or torn file costs exactly the records that are damaged. Memory does not
grow with the number of generations: after 65,536 of them a log is closed, and from then on found through its index.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson
import zstandard

from kun_builder.cache import cache_folder
from kun_builder.files import make_private
from kun_builder.models.journal import records
from kun_builder.models.journal.commit import LogWriter, log_name, log_time
from kun_builder.models.journal.packing import pack_answer, pack_question, unpack_answer, unpack_question
from kun_builder.types import Completion, Request

SEAL_AFTER = 65_536
_OPEN_FILES = 64
_ZIP_LEVEL = -1  # a third of the CPU of level 3 for a tenth more bytes; both halve Chinese text


@dataclass(frozen=True, slots=True)
class Generation:
    """One finished generation: who was asked what, when (Unix time), and the answer."""

    model: str
    revision: str
    request: Request
    completion: Completion
    time: float


@dataclass(frozen=True, slots=True)
class JournalStats:
    """What a journal holds: generations, bytes on disk, logs; Unix times of its first and last change, 0 if empty."""

    folder: Path
    generations: int
    bytes: int
    files: int
    oldest: float = 0.0
    newest: float = 0.0


def default_folder() -> Path:
    """`generations` in the user's cache folder."""
    return cache_folder() / "generations"


@dataclass(frozen=True, slots=True)
class Question:
    """A request to a model as the journal knows it. `key` is a digest of `packed`: the model and everything in the
    request that an answer depends on, as JSON."""

    key: str
    packed: bytes


def question(model: str, revision: str, request: Request) -> Question:
    """The question that `request` puts to `model` at `revision`."""
    packed = pack_question(model, revision, request)
    return Question(hashlib.blake2b(packed, digest_size=records.KEY_BYTES).hexdigest(), packed)


class Journal:
    """A folder of finished generations. It belongs to one event loop; `get`, `read` and `stats` need none."""

    @classmethod
    def open(
        cls, folder: Path | None = None, *, since: float = 0.0, say: Callable[[str], None] = lambda message: None
    ) -> Journal:
        """Open the journal in `folder`, made if need be; None is `default_folder()`.

        since: Unix time; answers in older files are ignored, but kept. A run that wants all of its answers fresh gives
            the time at which it first began, also when it goes on after a stop, and so finds its own again.
        say: is told what was damaged.
        """
        folder = folder or default_folder()
        make_private(folder)
        return cls(folder, since, say)

    def __init__(self, folder: Path, since: float, say: Callable[[str], None]) -> None:
        self.folder = folder
        self._first = log_name(since)
        self._say = say
        self._nonsense: set[str] = set()
        self._damaged: set[str] = set()
        self._log: LogWriter | None = None
        self._sealing: list[LogWriter] = []
        self._files: dict[str, int] = {}
        self._closed = False
        self._zip = zstandard.ZstdCompressor(level=_ZIP_LEVEL).compress
        self._unzip = zstandard.ZstdDecompressor().decompress
        self._thread = ThreadPoolExecutor(1, "journal")
        self._indexes = _merged(folder, _open_indexes(folder, say))

    def get(self, key: str) -> Completion | None:
        """The finished generation of that key, if there is one that makes sense."""
        found = self._find(key)
        if found is None:
            return None
        completion = unpack_answer(found.partition(b"\n")[0], key)
        if completion is None:
            self._say_nonsense(key)
        return completion

    def read(self, key: str) -> Generation | None:
        """Everything about a key: request and answer."""
        found = self._find(key)
        if found is None:
            return None
        answered, _, asked = found.partition(b"\n")
        completion, asked_of = unpack_answer(answered, key), unpack_question(asked)
        if completion is None or asked_of is None:
            self._say_nonsense(key)
            return None
        return Generation(*asked_of, completion, orjson.loads(answered)[1])

    def _say_nonsense(self, key: str) -> None:
        """Tell the user, once for each key, of a record that is whole but holds nothing that this program writes."""
        if key not in self._nonsense:
            self._nonsense.add(key)
            self._say(f"journal {self.folder}: the record of answer {key} makes no sense; it is asked for again")

    def put(self, question: Question, completion: Completion) -> asyncio.Future[None]:
        """Write an answer down. The future is done when it is on disk, and has a RunError if the disk refuses it."""
        if self._log is None:
            self._log = LogWriter(self.folder, self._thread)
        record = pack_answer(completion, time.time()) + b"\n" + question.packed
        durable = self._log.append(bytes.fromhex(question.key), self._zip(record))
        if self._log.count >= SEAL_AFTER:
            self._seal()
        return durable

    def stats(self) -> JournalStats:
        """Size and age of the whole folder, whoever wrote it."""
        logs = [(path.name, path.stat()) for path in sorted(self.folder.glob("*.log"))]
        known = sum(len(index.keys) for index in self._indexes) + sum(len(log.offsets) for log in self._writers())
        size = sum(stat.st_size for _, stat in logs) + sum(path.stat().st_size for path in self.folder.glob("*.idx"))
        if not logs:
            return JournalStats(self.folder, known, size, 0)
        newest = max(stat.st_mtime for _, stat in logs)
        return JournalStats(self.folder, known, size, len(logs), log_time(logs[0][0]), newest)

    def prune(self, older_than: float = 0.0) -> JournalStats:
        """Remove logs to which nothing was added in the last `older_than` seconds; what is left."""
        self._close_files()
        with _alone(self.folder):
            for path in self.folder.glob("*.log"):
                if path.stat().st_mtime <= time.time() - older_than and not records.is_growing(path):
                    path.unlink()
            for index in self._indexes:
                if any(not (self.folder / name).exists() for name in index.logs):
                    records.merge(self.folder, [index])
        self._indexes = _open_indexes(self.folder, self._say)
        return self.stats()

    async def close(self) -> None:
        """Wait until all is on disk, and leave an index, so that the next opening reads nothing anew."""
        self._closed = True
        if self._log is not None:
            self._seal()
        for log in tuple(self._sealing):
            await log.sealed
        await asyncio.to_thread(self._thread.shutdown)
        for log in self._writers():  # those whose index could not be written
            log.close()
        self._close_files()

    def _find(self, key: str) -> bytes | None:
        raw = bytes.fromhex(key)
        for log in self._writers():
            at = log.offsets.get(raw)
            if at is not None and (payload := records.read_record(log.fd, at, raw)) is not None:
                return self._unpacked(payload)
        places = [place for index in self._indexes for place in index.find(raw) if place[0] >= self._first]
        for name, at in sorted(places, reverse=True):  # the newest answer counts
            fd = self._file(name)
            if fd is None:
                continue
            if (payload := records.read_record(fd, at, raw)) is not None:
                return self._unpacked(payload)
            self._say_lost(name)
        return None

    def _say_lost(self, name: str) -> None:
        """Tell the user, once for each log, how many answers its index knows that are no longer in it: a machine that
        dies may leave zeros where they were."""
        if name in self._damaged:
            return
        self._damaged.add(name)
        good = len(records.scan(self.folder / name).entries)
        lost = sum(index.count(name) for index in self._indexes) - good
        self._say(
            f"journal {self.folder / name} is damaged: of {lost + good} answers {lost} are lost, and asked for again"
        )

    def _unpacked(self, payload: bytes) -> bytes:
        try:
            return self._unzip(payload)
        except zstandard.ZstdError:  # whole, but not written by us: it makes no sense
            return b""

    def _writers(self) -> Iterator[LogWriter]:
        if self._log is not None:
            yield self._log
        yield from self._sealing

    def _file(self, name: str) -> int | None:
        fd = self._files.get(name)
        if fd is None:
            try:
                fd = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # pruned by another process
                return None
            if len(self._files) >= _OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[name] = fd
        return fd

    def _close_files(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def _seal(self) -> None:
        """End the present log; the next `put` begins another one."""
        assert self._log is not None
        log, self._log = self._log, None
        self._sealing.append(log)
        log.seal().add_done_callback(lambda sealed: self._sealed(log, sealed.result()))

    def _sealed(self, log: LogWriter, indexed: bool) -> None:
        if not indexed and log.offsets:
            return  # it stays in memory, and the next opening makes its index
        index = records.load_index(log.path.with_suffix(".idx")) if indexed else None
        self._indexes = [*self._indexes, *([index] if index else [])]
        self._sealing.remove(log)
        log.close()
        if records.merge_due(self._indexes) and not self._closed:
            merge = asyncio.get_running_loop().run_in_executor(self._thread, _merged, self.folder, self._indexes)
            merge.add_done_callback(partial(self._merged, self._indexes))

    def _merged(self, before: list[records.Index], merge: asyncio.Future[list[records.Index]]) -> None:
        """Use the merged indexes from now on, and keep those of logs that were sealed meanwhile."""
        if not merge.cancelled() and merge.exception() is None:
            self._indexes = merge.result() + [index for index in self._indexes if index not in before]


# --- the folder ------------------------------------------------------------------------------------------------


def _open_indexes(folder: Path, say: Callable[[str], None]) -> list[records.Index]:
    """All indexes of the folder. One that a dead writer left out, or that is damaged, is made from its log."""
    indexes: list[records.Index] = []
    paths = sorted(folder.glob("*.idx"))
    while paths:
        try:
            index = records.load_index(paths[-1])
        except FileNotFoundError:  # another process merged it away just now: it is in a newer one
            indexes, paths = [], sorted(folder.glob("*.idx"))
            continue
        path = paths.pop()
        if index is None:
            say(f"journal {path} is damaged; it is made anew from the logs")
            path.unlink(missing_ok=True)
        else:
            indexes.append(index)
    covered = {name for index in indexes for name in index.logs}
    for log in sorted(folder.glob("*.log")):
        if log.name in covered or not log.stat().st_size or records.is_growing(log):
            continue
        found = records.scan(log)
        if found.damage:
            size = sum(end - start for start, end in found.damage)
            where = f"{len(found.damage)} places, the first at {found.damage[0][0]}"
            say(f"journal {log}: {size} bytes are damaged, in {where}; {len(found.entries)} generations are good")
        index = records.load_index(records.index_log(log, found.entries))
        indexes += [index] if index else []
    return indexes


def _merged(folder: Path, indexes: list[records.Index]) -> list[records.Index]:
    """Merge indexes as long as eight or more are of like size; returns those that remain. If another process is merging
    already, nothing is done."""
    while due := records.merge_due(indexes):
        with _alone(folder, wait=False) as alone:
            new = records.load_index(records.merge(folder, due)) if alone else None
        if new is None:
            break
        indexes = [index for index in indexes if index not in due] + [new]
    return indexes


@contextmanager
def _alone(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the folder's lock, which whoever removes files needs. Yields False if `wait` is off and another has it."""
    fd = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        yield records.lock(fd, wait=wait)
    finally:
        os.close(fd)
