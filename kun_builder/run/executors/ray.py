"""Shards on a Ray cluster: batches as tasks, rows in workers that stay (`ray_worker`), the rest of a run here.

Reading and what dataset stages divide are tasks as well (`ray_crew`). Shards, journal and plugins' data lie on paths
that all nodes share; only tasks, records and figures pass through Ray. Verdicts and writing are this process's own.
"""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from kun_builder.errors import ModelError, RunError, Stopped
from kun_builder.models.budget import Budget
from kun_builder.models.connect import collects
from kun_builder.models.journal.journal import default_folder
from kun_builder.run.executors import batches, watchdog
from kun_builder.run.executors.base import Done, Intake, Task, count, count_drops
from kun_builder.run.executors.figures import Merged
from kun_builder.run.executors.ray_cluster import DEATHS, RESTARTS, answer, connected, node_names, shared_token
from kun_builder.run.executors.ray_crew import RayCrew
from kun_builder.run.executors.rows import NEIGHBOURS, RowSettings
from kun_builder.run.executors.travel import load_travelled, pack
from kun_builder.run.holding import LOCK
from kun_builder.run.line import Coming
from kun_builder.run.machine import machine
from kun_builder.status import Status
from kun_builder.types import ModelInfo

if TYPE_CHECKING:
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Engines

LOOK = 0.5
"""Seconds between two requests for a worker's figures, and between two looks for tasks that have come."""
_AHEAD = 2
"""How many shards of a batch segment Ray is given ahead, for each processor."""
_COLLECTED = 64
"""How many shards of a row segment the one worker that collects requests has at most; each holds a thread of it."""


