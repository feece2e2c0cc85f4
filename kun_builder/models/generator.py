"""What stands behind `Generate`: the journal, then one request for all rows that ask the same, then the pool.

    async with open_models(specs, registry.engines, journal, status) as generator:
        completion = await generator.ask("chat", Request("..."), Asker(stage="summarise"))

An answer is on disk before `ask` returns. Whether a failure is tried again depends on its kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, NoReturn

from kun_builder.engines.process import allow_connections, rare_collections
from kun_builder.errors import Drop, FatalError, RejectedError, Stopped, TransientError
from kun_builder.models.attempts import ATTEMPTS, described, pause, used_up
from kun_builder.models.budget import Budget, Spent
from kun_builder.models.connect import connect
from kun_builder.models.control import Guard
from kun_builder.models.flaws import all_thought, changed_for, check_end, has_flaw, size_of
from kun_builder.models.journal.journal import Journal, question
from kun_builder.models.journal.packing import marked
from kun_builder.models.pool import Pool
from kun_builder.models.schema import Mismatch, check_schema, read_answer
from kun_builder.models.usage import LiveUsage
from kun_builder.recipe.registry import Engines
from kun_builder.status import Status
from kun_builder.types import Completion, ModelInfo, ModelSpec, Request

_FEWEST_ROWS = 64
_LOOK = 0.05  # seconds between looks at whether all that is under way has been answered
_TOO_LARGE = frozenset({400, 413, 422})
_BROKE_OFF = frozenset({"error", "reasoning without an answer"})  # no fault of the text: worth one more question
_NO_ANSWER = 200  # status of what a server takes for an answer, and is none
_WRONG_ANSWERS = 3  # after so many in a row the server will not answer this request otherwise
_FORBIDDEN, _ITS_TEXT = frozenset({403, 451}), 8
"""A server that forbids single requests between answers objects to their text: a filter or a firewall stands before the
model. So many in a row without an answer mean that the key is refused."""
_LONG_PAUSE = 60.0  # seconds from which on a pause that a server asks for is mentioned


@dataclass(slots=True)
class Asker:
    """Who asks: a row at one of its stages.

    order: where requests wait, those of the lowest number are sent first.
    answers, failures: how many answers the row has got so far, and what went wrong, over all of its stages.
    """

    stage: str = ""
    order: int = 0
    answers: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass
class Model:
    """What stands behind one name in the recipe's `models:`: who the model is, and where its requests go."""

    info: ModelInfo
    pool: Pool
    origins: tuple[str, ...]
    """What stands for its revision in the journal's keys: new answers get the first, old ones may have any of them."""
    guard: Guard
    forbidden: int = _ITS_TEXT
    """Requests that were forbidden since the last answer. Before the first answer, one is too many."""

    def forbids(self, error: FatalError) -> bool:
        """Whether a request was forbidden that may have itself to blame."""
        forbidden = error.status in _FORBIDDEN
        self.forbidden += forbidden
        return forbidden and self.forbidden <= _ITS_TEXT


