"""The live figures of workers elsewhere, put together as the one `Status` of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from kun_builder.models.budget import Budget
from kun_builder.models.usage import LiveUsage
from kun_builder.report import Tally
from kun_builder.run.executors.base import rows_of
from kun_builder.run.shards import ShardRecord
from kun_builder.status import Passage, Status
from kun_builder.types import Completion

_COUNTERS = ("done", "requests", "reused", "retries", "in_flight", "prompt_tokens", "completion_tokens")
_PASSED = ("come", "left", "passed", "answers")


@dataclass(frozen=True)
class Figures:
    """What a worker has counted since it began. One that died and was started again counts from 0, under another
    `incarnation`."""

    incarnation: str = ""
    node: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)
    passages: Mapping[str, Passage] = field(default_factory=dict)
    usage: Sequence[Mapping[str, Any]] = ()
    """In the form of `usage` in `Generator.report`."""
    said: Sequence[str] = ()
    """Lines for the user since the worker's last figures."""

    @classmethod
    def of(cls, incarnation: str, node: str, status: Status, usage: Sequence[Any], said: Sequence[str]) -> Figures:
        """The figures of this process."""
        counters = {name: getattr(status, name) for name in _COUNTERS}
        return cls(incarnation, node, counters, status.drops.copy(), dict(status.passages), usage, said)


class Merged:
    """Adds up the figures of several workers, as they come, in one `Status`."""

    def __init__(self, status: Status, budget: Budget | None) -> None:
        self._status, self._budget = status, budget
        self._last: dict[int, Figures] = {}
        self._past: list[Mapping[str, Any]] = []
        """Usage of workers that died."""
        self._rows: Counter[int] = Counter()
        """For each worker, the rows that it has counted and whose shard has not come back."""
        self._drops: dict[int, Counter[str]] = {}

    def take(self, worker: int, new: Figures) -> bool:
        """Take in new figures of a worker. Returns whether it has died since its last ones and was started again."""
        old = self._last.get(worker, Figures())
        died = bool(old.incarnation) and old.incarnation != new.incarnation
        if died:
            self._lose(worker, old)
            old = Figures()
        self._last[worker] = new
        for name, value in new.counters.items():
            setattr(self._status, name, getattr(self._status, name) + value - old.counters.get(name, 0))
        dropped = Counter(new.drops)
        dropped.subtract(old.drops)
        self._status.drops.update(dropped)
        self._rows[worker] += new.counters["done"] - old.counters.get("done", 0)
        self._drops.setdefault(worker, Counter()).update(dropped)
        self._pass(new, old)
        self._pay(new, old)
        return died

    def returned(self, worker: int, record: ShardRecord) -> None:
        """Note that a shard which this worker computed has come back, so that its rows are final."""
        self._rows[worker] -= rows_of(record)
        mine = self._drops.setdefault(worker, Counter())
        for counts in record.counts:
            for reason, rows in (*counts.dropped.items(), *counts.quarantined.items()):
                mine[f"{counts.label}: {reason}"] -= rows

    def usage(self) -> list[dict[str, Any]]:
        """Usage by stage and model, summed over all workers, those that died included."""
        names = [item.name for item in fields(LiveUsage)]
        total: dict[tuple[str, str], Counter[str]] = {}
        for one in (*self._past, *(entry for figures in self._last.values() for entry in figures.usage)):
            sums = total.setdefault((one["stage"], one["model"]), Counter())
            sums.update({name: one[name] for name in names})
        return [{"stage": stage, "model": model, **sums} for (stage, model), sums in total.items()]

    def settle(self) -> None:
        """Call this once all shards have come back: from then on only the counts in their records stand."""
        for worker in list(self._last):
            self._forget(worker)

    def _lose(self, worker: int, old: Figures) -> None:
        self._past += old.usage
        self._status.in_flight -= old.counters.get("in_flight", 0)
        self._forget(worker)

    def _forget(self, worker: int) -> None:
        """Take back a worker's rows of shards that have not come back, since they will be counted again."""
        self._status.done -= self._rows.pop(worker, 0)
        self._status.drops.subtract(self._drops.pop(worker, Counter()))
        for what in [what for what, rows in self._status.drops.items() if not rows]:
            del self._status.drops[what]

    def _pass(self, new: Figures, old: Figures) -> None:
        for label, passage in new.passages.items():
            before = old.passages.get(label, Passage(passage.asks))
            mine = self._status.passages.setdefault(label, Passage(passage.asks))
            for name in _PASSED:
                setattr(mine, name, getattr(mine, name) + getattr(passage, name) - getattr(before, name))

    def _pay(self, new: Figures, old: Figures) -> None:
        if self._budget is None:
            return
        paid = {(one["stage"], one["model"]): one for one in old.usage}
        for one in new.usage:
            before = paid.get((one["stage"], one["model"]), Tally().__dict__)
            tokens = [one[name] - before[name] for name in ("prompt_tokens", "completion_tokens")]
            self._budget.add(one["model"], Completion("", "stop", *tokens))
