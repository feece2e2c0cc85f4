"""Shards on one machine, through `datasets.map`: batches in processes, rows in threads over one event loop.

Each shard is one call of `Dataset.map` on an Arrow table, whose function is `run_table`. Three threads hold three
neighbouring shards of a row segment, so that the next one starts while the last rows of the previous one drain.
"""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kun_builder.errors import RunError
from kun_builder.models.usage import Tally
from kun_builder.run.executors import watchdog
from kun_builder.run.executors.watchdog import LoopWatch, named_while_slow
from kun_builder.run.rows import Outcome, RowRunner
from kun_builder.run.shards import Shard, ShardRecord, finish_shard, read_record, write_empty
from kun_builder.run.worker import Job, Result, RunRows, run_table
from kun_builder.status import Status
from kun_builder.types import ModelInfo, Row

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    import pyarrow as pa

    from kun_builder.models.generator import Generator
    from kun_builder.run.plan import Step

NEIGHBOURS = 3
"""Shards of a row segment under way at once: one drains, one runs, one is read or written."""

_SMALL = 10_000
"""Up to so many rows of batches run in this process: starting others would take longer."""


@dataclass(frozen=True)
class Task:
    """One shard to compute: where it comes from, where it goes, what is done. Pickles."""

    shard: Shard
    output: Path
    key: str
    job: Job


def run_shard(
    task: Task, run_rows: RunRows | None = None, say: Callable[[str], None] = lambda message: None
) -> ShardRecord:
    """Compute one shard, unless it is finished; returns its record. `say` is told of a batch stage that takes long."""
    if record := read_record(task.output, task.key):
        return record
    from datasets import Features

    task.output.parent.mkdir(parents=True, exist_ok=True)
    task.output.unlink(missing_ok=True)
    results: list[Result] = []

    def function(table: pa.Table) -> pa.Table:
        with named_while_slow(say) as begin:
            results.append(run_table(table, task.job, run_rows, begin))
        return results[-1].table

    rows = task.shard.living()
    if len(rows):
        rows.with_format("arrow").map(
            function,
            batched=True,
            batch_size=len(rows),
            features=Features.from_arrow_schema(task.job.schema),
            cache_file_name=str(task.output),
            new_fingerprint=task.key,
            load_from_cache_file=False,
        )
    else:
        results.append(run_table(rows.data.table, task.job, run_rows))
        write_empty(task.output, task.job.schema)
    record = ShardRecord.of(task.key, results[-1])
    finish_shard(task.output, record)
    return record


# --- batches ---------------------------------------------------------------------------------------------------


def run_batches(tasks: Sequence[Task], status: Status, load: Callable[[], object]) -> list[ShardRecord]:
    """Records of the tasks, in order. `load` makes the plugins known in each new process."""
    pending = _count_finished(tasks, status)
    workers = min(os.cpu_count() or 1, len(pending))
    small = sum(task.shard.rows for task in pending) <= _SMALL or workers < 2
    if not small and not (shared := _can_share()):
        status.say("processes cannot share anything here (/dev/shm is not writable): batches run in this one alone")
    if small or not shared:
        for task in pending:
            _count(run_shard(task, say=status.say), status)
    else:
        _run_in_processes(pending, workers, status, load)
    return [_record(task) for task in tasks]


