"""Row stages at work: every row goes through all stages of its segment as one coroutine, without a barrier.

Rows overtake each other; results come back in input order. How many rows are under way follows the models' windows
(`Generator.capacity`); rows of an earlier shard start before those of a later one, so that the next shard fills exactly
the places that the last rows of the previous one leave empty.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kun_builder.drops import DROPPED, QUARANTINED
from kun_builder.errors import Drop, FatalError, KunError, RejectedError, RequestError, RunError
from kun_builder.models.generator import Asker
from kun_builder.report import Tally
from kun_builder.status import Passage, Status
from kun_builder.types import Completion, ModelInfo, PromptText, Request, Row

if TYPE_CHECKING:
    from kun_builder.models.generator import Generator
    from kun_builder.run.plan import Step

CALL_COLUMNS = ("stage", "model", "key", "prompt_tokens", "completion_tokens")
"""Fields of one entry of the column `calls`: who asked which model, and where the journal has the answer."""

REFUSED = "request_rejected"
"""Reason of a row whose request a server refused or whose retries are used up. The stage is not to blame."""

HUNG = "hung"
"""Reason of a row whose stage made no progress outside of `generate` for too long (`executors.watchdog.HANG`)."""

_TURN = 8
"""How many rows start before answers are read again. Rows whose answers are all in the journal run through at once, and
an answer that waited meanwhile would be lost if the process were killed."""


@dataclass(slots=True)
class Outcome:
    """How a row ended: its columns, and the verdict if it died (`died_at` is the number of the step)."""

    row: Row
    died_at: int | None = None
    outcome: str | None = None
    reason: str | None = None
    value: str | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)


class RowGenerate:
    """`Generate` for one row: remembers which step asks, and what was asked.

    `asking` counts its requests under way, `moves` its signs of life: plain numbers, for there are thousands of rows.
    """

    __slots__ = ("_asker", "_calls", "_generator", "_tallies", "asking", "moves")

    def __init__(
        self, generator: Generator, order: int, calls: list[dict[str, Any]], tallies: dict[tuple[str, str], Tally]
    ) -> None:
        self._generator, self._calls, self._tallies = generator, calls, tallies
        self._asker = Asker(order=order)
        self.asking = self.moves = 0

    @property
    def answers(self) -> int:
        """Number of answers that the row has got so far."""
        return self._asker.answers

    def at(self, stage: str) -> None:
        """Note that the row has come to this stage."""
        self._asker.stage = stage
        self.moves += 1

    async def __call__(self, model: str, prompt: PromptText, /, **parameters: Any) -> Completion:
        """Ask `model`; see `kun_builder.types.Generate`."""
        request = Request(prompt if isinstance(prompt, str) else tuple(prompt), **parameters)
        stage = self._asker.stage
        self.asking += 1
        try:
            completion = await self._generator.ask(model, request, self._asker)
        finally:
            self.asking -= 1
            self.moves += 1
        facts = (stage, model, completion.key, completion.prompt_tokens, completion.completion_tokens)
        self._calls.append(dict(zip(CALL_COLUMNS, facts, strict=True)))
        tally = self._tallies.get((stage, model))
        if tally is None:
            tally = self._tallies[stage, model] = Tally()
        tally.add(completion)
        return completion

    def info(self, model: str) -> ModelInfo:
        """Who `model` is."""
        return self._generator.info(model)

    async def count_tokens(self, model: str, text: str) -> int:
        """Number of tokens of `text` for `model`."""
        self.asking += 1
        try:
            return await self._generator.count_tokens(model, text)
        finally:
            self.asking -= 1
            self.moves += 1


@dataclass(slots=True)
class _UnderWay:
    """A row at one of its steps. `looks` counts how often in a row it was seen without having moved."""

    generate: RowGenerate
    step: Step
    moves: int = -1
    looks: int = 0
    hung: bool = False


class RowRunner:
    """Runs the rows of several shards at once over one generator, on the generator's event loop."""

    def __init__(self, generator: Generator, status: Status, stop_after: int = 0) -> None:
        """`stop_after`: the run ends after this many rows in a row that failed alike; with 0 it never does."""
        self._generator = generator
        self._stop_after, self._alike, self._failure = stop_after, 0, ("", "")
        self._status = status
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._running = self._order = 0
        self._under_way: dict[asyncio.Task[Any] | None, _UnderWay] = {}
        self.stopped = False
        """Set before the models are closed. Whatever rows raise from then on is neither their fault nor a result."""
        generator.on_growth = self._fill

    async def run(
        self, shard: int, rows: Sequence[Row], steps: Sequence[Step]
    ) -> tuple[list[Outcome], Mapping[tuple[str, str], Tally]]:
        """Send `rows` through `steps`; outcomes are in the order of `rows`. Raises only what must stop the run."""
        for step in steps:
            self._status.passages.setdefault(step.label, Passage(bool(step.models)))
        tallies: dict[tuple[str, str], Tally] = {}
        outcomes = [Outcome(dict(row)) for row in rows]
        try:
            async with asyncio.TaskGroup() as tasks:  # the first row that stops the run ends all of them
                for number, outcome in enumerate(outcomes):
                    await self._place(shard, number)
                    tasks.create_task(self._row(outcome, steps, tallies))
                    if number % _TURN == 0:
                        await asyncio.sleep(0)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        if self.stopped:
            raise asyncio.CancelledError
        return outcomes, tallies

    async def _place(self, shard: int, number: int) -> None:
        """Wait until one more row may be under way. Rows of earlier shards go first."""
        if self._running < self._generator.capacity:  # then nobody waits: `_fill` has let all in that had room
            self._running += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (shard, number, place))
        await place

    def _fill(self) -> None:
        """Let waiting rows start while there is capacity. Called when a row has ended or the capacity has grown."""
        while self._waiting and self._running < self._generator.capacity:
            *_, place = heapq.heappop(self._waiting)
            if not place.done():
                place.set_result(None)
                self._running += 1

    def look(self, patience: int) -> None:
        """Take rows out of their stage that have not moved for `patience` looks in a row, and were not at a model.

        To be called now and then, on the event loop. Looks are counted and not seconds: while something else holds up
        the loop nobody looks, so no row has to answer for that.
        """
        for task, row in self._under_way.items():
            if row.generate.asking or row.generate.moves != row.moves:
                row.moves, row.looks = row.generate.moves, 0
                continue
            row.looks += 1
            if row.looks >= patience and task is not None:
                row.hung = True
                task.cancel()  # and again at the next look, if the stage does not heed it

    def step_of(self, task: asyncio.Task[Any] | None) -> Step | None:
        """The step that `task` is at, if it is a row."""
        row = self._under_way.get(task)
        return row.step if row else None

    async def _row(self, outcome: Outcome, steps: Sequence[Step], tallies: dict[tuple[str, str], Tally]) -> None:
        self._order += 1
        generate = RowGenerate(self._generator, self._order, outcome.calls, tallies)
        row_id, number = outcome.row["id"], 0
        task = asyncio.current_task()
        under_way = self._under_way[task] = _UnderWay(generate, steps[0])
        try:
            for number, step in enumerate(steps):  # noqa: B007  # the verdict names the step
                generate.at(step.label)
                under_way.step = step
                run: Callable[..., Awaitable[Row]] = step.stage.run  # type: ignore[assignment]  # all are row stages
                with self._passing(step, generate):
                    outcome.row = {**await run(outcome.row, generate, **step.arguments), "id": row_id}
        except Drop as drop:
            outcome.row.update(drop.added)
            self._died(outcome, steps, number, DROPPED, drop.reason, drop.value)
        except RejectedError as error:
            self._died(outcome, steps, number, QUARANTINED, REFUSED, str(error))
        except asyncio.CancelledError:
            if not under_way.hung or self.stopped:
                raise
            self._died(outcome, steps, number, QUARANTINED, HUNG, f"no progress outside of a model: {under_way.step}")
        except (FatalError, RequestError, KunError):
            raise
        except (
            Exception,
            SystemExit,
            KeyboardInterrupt,
        ) as error:  # a stranger's; a real Ctrl-C never comes to this loop
            if self.stopped:
                raise
            self._died(outcome, steps, number, QUARANTINED, type(error).__name__, str(error)[:500])
        finally:
            del self._under_way[task]
            self._status.done += 1
            self._running -= 1
            self._fill()
        self._count_failure(outcome, steps)

    @contextmanager
    def _passing(self, step: Step, generate: RowGenerate) -> Iterator[None]:
        """Count a row at a step while the block runs. The time that is left is reckoned from these counts."""
        before = generate.answers
        passage = self._status.passages[step.label]
        passage.come += 1
        try:
            yield
            passage.passed += 1
        finally:
            passage.left += 1
            passage.answers += generate.answers - before

    def _count_failure(self, outcome: Outcome, steps: Sequence[Step]) -> None:
        """Raises RunError for the last of too many rows that failed alike, in one stage and for one reason of error."""
        if outcome.died_at is None or outcome.outcome != QUARANTINED:
            self._alike = 0
            return
        failure = (steps[outcome.died_at].label, outcome.reason or "")
        self._alike = self._alike + 1 if failure == self._failure else 1
        self._failure = failure
        if self._alike == self._stop_after:
            raise RunError(
                f"the last {self._alike} rows all failed at stage `{failure[0]}` as `{failure[1]}`: {outcome.value} "
                f"(row {outcome.row['id']})",
                hint="mend the cause and run the same command again: it goes on where it stopped; "
                "`stop_after_failures: 0` in the recipe lets a run go on all the same",
            )

    def _died(self, outcome: Outcome, steps: Sequence[Step], number: int, how: str, reason: str, value: str) -> None:
        outcome.died_at, outcome.outcome, outcome.reason, outcome.value = number, how, reason, value
        self._status.drops[f"{steps[number].label}: {reason}"] += 1
