"""What a stage that sees all rows may use of this machine: processes, memory, and a folder for files of its own."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kun_builder.errors import RunError
from kun_builder.run.executors.batches import can_share, quiet_datasets
from kun_builder.run.machine import cores, memory
from kun_builder.status import Status

_SMALL = 50_000
"""Up to this many rows are worked on in this process, since starting others would take longer."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class LocalWorkspace:
    """A `kun_builder.Workspace` on this machine.

    rows: what the stage works on, for `progress`. load: makes the plugins known in a new process.
    """

    folder: Path
    memory: int
    workers: int
    rows: int
    status: Status
    load: Callable[[], object]

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item], /) -> Iterator[_Result]:
        """Yield results in the order of the items. With several workers, they are computed in other processes."""
        todo = list(items)
        workers = min(self.workers, len(todo))
        if workers < 2:
            yield from map(function, todo)
            return
        sent = pickle.dumps(self.load), pickle.dumps(function)
        context = multiprocessing.get_context("spawn")
        others = set(multiprocessing.active_children())
        with ProcessPoolExecutor(workers, context, initializer=_start, initargs=sent) as pool:
            try:
                yield from pool.map(_call, todo)
            except BrokenProcessPool as error:
                raise RunError(
                    "a worker process died, probably for lack of memory",
                    hint="run kun-build again to go on; `memory: 2GB` in the recipe makes it use less",
                ) from error
            except BaseException:
                for process in set(multiprocessing.active_children()) - others:
                    process.kill()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def need_disk(self, size: int) -> None:
        """Raise RunError if the disk has less than `size` bytes left."""
        free = shutil.disk_usage(self.folder).free
        if free < size:
            raise RunError(
                f"{self.folder.parent} needs {_said(size)} for a while, and its disk has {_said(free)} left",
                hint="free the disk, or use a run folder on a larger one (`--output`)",
            )

    def progress(self, share: float) -> None:
        """Show the share (0 to 1) of the work that is done, as rows of the stage."""
        self.status.done = round(self.rows * share)


@dataclass(frozen=True)
class Resources:
    """What a run gives to its stages.

    memory: bytes, by default half of the machine's. status: the live figures. load: makes the plugins known in a new
    process."""

    memory: int | None = None
    status: Status = field(default_factory=Status)
    load: Callable[[], object] = dict


@contextmanager
def workspace(folder: Path, rows: int, resources: Resources) -> Iterator[LocalWorkspace]:
    """A workspace for `rows` rows whose files are in `folder` until the end."""
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    folder.mkdir(parents=True)
    workers = cores() if rows > _SMALL and can_share() else 1
    try:
        limit = resources.memory or memory() // 2
        yield LocalWorkspace(folder, limit, workers, rows, resources.status, resources.load)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _said(size: int) -> str:
    return f"{size / 2**30:,.1f} GB" if size >= 2**30 else f"{size / 2**20:,.0f} MB"


_function: Callable[[Any], Any] = print
"""In a worker process: the function that it applies to items."""


def _start(load: bytes, function: bytes) -> None:
    """In a new process: make the plugins known first, since the function is one of theirs."""
    global _function
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's, though all hear them: it ends the pool
        signal.signal(number, signal.SIG_IGN)
    quiet_datasets()
    pickle.loads(load)()
    _function = pickle.loads(function)


def _call(item: Any) -> Any:
    return _function(item)
