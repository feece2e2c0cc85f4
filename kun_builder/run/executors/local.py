"""Shards on one machine: batches in processes, rows in threads over one event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kun_builder.models.budget import Budget
from kun_builder.run.crew import LocalCrew
from kun_builder.run.executors.base import Done, Intake, Task, count, count_drops
from kun_builder.run.executors.batches import computed, run_batches
from kun_builder.run.executors.rows import NEIGHBOURS, RowSettings, RowShards, open_rows
from kun_builder.run.line import Coming
from kun_builder.run.machine import machine
from kun_builder.status import Status
from kun_builder.types import ModelInfo

if TYPE_CHECKING:
    from kun_builder.recipe.registry import Engines


class LocalExecutor:
    """The `Executor` of one machine; `rows` is None where no segment has row stages."""

    def __init__(self, status: Status, load: Callable[[], object], rows: RowShards | None = None) -> None:
        """`load` makes the plugins known in a new process; it is pickled."""
        self._status, self._load, self._rows = status, load, rows
        self.crew = LocalCrew(load)
        self.infos: Mapping[str, ModelInfo] = rows.infos if rows else {}
        self.identities: Mapping[str, ModelInfo] = rows.identities if rows else {}

    @property
    def machine(self) -> str:
        """See `Executor`."""
        return machine()

    def serving(self) -> Mapping[str, Any]:
        """See `Executor`."""
        return self._rows.report() if self._rows else {}

    def run(self, tasks: Coming[Task], *, rows: bool) -> Iterator[Done]:
        """See `Executor`. Rows are counted one by one as they end."""
        if rows:
            yield from self._run_rows(Intake(tasks, lambda record: count(record, self._status)))
            return
        intake = Intake(tasks, lambda record: count_drops(record, self._status))
        for number, record in run_batches(intake, self._status.say, self._load):
            count_drops(record, self._status)
            yield number, record

    def _run_rows(self, intake: Intake) -> Iterator[Done]:
        assert self._rows is not None, "opened for every plan with row stages"
        shards, capacity = self._rows, self._rows.capacity

        def most() -> int:  # a batch API takes the rows of many
            return NEIGHBOURS + capacity // intake.largest

        with ThreadPoolExecutor(NEIGHBOURS + capacity, thread_name_prefix="shard") as pool:
            try:
                yield from computed(
                    intake, lambda number, task: pool.submit(shards.run, number, task), most, shards.look
                )
            except BaseException:
                shards.stop()
                raise


@contextmanager
def open_local(
    status: Status,
    load: Callable[[], object],
    rows: RowSettings | None,
    engines: Engines,
    budget: Budget | None,
) -> Iterator[LocalExecutor]:
    """The executor of this machine; `rows` is None where no segment has row stages."""
    if rows is None:
        yield LocalExecutor(status, load)
        return
    with open_rows(rows, engines, status, budget) as shards:
        yield LocalExecutor(status, load, shards)