def _can_share() -> bool:
    """Whether processes can have a lock in common, which needs a writable /dev/shm."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError):
        return False
    return True


def _run_in_processes(pending: Sequence[Task], workers: int, status: Status, load: Callable[[], object]) -> None:
    context = multiprocessing.get_context("spawn")
    said: SimpleQueue[str] = context.SimpleQueue()
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(said,)) as pool:
        try:
            waiting = {pool.submit(_run_pickled, pickle.dumps(load), pickle.dumps(task)) for task in pending}
            while waiting:
                done, waiting = wait(waiting, timeout=watchdog.LOOK, return_when=FIRST_COMPLETED)
                for future in done:
                    _count(future.result(), status)
                while not said.empty():
                    status.say(said.get())
        except BrokenProcessPool as error:
            raise RunError(
                "a worker process died, probably for lack of memory",
                hint="run kun-build again to go on; fewer rows per shard (`shard_rows`) need less memory",
            ) from error
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.kill()  # a stage that hangs would keep the pool open
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_say: Callable[[str], None] = print
"""In a worker process: the way to the user."""


def _start_worker(said: SimpleQueue[str]) -> None:
    global _say
    _say = said.put
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's, though all hear them: it ends the pool
        signal.signal(number, signal.SIG_IGN)
    quiet_datasets()


def _run_pickled(load: bytes, task: bytes) -> ShardRecord:
    """In a new process: make the plugins known first, since the task names their functions."""
    _once(load)
    return run_shard(pickle.loads(task), say=_say)


@functools.cache
def _once(load: bytes) -> object:
    return pickle.loads(load)()


def _record(task: Task) -> ShardRecord:
    record = read_record(task.output, task.key)
    if record is None:
        raise RunError(f"{task.output} vanished while the run was under way")
    return record


def _count_finished(tasks: Sequence[Task], status: Status) -> list[Task]:
    """Count what earlier runs finished; returns the rest."""
    pending = []
    for task in tasks:
        if record := read_record(task.output, task.key):
            _count(record, status)
        else:
            pending.append(task)
    return pending


def _count(record: ShardRecord, status: Status) -> None:
    status.done += record.counts[0].rows_in if record.counts else record.rows
    for count in record.counts:
        for reason, rows in (*count.dropped.items(), *count.quarantined.items()):
            status.drops[f"{count.label}: {reason}"] += rows


# --- rows ------------------------------------------------------------------------------------------------------


class RowExecutor:
    """Runs row segments over a generator that lives on its own event loop, in its own thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, generator: Generator, status: Status, stop_after: int = 0
    ) -> None:
        self._loop = loop
        self._generator = generator
        self._rows = RowRunner(generator, status, stop_after)
        self._status = status
        self._asked: set[Future[Any]] = set()

    def serving(self) -> Mapping[str, Any]:
        """What the serving layer has to tell: windows over time, endpoints, retries."""
        return self._generator.report()

    def identity(self, model: str) -> ModelInfo:
        """Who `model` is as far as results depend on it."""
        return self._generator.identity(model)

    def run(self, tasks: Sequence[Task]) -> list[ShardRecord]:
        """Records of the tasks, in order. Rows are counted one by one as they end."""
        pending = _count_finished(tasks, self._status)
        with ThreadPoolExecutor(NEIGHBOURS, thread_name_prefix="shard") as pool:
            futures = [pool.submit(self._run_one, number, task) for number, task in enumerate(pending)]
            try:
                self._wait(set(futures))
            except BaseException:
                self.stop()
                raise
            finally:
                for future in futures:
                    future.cancel()
        return [_record(task) for task in tasks]

    def _wait(self, waiting: set[Future[ShardRecord]]) -> None:
        """Until all are done, with an eye on stages that hang."""
        watch = LoopWatch(self._loop, self._rows, self._status.say)
        while waiting:
            watch.look()
            done, waiting = wait(waiting, timeout=watchdog.LOOK / 4, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()

    def stop(self) -> None:
        """End all rows under way, so that no shard is written with how they ended. May be called again."""
        self._rows.stopped = True
        for asked in list(self._asked):
            asked.cancel()

    def _run_one(self, number: int, task: Task) -> ShardRecord:
        def run_rows(
            rows: Sequence[Row], steps: Sequence[Step]
        ) -> tuple[list[Outcome], Mapping[tuple[str, str], Tally]]:
            asked = asyncio.run_coroutine_threadsafe(self._rows.run(number, rows, steps), self._loop)
            self._asked.add(asked)
            if self._rows.stopped:  # just now: `stop` may have missed it
                asked.cancel()
            try:
                return asked.result()
            finally:
                self._asked.discard(asked)

        return run_shard(task, run_rows)


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
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


def quiet_datasets() -> None:
    """The library's own bars and cache messages would break the run's progress display."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
