"""Batch segments on one machine: a shard is one call of the stages, in this process or in several."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from kun_builder.errors import RunError
from kun_builder.run.executors import watchdog
from kun_builder.run.executors.base import Done, Intake, Task, run_shard
from kun_builder.run.executors.watchdog import named_while_slow
from kun_builder.run.exits import works_here
from kun_builder.run.machine import cores
from kun_builder.run.processes import processes
from kun_builder.run.shards import ShardRecord
from kun_builder.run.worker import Result, run_table

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    import pyarrow as pa

    from kun_builder.run.plan import Step

SMALL = 10_000
"""Up to so many rows of a segment run in this process, since starting other processes would take longer."""

_AHEAD = 2
"""Shards that each process is given ahead."""

Say = Callable[[str], None]


def run_batch(task: Task, say: Say = lambda message: None) -> ShardRecord:
    """Compute one shard of a batch segment; `say` is told of a stage that takes long."""

    def work(table: pa.Table) -> Result:
        with named_while_slow(say) as slow:

            def begin(step: Step) -> None:
                slow(step)
                works_here(lambda: f"{step}, at the rows of {task.output},")

            return run_table(table, task.job, begin=begin)

    return run_shard(task, work)


def run_batches(intake: Intake, say: Say, load: Callable[[], object]) -> Iterator[Done]:
    """Records of the tasks as they finish. `load` makes the plugins known in each new process."""
    workers = cores()
    yield from run_here(intake, say, SMALL if workers > 1 else sys.maxsize)
    if intake.over:
        return
    if can_share():
        yield from _run_in_processes(intake, workers, say, load)
    else:
        say("processes cannot share anything here (/dev/shm is not writable): batches run in this one alone")
        yield from run_here(intake, say, sys.maxsize)


def run_here(intake: Intake, say: Say, most: int) -> Iterator[Done]:
    """Records of the tasks as this process finishes them, until they are over or turn out to be over `most` rows."""
    rows = 0
    while True:
        yield from intake.take()
        if intake.large(rows, most):
            return
        if intake.left:
            number, task = intake.left.popleft()
            rows += task.shard.alive
            yield number, run_batch(task, say)
        elif intake.over:
            return
        else:
            intake.wait(watchdog.LOOK)


def computed(
    intake: Intake,
    submit: Callable[[int, Task], Future[ShardRecord]],
    most: Callable[[], int],
    look: Callable[[], None],
) -> Iterator[Done]:
    """Records of the tasks as they finish, at most `most()` of them under way in some pool. `look` is called now and
    then."""
    numbers: dict[Future[ShardRecord], int] = {}
    try:
        while True:
            yield from intake.take()
            for future in [future for future in numbers if future.done()]:
                yield numbers.pop(future), future.result()
            while intake.left and len(numbers) < most():
                number, task = intake.left.popleft()
                future = submit(number, task)
                numbers[future] = number
                future.add_done_callback(intake.ring)
            look()
            if not numbers and intake.over:
                return
            intake.wait(watchdog.LOOK / 4)
    finally:
        for future in numbers:
            future.cancel()


def can_share() -> bool:
    """Whether processes can have a lock in common, which needs a writable /dev/shm."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError):
        return False
    return True


def _run_in_processes(intake: Intake, workers: int, say: Say, load: Callable[[], object]) -> Iterator[Done]:
    said: SimpleQueue[str] = multiprocessing.get_context("spawn").SimpleQueue()
    pickled = pickle.dumps(load)
    died = RunError(
        "a worker process died; without a reason above, for lack of memory",
        hint="run kun-build again to go on; fewer rows per shard (`shard_rows`) need less memory",
    )

    def pass_on() -> None:
        while not said.empty():
            say(said.get())

    with processes(workers, died, _start_worker, said) as pool:
        yield from computed(
            intake,
            lambda number, task: pool.submit(run_pickled, pickled, pickle.dumps(task)),
            lambda: _AHEAD * workers,
            pass_on,
        )


_say: Say = print
"""In a worker process: how lines reach the user."""


def _start_worker(said: SimpleQueue[str]) -> None:
    global _say
    _say = said.put
    quiet_datasets()


def run_pickled(load: bytes, task: bytes) -> ShardRecord:
    """In a new process: make the plugins known first, since the task names their functions."""
    _once(load)
    return run_batch(pickle.loads(task), _say)


@functools.cache
def _once(load: bytes) -> object:
    return pickle.loads(load)()


def quiet_datasets() -> None:
    """The library's own bars and cache messages would break the run's progress display."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