class Generator:
    """Asks models on behalf of all rows of a run. Belongs to one event loop."""

    def __init__(
        self, models: Mapping[str, Model], journal: Journal, status: Status, budget: Budget | None = None
    ) -> None:
        self._models, self._budget, self._ending, self._said = models, budget, False, False
        self._journal = journal
        self._status = status
        self._paused: set[str] = set()
        self._under_way: dict[str, list[asyncio.Future[Completion | None]]] = {}
        self.usage: dict[tuple[str, str], LiveUsage] = {}
        """By stage and model, since the generator was opened."""
        self.on_growth: Callable[[], None] = lambda: None
        """Called when `capacity` has changed, so that more rows can be sent on their way."""
        self._pools = list({id(model.pool): model.pool for model in models.values()}.values())
        self.capacity = _FEWEST_ROWS
        """How many rows to keep under way: half as many again as requests, so that a next one is always ready."""
        for pool in self._pools:
            pool.on_change = self._changed
            pool.spent = self._spent
        self._changed()

    def _changed(self) -> None:
        self.capacity = max(_FEWEST_ROWS, 3 * sum(pool.limit for pool in self._pools) // 2)
        self.on_growth()

    def _spent(self) -> bool:
        return bool(self._status.ending) or (self._budget is not None and self._budget.used_up())

    def info(self, model: str) -> ModelInfo:
        """Who `model` is."""
        return self._models[model].info

    def identity(self, model: str) -> ModelInfo:
        """Who `model` is as far as results depend on it. If it tells no revision, `revision` is what stands for one."""
        return replace(
            self._models[model].info, revision=self._models[model].origins[0] + self._models[model].info.variant
        )

    async def count_tokens(self, model: str, text: str) -> int:
        """Number of tokens of `text` for `model`. Raises RejectedError once `ATTEMPTS` attempts have failed."""
        failures: list[str] = []
        while True:
            try:
                return await self._models[model].pool.count_tokens(text)
            except TransientError as error:
                failures.append(described(error))
                if len(failures) == ATTEMPTS:
                    raise used_up(model, error, failures) from error
                await asyncio.sleep(pause(len(failures), self._wish(model, self._models[model].pool, error)))

    async def ask(self, model: str, request: Request, asker: Asker) -> Completion:
        """The model's answer, from the journal if it has one.

        Transient failures are tried again, after growing pauses outside of any window, up to `ATTEMPTS` for each
        asker; then RejectedError with all of them. A truncated or empty answer is kept, dropped (Drop `truncated` or
        `empty`) or asked again, as the request says. An answer that was not brought to an end (`unfinished`) or holds a
        replacement character (`garbled`) is dropped; one that is not as the request's schema demands is asked again,
        then dropped (`off_schema`). A request that is forbidden while others are answered is a RejectedError too; any
        other FatalError, RunError and PluginError (a wrong schema) stop the run.
        """
        if request.schema is None:
            return await self._ended(model, request, asker)
        check_schema(request.schema, asker.stage)
        fault = ""
        for asked in (request, changed_for("off_schema", request)):
            completion = await self._ended(model, asked, asker)
            try:
                return replace(completion, data=read_answer(completion.text, request.schema, asker.stage))
            except Mismatch as mismatch:
                fault = str(mismatch)
                self._usage(asker.stage, model).off_schema += 1
        raise Drop("off_schema", fault)

    async def _ended(self, model: str, request: Request, asker: Asker) -> Completion:
        """An answer that is complete as far as its end tells. Raises Drop for one that is not."""
        completion = await self._finished(model, request, asker)
        if completion.finish_reason in _BROKE_OFF:
            completion = await self._once_more("unfinished", model, request, asker)
        check_end(completion, request)
        for flaw, rule in (("truncated", request.on_length), ("empty", request.on_empty)):
            if not has_flaw(flaw, completion) or (flaw == "empty" and all_thought(completion)):
                continue
            if flaw == "truncated" and rule == "keep" and request.max_new_tokens == 1:
                continue  # one token is all that was asked for
            usage = self._usage(asker.stage, model)
            setattr(usage, flaw, getattr(usage, flaw) + 1)
            if rule == "retry":
                completion = await self._once_more(flaw, model, request, asker)
                check_end(completion, request)
            if rule == "drop" or (rule == "retry" and has_flaw(flaw, completion)):
                raise Drop(flaw, size_of(completion))
        if all_thought(completion) and request.max_new_tokens > 1 and not request.choices:
            raise Drop("truncated", size_of(completion))  # there is nothing to keep
        return completion

    async def _once_more(self, flaw: str, model: str, request: Request, asker: Asker) -> Completion:
        try:
            return await self._finished(model, changed_for(flaw, request), asker)
        except RejectedError as error:
            if error.status in _TOO_LARGE:  # the model's context does not hold twice the tokens
                raise Drop(flaw, request.max_new_tokens) from error
            raise

    def report(self) -> dict[str, Any]:
        """Endpoints of each model with their windows over time; usage by stage and model."""
        endpoints = {name: [asdict(one) for one in model.pool.report()] for name, model in self._models.items()}
        usage = [{"stage": stage, "model": model, **asdict(one)} for (stage, model), one in self.usage.items()]
        return {"endpoints": endpoints, "usage": usage}

    def _usage(self, stage: str, model: str) -> LiveUsage:
        usage = self.usage.get((stage, model))
        if usage is None:
            usage = self.usage[stage, model] = LiveUsage()
        return usage

    async def _finished(self, model: str, request: Request, asker: Asker) -> Completion:
        """An answer that is on disk already, from wherever it comes.

        It comes out of the journal, from another row that asks the same just now, or from a server.
        """
        info, (origin, *others) = self._models[model].info, self._models[model].origins
        request = self._models[model].guard(request)
        asked = question(info.id, origin + info.variant, request)
        keys = [asked.key, *(question(info.id, other + info.variant, request).key for other in others)]
        if (known := await self._known(keys)) is not None:
            return self._reused(asker, model, known)
        followers = self._under_way[asked.key] = []
        try:
            completion = await self._answered(model, request, asker)
            completion = marked(completion, asked.key, cached=False)
            await self._journal.put(asked, completion)
            known = completion
            return completion
        except Spent:
            pass
        except (RejectedError, FatalError) as error:
            for follower in followers:
                if not follower.done():
                    follower.set_exception(error)
            raise
        finally:
            del self._under_way[asked.key]
            for follower in followers:  # without an answer, the next of them asks
                if not follower.done():
                    follower.set_result(known)
        return await self._end()

    async def _known(self, keys: Sequence[str]) -> Completion | None:
        """The answer of another row that asks the same (its first key) just now, or the journal's; None without."""
        while (followers := self._under_way.get(keys[0])) is not None:
            follower: asyncio.Future[Completion | None] = asyncio.get_running_loop().create_future()
            followers.append(follower)
            if (known := await follower) is not None:
                return known
        return next((known for key in keys if (known := self._journal.get(key)) is not None), None)

    async def _end(self) -> NoReturn:
        """End the run once the requests under way are answered: they are paid for, and would be lost."""
        if self._status.ending and not self._said:
            self._said = True
            self._status.say(f"{self._status.ending}: nothing more is asked; waiting for answers that are under way")
        while self._under_way or self._ending:  # noqa: ASYNC110  # where another row ends it, this one is cancelled
            await asyncio.sleep(_LOOK)
        self._ending = True
        if self._status.ending:
            raise Stopped(self._status.ending)
        raise self._budget.error()  # type: ignore[union-attr]  # without a budget, nothing is spent

    def _reused(self, asker: Asker, model: str, completion: Completion) -> Completion:
        self._status.reused += 1
        asker.answers += 1
        self._usage(asker.stage, model).reused += 1
        return completion if completion.cached else marked(completion, completion.key, cached=True)

    async def _answered(self, model: str, request: Request, asker: Asker) -> Completion:
        """Ask until there is an answer or the row's attempts are used up."""
        pool, status, usage = self._models[model].pool, self._status, self._usage(asker.stage, model)
        avoid, failed, wrong = "", 0, 0
        while True:
            try:
                completion = await pool.ask(request, asker.stage, asker.order, avoid)
            except TransientError as error:
                asker.failures.append(described(error))
                wrong = wrong + 1 if error.status == _NO_ANSWER else 0
                if wrong == _WRONG_ANSWERS or len(asker.failures) >= ATTEMPTS:
                    raise used_up(model, error, asker.failures) from error
                avoid, failed, retry_after = error.endpoint, failed + 1, self._wish(model, pool, error)
            except FatalError as error:
                if not self._models[model].forbids(error):
                    raise
                raise RejectedError(error.message, status=error.status, endpoint=error.endpoint) from error
            else:
                self._models[model].forbidden = 0
                status.requests += 1
                asker.answers += 1
                status.prompt_tokens += completion.prompt_tokens
                status.completion_tokens += completion.completion_tokens
                usage.add(completion)
                if self._budget:
                    self._budget.add(model, completion)
                return completion
            status.retries += 1
            usage.retries += 1
            await asyncio.sleep(pause(failed, retry_after))

    def _wish(self, model: str, pool: Pool, error: TransientError) -> float | None:
        """The pause in seconds that a server asks for, if any. If it is over 60 s: None where another endpoint can be
        asked, FatalError where it is longer than the model's `wait`; otherwise the user is told."""
        wish = error.retry_after
        if wish is None or wish <= _LONG_PAUSE:
            return wish
        if sum(member.available for member in pool.members) > 1:
            return None
        until = timedelta(seconds=round(wish))
        if wish > pool.wait:
            raise FatalError(
                f"model `{model}`: {error.endpoint} asks to come back in {until}: {error.message}",
                status=error.status,
                endpoint=error.endpoint,
                hint="run the same command again then: it goes on where it stopped; or raise `wait` of the model",
            ) from error
        if error.endpoint not in self._paused:
            self._paused.add(error.endpoint)
            self._status.say(f"model `{model}`: {error.endpoint} asks for a pause of {until}: {error.message}")
        return wish


# --- opening ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_models(
    specs: Mapping[str, ModelSpec],
    engines: Engines,
    journal: Journal,
    status: Status,
    budget: Budget | None = None,
    sharers: int = 1,
) -> AsyncIterator[Generator]:
    """Connect all models and ask them who they are; the journal is closed in the end.

    `sharers`: processes of this run that ask the same endpoints, this one included. Models whose specs differ only in
    name and price share endpoints. Raises ModelError for an unknown engine, for a model that no endpoint serves, and
    for endpoints of one name that serve different models.
    """
    async with AsyncExitStack() as stack:
        stack.push_async_callback(journal.close)
        allow_connections()
        stack.enter_context(rare_collections())
        shared: dict[str, Model] = {}
        models = {}
        for name, spec in specs.items():
            identity = repr(replace(spec, name="", cost_in=0.0, cost_out=0.0)) + spec.api_key + repr(spec.headers)
            if identity not in shared:
                opened = await stack.enter_async_context(connect(spec, engines, status, journal.folder, sharers))
                shared[identity] = Model(*opened)
            models[name] = shared[identity]
        yield Generator(models, journal, status, budget)
