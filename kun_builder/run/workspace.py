"""What a stage that sees all rows may use of this machine: processes, memory, and a folder for files of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from kun_builder.errors import RunError
from kun_builder.run.crew import LocalCrew
from kun_builder.run.executors.batches import can_share
from kun_builder.run.machine import memory
from kun_builder.run.processes import Crew
from kun_builder.status import Status

_SMALL = 50_000
"""Up to this many rows are worked on in this process, since starting others would take longer."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class LocalWorkspace:
    """A `kun_builder.Workspace` in a folder of this machine, which the crew sees too.

    rows: what the stage works on, for `progress`. crew: computes what `map` is given.
    """

    folder: Path
    memory: int
    workers: int
    rows: int
    status: Status
    crew: Crew

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item], /) -> Iterator[_Result]:
        """Yield results in the order of the items. With several workers, the crew computes them."""
        todo = list(items)
        workers = min(self.workers, len(todo))
        if workers < 2:
            yield from map(function, todo)
            return
        died = RunError(
            "a worker process died; without a reason above, for lack of memory",
            hint="run kun-build again to go on; `memory: 2GB` in the recipe makes it use less",
        )
        with self.crew.at_work(function, workers, died) as submit:
            for result in [submit(item) for item in todo]:
                yield result.result()

    def need_disk(self, size: int) -> None:
        """Raise RunError if the disk has less than `size` bytes left."""
        free = shutil.disk_usage(self.folder).free
        if free < size:
            raise RunError(
                f"{self.folder.parent} needs {_said(size)} for a while, and its disk has {_said(free)} left",
                hint="free some disk space, or use a run folder on a larger one (`--output`)",
            )

    def progress(self, share: float) -> None:
        """Show the share (0 to 1) of the work that is done, as rows of the stage."""
        self.status.done = round(self.rows * share)


@dataclass(frozen=True)
class Resources:
    """What a run gives to its stages.

    memory: bytes, by default half of the machine's. status: the live figures. crew: works beside this process."""

    memory: int | None = None
    status: Status = field(default_factory=Status)
    crew: Crew = field(default_factory=lambda: LocalCrew(dict))


@contextmanager
def workspace(folder: Path, rows: int, resources: Resources) -> Iterator[LocalWorkspace]:
    """A workspace for `rows` rows whose files are in `folder` until the end."""
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    folder.mkdir(parents=True)
    workers = resources.crew.size if rows > _SMALL and can_share() else 1
    try:
        limit = resources.memory or memory() // 2
        yield LocalWorkspace(folder, limit, workers, rows, resources.status, resources.crew)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _said(size: int) -> str:
    return f"{size / 2**30:,.1f} GB" if size >= 2**30 else f"{size / 2**20:,.0f} MB"
