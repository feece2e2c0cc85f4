"""What every way of running shards has in common: the task, the `Executor`, and how one shard is computed.

The loop of a run knows the `Executor` alone: it hands over tasks as shards come, and gets records as they finish. Where
they are computed, and in which order, is the executor's own business; what becomes of the rows is not, for each calls
the same `run_shard`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kun_builder.run.line import Coming
from kun_builder.run.processes import Crew
from kun_builder.run.shards import Shard, ShardRecord, finish_shard, read_record, write_empty
from kun_builder.run.worker import Job, Result
from kun_builder.status import Status
from kun_builder.types import ModelInfo

if TYPE_CHECKING:
    import pyarrow as pa

Work = Callable[["pa.Table"], Result]
"""What is done with the living rows of a shard."""

Done = tuple[int, ShardRecord]
"""The number of a task, and the record of its shard."""


@dataclass(frozen=True)
class Task:
    """One shard to compute: where its rows come from, where the result goes, and what is done. It can be pickled."""

    shard: Shard
    output: Path
    key: str
    job: Job


class Executor(Protocol):
    """Runs shards, with the models of the run connected. It belongs to one run, which closes it."""

    @property
    def infos(self) -> Mapping[str, ModelInfo]:
        """Who the models are."""

    @property
    def identities(self) -> Mapping[str, ModelInfo]:
        """Who the models are as far as results depend on it (`Generator.identity`)."""

    @property
    def crew(self) -> Crew:
        """Computes what is no shard yet or no longer one: reading, and what a stage that sees all rows divides."""

    @property
    def machine(self) -> str:
        """What the work is done on, in the words of a card."""

    def run(self, tasks: Coming[Task], *, rows: bool) -> Iterator[Done]:
        """Compute the tasks, all of one segment, of row stages if `rows`; gives the number and the record of each as it
        finishes. Tasks may still come meanwhile.

        Shards that an earlier run finished are given at once. Live figures go to the run's `Status`; of batches that
        are drops only, since their rows may not be through yet. At most one segment with and one without row stages
        run at a time, each in a thread. Raises KunError for what must stop the run, and Stopped when all that was under
        way is finished, if that is how the tasks end.
        """

    def serving(self) -> Mapping[str, Any]:
        """What the serving layer has measured: windows over time, endpoints, retries."""


def run_shard(task: Task, work: Work) -> ShardRecord:
    """Compute one shard, even if it was finished: its living rows through `work`, its file, then its record."""
    from datasets import Features

    task.output.parent.mkdir(parents=True, exist_ok=True)
    task.output.unlink(missing_ok=True)
    rows = task.shard.living()
    if not len(rows):
        result = work(rows.data.table)
        write_empty(task.output, task.job.schema)
    else:
        carried = _Carried(work)
        rows.set_format("arrow")  # in place: `with_format` copies all that a dataset knows of itself
        rows.map(
            carried,
            batched=True,
            batch_size=len(rows),
            features=Features.from_arrow_schema(task.job.schema),
            cache_file_name=str(task.output),
            new_fingerprint=task.key,
            load_from_cache_file=False,
        )
        result = carried.result
    record = ShardRecord.of(task.key, result)
    finish_shard(task.output, record)
    return record


class _Carried:
    """Wraps `work` for `Dataset.map`, which calls it once, with the whole shard. `map` passes on only the table of the
    result; the counts are kept in `result`."""

    result: Result

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, table: pa.Table) -> pa.Table:
        self.result = self._work(table)
        return self.result.table


class Intake:
    """Tasks as they come, with their numbers: those that an earlier run has finished are told apart from the others."""

    def __init__(self, tasks: Coming[Task], finished: Callable[[ShardRecord], None]) -> None:
        """`finished` counts the record of a shard that an earlier run has finished."""
        self._tasks, self._finished = tasks, finished
        self._number = 0
        self.left: deque[tuple[int, Task]] = deque()
        """Those that are to be computed. Whoever computes one takes it from here."""
        self.largest = 1
        """Rows of the largest one so far."""
        self.ring, self.wait = tasks.ring, tasks.wait

    def take(self) -> Iterator[Done]:
        """Take in what has come; gives what was finished."""
        for number, task in enumerate(self._tasks.take(), self._number):
            self._number += 1
            if record := read_record(task.output, task.key):
                self._finished(record)
                yield number, record
            else:
                self.left.append((number, task))
                self.largest = max(self.largest, task.shard.alive)

    @property
    def over(self) -> bool:
        """Whether there is nothing left and nothing more to come. Raises Stopped if the tasks end by that."""
        return not self.left and self._tasks.over

    def large(self, rows: int, most: int) -> bool:
        """Whether there are more than `most` rows: the `rows` so far and what is left. One last shard is never large,
        since it cannot be divided."""
        there = rows + sum(task.shard.alive for _, task in self.left)
        return there > most and (len(self.left) > 1 or not self._tasks.over)


def count(record: ShardRecord, status: Status) -> None:
    """Add the rows and drops of a whole shard to the live figures."""
    status.done += rows_of(record)
    count_drops(record, status)


def count_drops(record: ShardRecord, status: Status) -> None:
    """Add the drops of a whole shard to the live figures."""
    for counts in record.counts:
        for reason, rows in (*counts.dropped.items(), *counts.quarantined.items()):
            status.drops[f"{counts.label}: {reason}"] += rows


def rows_of(record: ShardRecord) -> int:
    """Rows that went into a shard."""
    return record.counts[0].rows_in if record.counts else record.rows
