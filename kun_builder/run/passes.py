"""One segment's pass over the shards of a run, which come one by one and go on one by one."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from kun_builder.run.executors.base import Executor, Task, rows_of
from kun_builder.run.line import Line
from kun_builder.run.plan import Segment, digest
from kun_builder.run.shards import Shard, ShardRecord
from kun_builder.run.worker import Job, make_job
from kun_builder.status import Status


class Pass:
    """Runs one segment, not a dataset stage, over shards as they come, and keeps what became of each."""

    def __init__(
        self, segment: Segment, folder: Path, executor: Executor, status: Status, closed: Collection[str], *, last: bool
    ) -> None:
        """`closed` are the splits whose texts are not published. `last`: this is the last segment of its stretch, whose
        rows count as done."""
        self.segment = segment
        self._closed = closed if segment.kind == "rows" else ()
        self._folder, self._executor, self._status, self._last = folder, executor, status, last
        self._tasks: list[Task] = []
        self._records: dict[int, ShardRecord] = {}
        self._began = 0.0
        self.seconds = 0.0
        """From the first shard that came to the last one that went on, once that has."""

    def run(self, shards: Iterable[Shard], line: Line) -> Iterator[Shard]:
        """The shards after this segment, as they are finished."""
        tasks = line.ahead(self._coming(shards))
        rows = self.segment.kind == "rows"
        for number, record in self._executor.run(tasks, rows=rows):
            self._records[number] = record
            if self._last and not rows:
                self._status.done += rows_of(record)
            yield _finished(self._tasks[number], record)
        self.seconds = round(time.monotonic() - self._began, 3)

    def _coming(self, shards: Iterable[Shard]) -> Iterator[Task]:
        key = self.segment.key(self._executor.identities)
        job: Job | None = None
        for shard in shards:
            if job is None:
                self._began = time.monotonic()
                job = make_job(self.segment, shard.schema, self._closed)
            task_key = digest([shard.key, key, shard.split in self._closed])
            name = f"{shard.split}-{shard.number:05d}-{task_key}.arrow"
            self._tasks.append(Task(shard, self._folder / name, task_key, job))
            yield self._tasks[-1]
        if self._last:
            self._status.total = sum(task.shard.alive for task in self._tasks)

    def results(self, splits: Sequence[str]) -> list[tuple[Shard, ShardRecord]]:
        """The shards after this segment and their records in the order of the input, once all are there."""
        done = [(_finished(self._tasks[number], record), record) for number, record in self._records.items()]
        return sorted(done, key=lambda one: (splits.index(one[0].split), one[0].number))


def _finished(task: Task, record: ShardRecord) -> Shard:
    return Shard(task.shard.split, task.shard.number, task.output, task.key, record.alive)
