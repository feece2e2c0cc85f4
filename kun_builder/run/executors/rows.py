"""Row segments in one process: rows over one event loop, on which the models are, and shards in threads beside it.

Several neighbouring shards are under way at once, so that the next one starts while the last rows of the previous one
drain.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kun_builder.models.budget import Budget
from kun_builder.recipe.registry import Engines
from kun_builder.report import Tally
from kun_builder.run.executors import watchdog
from kun_builder.run.executors.base import Task, run_shard
from kun_builder.run.executors.watchdog import LoopWatch, close_on
from kun_builder.run.rows import Outcome, RowRunner
from kun_builder.run.shards import ShardRecord
from kun_builder.run.worker import run_table
from kun_builder.status import Status
from kun_builder.types import ModelInfo, ModelSpec, Row

if TYPE_CHECKING:
    from kun_builder.models.generator import Generator
    from kun_builder.run.plan import Step

NEIGHBOURS = 3
"""Shards of a row segment under way at once: one drains, one runs, one is read or written."""


@dataclass(frozen=True)
class RowSettings:
    """The settings for running row segments. They can be pickled."""

    specs: Mapping[str, ModelSpec]
    journal: Path | None
    """Folder of the journal; None means the default one, in the user's cache."""
    since: float
    """Unix time since when answers in the journal count; with 0 all of them do."""
    stop_after: int
    """The run ends after this many rows in a row that failed alike; with 0 it never does."""
    sharers: int = 1
    """Processes that run row segments of the same run, and so share the endpoints with this one."""


class RowShards:
    """Runs shards of row segments over a generator that lives on its own event loop, in its own thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        generator: Generator,
        models: Collection[str],
        status: Status,
        stop_after: int = 0,
    ) -> None:
        """`models` are the names that the generator knows; `stop_after` is that of `RowRunner`."""
        self.infos: Mapping[str, ModelInfo] = {name: generator.info(name) for name in models}
        self.identities: Mapping[str, ModelInfo] = {name: generator.identity(name) for name in models}
        self._generator, self._loop = generator, loop
        self._rows = RowRunner(generator, status, stop_after)
        self._watch = LoopWatch(loop, self._rows, status.say)
        self._asked: set[Future[Any]] = set()

    @property
    def capacity(self) -> int:
        """How many rows to keep under way (`Generator.capacity`)."""
        return self._generator.capacity

    def run(self, number: int, task: Task) -> ShardRecord:
        """Compute one shard, in the thread of the caller; where rows wait, those of the lowest `number` go first."""
        return run_shard(
            task, functools.partial(run_table, job=task.job, run_rows=functools.partial(self._run_rows, number))
        )

    def report(self) -> Mapping[str, Any]:
        """What the serving layer has measured so far (`Generator.report`)."""
        return self._generator.report()

    def look(self) -> None:
        """Look for stages that hang. Must be called now and then while shards run."""
        self._watch.look()

    def stop(self) -> None:
        """End all rows under way, and write no shard with rows that ended so. May be called more than once."""
        self._rows.stopped = True
        for asked in list(self._asked):
            asked.cancel()

    def _run_rows(
        self, number: int, rows: Sequence[Row], steps: Sequence[Step]
    ) -> tuple[list[Outcome], Mapping[tuple[str, str], Tally]]:
        asked = asyncio.run_coroutine_threadsafe(self._rows.run(number, rows, steps), self._loop)
        self._asked.add(asked)
        if self._rows.stopped:  # just now: `stop` may have missed it
            asked.cancel()
        try:
            return asked.result()
        finally:
            self._asked.discard(asked)


@contextmanager
def open_rows(
    settings: RowSettings, engines: Engines, status: Status, budget: Budget | None = None
) -> Iterator[RowShards]:
    """Row segments with their models connected and asked who they are; all is closed in the end, whatever happens."""
    from kun_builder.models.generator import open_models
    from kun_builder.models.journal.journal import Journal

    with ExitStack() as stack:
        loop = stack.enter_context(_event_loop())
        journal = Journal.open(settings.journal, since=settings.since, say=status.say)
        models = open_models(settings.specs, engines, journal, status, budget, settings.sharers)
        generator = _opened(loop, models)
        stack.callback(lambda: close_on(loop, models.__aexit__(None, None, None)))
        shards = RowShards(loop, generator, settings.specs, status, settings.stop_after)
        stack.callback(shards.stop)  # before the models are closed, however often the user presses Ctrl-C
        yield shards


def _opened(loop: asyncio.AbstractEventLoop, models: AbstractAsyncContextManager[Generator]) -> Generator:
    """What `models` opens. If this thread is interrupted meanwhile, the opening ends too, and closes what it has."""
    opening = asyncio.run_coroutine_threadsafe(models.__aenter__(), loop)
    try:
        return opening.result()
    except BaseException:
        if opening.cancel():
            close_on(loop, _rest_ended())
        raise


async def _rest_ended() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    if rest:
        await asyncio.wait(rest, timeout=watchdog.GRACE)


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own."""
    import uvloop

    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="models", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(watchdog.GRACE)
        if not thread.is_alive():  # else a stage holds it up, and it ends with the process
            loop.close()
