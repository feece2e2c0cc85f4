"""Shards on one machine: batches in processes, rows in threads over one event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kun_builder.models.budget import Budget
from kun_builder.run.executors import watchdog
from kun_builder.run.executors.base import Done, Task, count, sort_out
from kun_builder.run.executors.batches import run_batches
from kun_builder.run.executors.rows import NEIGHBOURS, RowSettings, RowShards, open_rows
from kun_builder.run.machine import machine
from kun_builder.status import Status
from kun_builder.types import ModelInfo

if TYPE_CHECKING:
    from kun_builder.models.connect import EngineEntry
    from kun_builder.run.shards import ShardRecord


class LocalExecutor:
    """The `Executor` of one machine; `rows` is None where no segment has row stages."""

    def __init__(self, status: Status, load: Callable[[], object], rows: RowShards | None = None) -> None:
        """`load` makes the plugins known in a new process; it is pickled."""
        self._status, self._load, self._rows = status, load, rows
        self.infos: Mapping[str, ModelInfo] = rows.infos if rows else {}
        self.identities: Mapping[str, ModelInfo] = rows.identities if rows else {}

    @property
    def machine(self) -> str:
        """See `Executor`."""
        return machine()

    def serving(self) -> Mapping[str, Any]:
        """See `Executor`."""
        return self._rows.report() if self._rows else {}

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """See `Executor`. Rows are counted one by one as they end, batches with their shard."""
        finished, pending = sort_out(tasks, self._status)
        yield from finished
        if pending and pending[0][1].job.rows:
            yield from self._run_rows(pending)
            return
        for number, record in run_batches(pending, self._status.say, self._load):
            count(record, self._status)
            yield number, record

    def _run_rows(self, tasks: Sequence[tuple[int, Task]]) -> Iterator[Done]:
        assert self._rows is not None, "opened for every plan with row stages"
        largest = max(task.shard.rows for _, task in tasks)
        neighbours = NEIGHBOURS + self._rows.capacity // max(1, largest)  # a batch API takes the rows of many
        with ThreadPoolExecutor(neighbours, thread_name_prefix="shard") as pool:
            numbers: dict[Future[ShardRecord], int] = {
                pool.submit(self._rows.run, number, task): number for number, task in tasks
            }
            try:
                while numbers:
                    self._rows.look()
                    done, _ = wait(numbers, timeout=watchdog.LOOK / 4, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield numbers.pop(future), future.result()
            except BaseException:
                self._rows.stop()
                raise
            finally:
                for future in numbers:
                    future.cancel()


@contextmanager
def open_local(
    status: Status,
    load: Callable[[], object],
    rows: RowSettings | None,
    engines: Mapping[str, EngineEntry],
    budget: Budget | None,
) -> Iterator[LocalExecutor]:
    """The executor of this machine; `rows` is None where no segment has row stages."""
    if rows is None:
        yield LocalExecutor(status, load)
        return
    with open_rows(rows, engines, status, budget) as shards:
        yield LocalExecutor(status, load, shards)
