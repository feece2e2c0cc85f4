"""Batch segments on one machine: a shard is one call of the stages, in this process or in several."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from kun_builder.errors import RunError
from kun_builder.run.executors import watchdog
from kun_builder.run.executors.base import Done, Task, run_shard
from kun_builder.run.executors.watchdog import named_while_slow
from kun_builder.run.machine import cores
from kun_builder.run.shards import ShardRecord
from kun_builder.run.worker import Result, run_table

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    import pyarrow as pa

SMALL = 10_000
"""Segments of at most this many rows run in this process, since starting other processes would take longer."""

Say = Callable[[str], None]


def run_batch(task: Task, say: Say = lambda message: None) -> ShardRecord:
    """Compute one shard of a batch segment; `say` is told of a stage that takes long."""

    def work(table: pa.Table) -> Result:
        with named_while_slow(say) as begin:
            return run_table(table, task.job, begin=begin)

    return run_shard(task, work)


def run_batches(tasks: Sequence[tuple[int, Task]], say: Say, load: Callable[[], object]) -> Iterator[Done]:
    """Records of the tasks as they finish. `load` makes the plugins known in each new process."""
    workers = min(cores(), len(tasks))
    small = sum(task.shard.rows for _, task in tasks) <= SMALL or workers < 2
    if not small and not (shared := can_share()):
        say("processes cannot share anything here (/dev/shm is not writable): batches run in this one alone")
    if small or not shared:
        yield from ((number, run_batch(task, say)) for number, task in tasks)
    else:
        yield from _run_in_processes(tasks, workers, say, load)


def can_share() -> bool:
    """Whether processes can have a lock in common, which needs a writable /dev/shm."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError):
        return False
    return True


def _run_in_processes(
    tasks: Sequence[tuple[int, Task]], workers: int, say: Say, load: Callable[[], object]
) -> Iterator[Done]:
    context = multiprocessing.get_context("spawn")
    said: SimpleQueue[str] = context.SimpleQueue()
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(said,)) as pool:
        try:
            numbers: dict[Future[ShardRecord], int] = {
                pool.submit(run_pickled, pickle.dumps(load), pickle.dumps(task)): number for number, task in tasks
            }
            while numbers:
                done, _ = wait(numbers, timeout=watchdog.LOOK, return_when=FIRST_COMPLETED)
                for future in done:
                    yield numbers.pop(future), future.result()
                while not said.empty():
                    say(said.get())
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


_say: Say = print
"""In a worker process: how lines reach the user."""


def _start_worker(said: SimpleQueue[str]) -> None:
    global _say
    _say = said.put
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's, though all hear them: it ends the pool
        signal.signal(number, signal.SIG_IGN)
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
