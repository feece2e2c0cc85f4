"""What runs on the nodes of a Ray cluster: shards of batches as tasks, shards of rows in workers that stay.

A worker of rows is an actor with its own event loop, models, windows and log of the journal. Ray begins it anew, on
another node if need be, when its process or its node dies, and gives it its shards again: the answers that were on disk
are found in the journal.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from kun_builder.run.crew import learn
from kun_builder.run.executors.batches import run_batch
from kun_builder.run.executors.figures import Figures
from kun_builder.run.executors.rows import RowSettings, RowShards, open_rows
from kun_builder.run.executors.travel import Packed, unpack
from kun_builder.run.shards import ShardRecord, read_record
from kun_builder.status import Status
from kun_builder.types import ModelInfo


def batch_shard(load: bytes, packed: Packed) -> tuple[ShardRecord, str, list[str]]:
    """Compute a shard of a batch segment, unless a worker that died since had finished it. Returns its record, the node
    and lines for the user."""
    task, said = unpack(packed, learn(load)), _Said()
    with said.logged():
        record = read_record(task.output, task.key) or run_batch(task, said.say)
    return record, _node(), said.taken()


class RowWorker:
    """Computes shards of row segments, several at once. Its models are connected when it is first called."""

    def __init__(self, load: bytes, settings: bytes) -> None:
        self._load, self._settings = load, settings
        self._incarnation = secrets.token_hex(4)
        self._said = _Said()
        self._status = Status(say=self._said.say)
        self._stack = ExitStack()
        self._opening = threading.Lock()
        self._shards: RowShards | None = None
        self._failure: BaseException | None = None
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()

    def who(self) -> tuple[Mapping[str, ModelInfo], Mapping[str, ModelInfo]]:
        """Who the models are, and their identities (see `Executor`)."""
        shards = self._open()
        return shards.infos, shards.identities

    def capacity(self) -> int:
        """How many rows to keep under way (`Generator.capacity`)."""
        return self._open().capacity

    def run(self, number: int, packed: Packed) -> ShardRecord:
        """Compute a shard, unless it was finished before its worker died."""
        task = unpack(packed, learn(self._load))
        if record := read_record(task.output, task.key):
            return record
        shards = self._open()
        try:
            return shards.run(number, task)
        except BaseException as error:  # it ends the run: the other shards say the same, and not how they end
            self._failure = self._failure or error
            shards.stop()
            raise self._failure from None

    def figures(self, ending: str) -> Figures:
        """The figures so far. `ending` is why nothing more may be asked (`Status.ending`), or "" if the run goes on."""
        self._status.ending = ending or self._status.ending
        usage: Sequence[Any] = ()
        if self._shards is not None:
            self._shards.look()
            usage = self._shards.report()["usage"]
        return Figures.of(self._incarnation, _node(), self._status, usage, self._said.taken())

    def report(self) -> Mapping[str, Any]:
        """What the serving layer has measured (`Generator.report`)."""
        return self._open().report()

    def close(self) -> None:
        """End all rows under way and close the journal with an index, so that the next opening is quick."""
        self._stack.close()

    def _open(self) -> RowShards:
        with self._opening:
            if self._shards is None:
                settings: RowSettings = pickle.loads(self._settings)
                self._stack.enter_context(self._said.logged())
                self._shards = self._stack.enter_context(open_rows(settings, learn(self._load).engines, self._status))
            return self._shards


def _end_with(raylet: int) -> None:
    """End this process when its node is dead: its successor elsewhere has its shards by then, and reads its journal."""
    while os.getppid() == raylet:
        time.sleep(0.1)
    os._exit(1)


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


class _Said(logging.Handler):
    """Keeps lines for the user until they are fetched: those of `say`, and those that modules of kun-builder log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep a line."""
        self._lines.append(line)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is logged."""
        self.say(record.getMessage())

    def taken(self) -> list[str]:
        """The lines since the last time."""
        lines, self._lines = self._lines, []
        return lines

    def logged(self) -> ExitStack:
        """Keep what modules of kun-builder log, until the block ends."""
        ours, stack = logging.getLogger("kun_builder"), ExitStack()
        ours.setLevel(logging.INFO)
        ours.addHandler(self)
        stack.callback(ours.removeHandler, self)
        return stack