class RayExecutor:
    """The `Executor` of a cluster that this process is connected to."""

    def __init__(
        self,
        status: Status,
        load: bytes,
        workers: Sequence[Any],
        budget: Budget | None,
        shared: Sequence[str],
        *,
        together: bool = False,
    ) -> None:
        """`workers` are actors of `RowWorker`, none where no segment has row stages. `load` is pickled; `shared` are
        files that every node must see. `together`: the rows of many shards wait together (`collects`)."""
        self._status, self._load, self._workers, self._budget = status, load, workers, budget
        self._shared = shared
        self.crew = RayCrew(load, shared)
        self._merged = Merged(status, budget)
        self._polls: dict[Any, int] = {}
        self._under_way: dict[Any, tuple[int, int]] = {}
        """Shards of row segments that workers have, by Ray's reference: number of the worker, number of the task."""
        self._deaths: Counter[int] = Counter()
        self._polled = 0.0
        self.infos: Mapping[str, ModelInfo] = {}
        self.identities: Mapping[str, ModelInfo] = {}
        if workers:
            self.infos, self.identities = _same(answer([worker.who.remote() for worker in workers]))
            self._last_figures()
        self._collected = sum(answer([worker.capacity.remote() for worker in workers])) if together else 0

    def run(self, tasks: Coming[Task], *, rows: bool) -> Iterator[Done]:
        """See `Executor`."""
        if rows:
            yield from self._run_rows(Intake(tasks, lambda record: count(record, self._status)))
            return
        intake = Intake(tasks, lambda record: count_drops(record, self._status))
        for number, record in batches.run_here(intake, self._status.say, batches.SMALL):
            count_drops(record, self._status)
            yield number, record
        yield from self._run_batches(intake)

    @property
    def machine(self) -> str:
        """See `Executor`."""
        import ray

        nodes, cores = len(node_names()), int(ray.cluster_resources().get("CPU", 0))
        return f"{nodes} nodes, {cores} cores (Ray)" if nodes > 1 else machine()

    def serving(self) -> Mapping[str, Any]:
        """See `Executor`. An endpoint has one entry for each worker that asked it."""
        endpoints: dict[str, list[Any]] = {}
        for report in answer([worker.report.remote() for worker in self._workers]):
            for model, of_worker in report["endpoints"].items():
                endpoints.setdefault(model, []).extend(of_worker)
        return {"endpoints": endpoints, "usage": self._merged.usage()} if self._workers else {}

    def close(self) -> None:
        """End the workers. Rows under way are given up; the answers that they had are in the journal."""
        import ray

        closing = [worker.close.remote() for worker in self._workers]
        ray.wait(closing, num_returns=len(closing), timeout=watchdog.GRACE) if closing else None
        for worker in self._workers:
            ray.kill(worker)

    # --- batches -----------------------------------------------------------------------------------------------

    def _run_batches(self, intake: Intake) -> Iterator[Done]:
        import ray

        from kun_builder.run.executors.ray_worker import batch_shard

        remote = ray.remote(num_cpus=1, max_retries=DEATHS, scheduling_strategy="SPREAD")(batch_shard)
        load = ray.put(self._load)
        under_way: dict[Any, int] = {}
        ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        names, last = node_names(), time.monotonic()
        while True:
            yield from intake.take()
            while intake.left and len(under_way) < ahead and not self._status.ending:
                number, task = intake.left.popleft()
                under_way[remote.remote(load, pack(task, self._shared))] = number
            if not under_way and self._status.ending:
                raise Stopped(self._status.ending)
            if not under_way and intake.over:
                return
            for ref in _ready(under_way, intake):
                record, node, said = answer(ref)
                for line in said:
                    self._status.say(f"{names.get(node, node)}: {line}")
                count_drops(record, self._status)
                yield under_way.pop(ref), record
                last = time.monotonic()
            if under_way and time.monotonic() - last > watchdog.SLOW:
                last = time.monotonic()
                self._status.say(f"no shard of this segment was finished for {watchdog.SLOW:g} s; they are still tried")

    # --- rows --------------------------------------------------------------------------------------------------

    def _run_rows(self, intake: Intake) -> Iterator[Done]:
        self._deaths.clear()
        while True:
            yield from intake.take()
            self._hand_out(intake.left, min(_COLLECTED, NEIGHBOURS + self._collected // intake.largest))
            if not self._under_way and self._over(intake):
                break
            for ref in _ready([*self._under_way, *self._polls], intake):
                if ref in self._under_way:
                    yield self._returned(ref)
            self._poll()
        self._last_figures()

    def _over(self, intake: Intake) -> bool:
        try:
            return intake.over
        except Stopped:
            self._end()

    def _hand_out(self, queue: deque[tuple[int, Task]], most: int) -> None:
        """Give shards to the workers, always to the one that has fewest, until each has `most`."""
        load = Counter({worker: 0 for worker in range(len(self._workers))})
        load.update(worker for worker, _ in self._under_way.values())
        while queue and load[worker := min(load, key=lambda one: load[one])] < most:
            number, task = queue.popleft()
            run = self._workers[worker].run.options(concurrency_group="shards")
            self._under_way[run.remote(number, pack(task, self._shared))] = worker, number
            load[worker] += 1

    def _returned(self, ref: Any) -> Done:
        try:
            record = answer(ref)
        except Stopped:
            self._end()
        worker, number = self._under_way.pop(ref)
        self._merged.returned(worker, record)
        return number, record

    def _end(self) -> NoReturn:
        """Called when a worker has stopped because the run ends: wait for the others, then raise the reason."""
        import ray

        if self._under_way:
            ray.wait([*self._under_way], num_returns=len(self._under_way))
        self._last_figures()
        if self._budget and self._budget.used_up():
            raise self._budget.error()
        raise Stopped(self._status.ending)

    def _poll(self) -> None:
        """Take in figures that have come and ask for new ones. Workers also learn so that nothing more may be asked."""
        import ray

        ready, _ = ray.wait([*self._polls], num_returns=len(self._polls), timeout=0) if self._polls else ([], [])
        for ref in ready:
            self._take(self._polls.pop(ref), answer(ref))
        if time.monotonic() - self._polled < LOOK:
            return
        self._polled = time.monotonic()
        ending = self._status.ending
        if not ending and self._budget and self._budget.used_up():
            ending = "the budget is used up"
        for number in set(range(len(self._workers))) - set(self._polls.values()):
            self._polls[self._workers[number].figures.remote(ending)] = number

    def _last_figures(self) -> None:
        for ref, number in list(self._polls.items()):
            self._take(number, answer(ref))
        self._polls = {}
        for number, figures in enumerate(answer([worker.figures.remote("") for worker in self._workers])):
            self._take(number, figures)
        self._merged.settle()

    def _take(self, worker: int, figures: Any) -> None:
        name = node_names().get(figures.node, figures.node)
        if self._merged.take(worker, figures):
            self._status.say(f"worker {worker} of the rows died and was started again on {name}, with its shards")
            self._deaths.update(number for one, number in self._under_way.values() if one == worker)
            if self._deaths and max(self._deaths.values()) > DEATHS:
                raise RunError(
                    f"a shard has cost {DEATHS + 1} workers their life, the last one on {name}",
                    hint="what is finished is kept; fewer rows per shard (`shard_rows`) need less memory",
                )
        for line in figures.said:
            self._status.say(f"{name}: {line}")


def _ready(refs: Collection[Any], intake: Intake) -> list[Any]:
    """Those of Ray's references that are finished, once one is, or, without any, a task has come; after `LOOK` seconds
    anyway."""
    import ray

    if not refs:
        intake.wait(LOOK)
        return []
    ready, _ = ray.wait([*refs], timeout=LOOK)
    return list(ready)


@contextmanager
def open_ray(
    recipe: Recipe,
    status: Status,
    rows: RowSettings | None,
    engines: Engines,
    budget: Budget | None,
) -> Iterator[RayExecutor]:
    """The executor of the cluster at the recipe's address, or of one on this machine, which ends with the run.

    Raises RunError where Ray is not installed, or there is no cluster; ModelError as connecting the models does.
    """
    with ExitStack() as stack:
        stack.enter_context(connected(recipe.ray, recipe.plugins.dirs))
        load = pickle.dumps(
            functools.partial(load_travelled, len(recipe.plugins.dirs), recipe.plugins.disable, os.getcwd())
        )
        shared = [str((recipe.output / LOCK).absolute())]
        if rows:
            journal = (rows.journal or default_folder()).absolute()
            rows = replace(rows, journal=journal)
            shared.append(stack.enter_context(shared_token(journal)))
        together = rows is not None and collects(rows.specs.values(), engines)
        workers = _workers(recipe, load, rows, together) if rows else []
        try:
            executor = RayExecutor(status, load, workers, budget, shared, together=together)
        except BaseException:
            _kill(workers)
            raise
        stack.callback(executor.close)
        if len(workers) > 1:
            status.say(f"rows: {len(workers)} workers on {len(node_names())} nodes")
        yield executor


def _workers(recipe: Recipe, load: bytes, rows: RowSettings, together: bool) -> list[Any]:
    """The workers of row segments, dealt out to the nodes one by one: at most as many as the smallest fixed
    `concurrency`, which they share, and one where requests are collected."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from kun_builder.run.executors.ray_worker import RowWorker

    fixed = [spec.concurrency for spec in rows.specs.values() if spec.concurrency]
    number = 1 if together else min([recipe.ray.actors or len(node_names()), *fixed])
    settings = pickle.dumps(replace(rows, sharers=number))
    actor = ray.remote(
        num_cpus=0,  # they wait for models, and batches of the same rows need the processors
        memory=1 << 20,  # for the sake of their places: one that needs nothing at all goes to any node
        max_restarts=RESTARTS,
        max_task_retries=-1,  # a call waits until its worker is there again; deaths are counted by shard
        concurrency_groups={
            "shards": _COLLECTED if together else NEIGHBOURS
        },  # beside the one call at a time that looks after it
    )(RowWorker)
    # Not Ray's "SPREAD": it looks at load, of which workers that have only just been asked for have none.
    places = [NodeAffinitySchedulingStrategy(node, soft=True) for node in sorted(node_names())]
    dealt = itertools.islice(itertools.cycle(places), number)
    return [actor.options(scheduling_strategy=place).remote(load, settings) for place in dealt]


def _kill(workers: Sequence[Any]) -> None:
    import ray

    for worker in workers:
        ray.kill(worker)


def _same(
    answers: Sequence[tuple[Mapping[str, ModelInfo], Mapping[str, ModelInfo]]],
) -> tuple[Mapping[str, ModelInfo], Mapping[str, ModelInfo]]:
    """Who the models are. Raises ModelError if the workers disagree."""
    for infos, identities in answers[1:]:
        for name, mine in identities.items():
            first = answers[0][1][name]
            if (mine.id, mine.revision) != (first.id, first.revision):
                raise ModelError(
                    f"model `{name}` is {first.id}@{first.revision} to one worker, {infos[name].id}@{mine.revision} to "
                    "another",
                    hint="its endpoints must be the same seen from every node",
                )
    return answers[0]
