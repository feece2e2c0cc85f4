"""Several endpoints behind one model name, of any kinds: each request goes where it will be answered soonest.

A request waits here until some endpoint's window has a place for it and the limits per minute allow it. Requests of the
row that started first are sent first, so that rows finish one after the other instead of all reaching the same stage at
the same time.

An endpoint whose requests fail one after the other, or that has answered nothing for a while, is asked whether it is
healthy (`watch`). If it is not, or if its requests fail although it says so, it is set aside: what it was working on is
asked elsewhere, and it is probed at growing intervals until it is back.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress

from kun_builder.errors import KunError, RejectedError, RequestError, RunError, TransientError
from kun_builder.models.budget import Spent
from kun_builder.models.member import FIRST_PROBE, Asked, EndpointReport, Member, Place, choose
from kun_builder.models.rate import Sizes
from kun_builder.models.watch import LOOK, SUSPECT, Watch
from kun_builder.status import Status
from kun_builder.types import Completion, Endpoint, Request

_REFUSALS = frozenset({429, 503})
_REFUSES = "wait until the server takes requests again, or name another one in the recipe"
_SMOOTH = 0.05
_GO_OUT = 2  # requests that are given a place in one turn of the event loop


class Pool:
    """The endpoints of one model, watched within `async with`. `ask` sends one request to one of them."""

    def __init__(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        status: Status,
        *,
        concurrency: int = 0,
        sharers: int = 1,
        limits: Mapping[str, float] | None = None,
        wait: float = 600.0,
        check: Callable[[Endpoint], Awaitable[None]] | None = None,
        absent: Collection[str] = (),
    ) -> None:
        """concurrency: a fixed number of requests in flight at each endpoint; with 0 it is found while working.
        sharers: processes of the run that ask the same endpoints, of which `concurrency` and `limits` hold together.
        limits: requests and tokens per minute of each endpoint, by the names that `rate.py` knows.
        wait: seconds to wait for an endpoint when none is left; after that, every request raises RunError.
        check: is called before an endpoint is taken back, and raises KunError if it does not serve what it did.
        absent: addresses of endpoints that do not answer yet. They are probed from the beginning.
        """
        self.name, self._shared = name, (concurrency, sharers, limits or {})
        self.members = [Member(endpoint, *self._shared) for endpoint in endpoints]
        self.on_change: Callable[[], None] = lambda: None
        """Is called when `limit` has changed."""
        self.spent: Callable[[], bool] = lambda: False
        """Is called before each request, and says whether nothing more may be asked in this run."""
        self._status, self.wait, self._check = status, wait, check
        self._queue: list[tuple[int, int, asyncio.Future[Place], Asked]] = []
        """A heap of the requests that wait: the order of the row, a running number, the place to be, the request."""
        self._sizes, self._handing = Sizes(), False
        self._numbers = itertools.count()
        self._watchers: dict[Member, asyncio.Task[None]] = {}
        self._gone: list[EndpointReport] = []
        self._deadline: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._failure: RunError | None = None
        for member in self.members:
            member.aside = member.url in absent

    async def __aenter__(self) -> Pool:
        await asyncio.gather(*map(self._first_look, self.members))
        self._watchers = {member: asyncio.create_task(Watch(member, self).run()) for member in self.members}
        return self

    async def __aexit__(self, *exc: object) -> None:
        for timer in filter(None, (self._deadline, self._pause)):
            timer.cancel()
        for task in self._watchers.values():
            task.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)

    async def add(self, endpoint: Endpoint) -> Member:
        """Take in one more endpoint. The caller has found out that it serves the same model."""
        member = Member(endpoint, *self._shared)
        await self._first_look(member)
        self.members.append(member)
        self._watchers[member] = asyncio.create_task(Watch(member, self).run())
        self._failure = None
        self._changed()
        return member

    async def remove(self, member: Member) -> None:
        """Give an endpoint no further requests, and return once those that are under way there have ended."""
        member.leaving = True
        self._missed()
        while member.window.in_flight:  # noqa: ASYNC110  # each of them ends somewhere else
            await asyncio.sleep(10 * LOOK)
        self._watchers.pop(member).cancel()
        self.members.remove(member)
        self._gone.append(member.report())

    async def _first_look(self, member: Member) -> None:
        member.window.on_change = self._changed
        with suppress(TimeoutError):
            if not member.aside and await member.waiting() is not None:
                member.window.tells()

    @property
    def limit(self) -> int:
        """How many requests may be in flight now, at all endpoints together."""
        return sum(member.window.limit for member in self.members if member.available)

    async def ask(self, request: Request, kind: str, order: int = 0, avoid: str = "") -> Completion:
        """Send a request to one endpoint, once there is a place for it, and return the answer.

        kind: the stage that asks; its requests are taken to be alike in size.
        order: where requests wait, those of the lowest number are sent first.
        avoid: address of an endpoint that is taken only if there is no other.

        Raises what the endpoint raises, TransientError when it is set aside meanwhile, RunError when none is left, and
        Spent when nothing more may be asked.
        """
        place = await self._place(order, Asked(request, kind, avoid))
        member, started = place.member, place.started
        if self.spent():
            place.give_back()
            self._hand_out()
            raise Spent
        task = asyncio.current_task()
        assert task is not None
        member.tasks.add(task)
        self._status.in_flight += 1
        try:
            completion = await member.endpoint.complete(request)
        except asyncio.CancelledError:
            member.window.failed(refused=False, started=started)
            if task in member.lost and not task.uncancel():
                raise TransientError(f"{member.url} was set aside meanwhile", endpoint=member.url) from None
            raise
        except BaseException as error:
            self._failed(member, error, started)
            raise
        else:
            self._answered(place, kind, completion)
            return completion
        finally:
            self._status.in_flight -= 1
            member.tasks.discard(task)
            member.lost.discard(task)
            self._hand_out(getattr(member.endpoint, "linger", 0.0))

    async def count_tokens(self, text: str) -> int:
        """Number of tokens of `text`, from the first endpoint that tells it. Raises TransientError if none does."""
        error = TransientError(f"model `{self.name}` has no endpoint now")
        for member in sorted(self.members, key=lambda member: member.aside):
            try:
                return await member.endpoint.count_tokens(text)
            except TransientError as failure:
                error = failure
        raise error

    def report(self) -> list[EndpointReport]:
        """What each endpoint did so far, those included that have been removed."""
        return [*self._gone, *(member.report() for member in self.members)]

    # --- places ------------------------------------------------------------------------------------------------

    async def _place(self, order: int, asked: Asked) -> Place:
        if self._failure is not None:
            raise self._failure
        if not self._queue and (free := self._free(asked)) is not None:
            return free
        place: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (order, next(self._numbers), place, asked))
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given a place in the moment in which it was cancelled
                place.result().give_back()
                self._hand_out()
            raise

    def _free(self, asked: Asked) -> Place | None:
        """A place for a request, or None if there is none at present.

        If only limits per minute are in the way, a timer hands out places as soon as they allow it.
        """
        tokens = self._sizes.guess(asked.kind, asked.request)
        member, pause = choose(self.members, asked.avoid, tokens)
        if member is not None:
            member.rate.take(tokens)
            return Place(member, self._start(member), tokens)
        if pause:
            if self._pause is not None:
                self._pause.cancel()
            self._pause = asyncio.get_running_loop().call_later(pause, self._hand_out)
        return None

    def _start(self, member: Member) -> float:
        started = member.window.start()
        if member.window.in_flight == 1:
            member.heard = started
            member.news.set()
        return started

    def _hand_out(self, linger: float = 0.0) -> None:
        """Give free places to the requests that wait, in their order, a few in each turn of the event loop: sending is
        work, and answers that come meanwhile are read between the turns. After `linger` seconds, the row that was just
        answered waits too, before all that started later."""
        if not self._handing:
            self._handing = True
            loop = asyncio.get_running_loop()
            if linger:
                loop.call_later(linger, self._hand_out_some)
            else:
                loop.call_soon(self._hand_out_some)

    def _hand_out_some(self) -> None:
        self._handing = False
        for _ in range(_GO_OUT):
            if not self._queue:
                return
            _, _, place, asked = self._queue[0]
            if not place.done():
                if (free := self._free(asked)) is None:
                    return
                place.set_result(free)
            heapq.heappop(self._queue)
        self._hand_out()

    def _changed(self) -> None:
        self._hand_out()
        self.on_change()

    # --- health ------------------------------------------------------------------------------------------------

    def _answered(self, place: Place, kind: str, completion: Completion) -> None:
        member, tokens = place.member, completion.prompt_tokens + completion.completion_tokens
        member.rate.correct(place.tokens, tokens)
        self._sizes.learn(kind, tokens)
        pace = member.window.answered(kind, place.started, completion.completion_tokens)
        member.pace += (pace - member.pace) * (_SMOOTH if member.pace else 1.0)
        member.note_answer(time.monotonic() - place.started)
        self._alive(member)

    def _alive(self, member: Member) -> None:
        member.failures, member.refusal, member.heard = 0, None, time.monotonic()
        self.doubt(member, False)
        if not member.proven:
            member.proven, member.probe = True, FIRST_PROBE
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _failed(self, member: Member, error: BaseException, started: float) -> None:
        member.refusal = error if isinstance(error, RequestError) and error.status else None
        refused = member.refusal is not None and member.refusal.status in _REFUSALS
        member.window.failed(refused=refused, started=started)
        member.failed += 1
        if isinstance(error, RejectedError):
            self._alive(member)
        elif isinstance(error, TransientError):
            member.failures += 1
            if member.failures >= SUSPECT:
                member.news.set()

    def doubt(self, member: Member, doubted: bool) -> None:
        """Give no further requests to an endpoint that says nothing, or, if it talks again, give it some as before."""
        if member.doubted == doubted:
            return
        member.doubted = doubted
        if doubted:
            asked = member.window.in_flight
            self._status.say(
                f"model `{self.name}`: {member.url} says nothing; it gets no more than its {asked} requests"
            )
        self._changed()

    def set_aside(self, member: Member) -> None:
        """Give up on an endpoint until it is back: the requests that it was working on are asked elsewhere."""
        member.aside, member.proven, member.doubted = True, False, False
        member.set_aside += 1
        for task in member.tasks:
            member.lost.add(task)
            task.cancel()
        what = f"answers {member.refusal.status} to every request" if member.refusal else "does not answer"
        said = f"model `{self.name}`: {member.url} {what}"
        if others := sum(other.available for other in self.members):
            self._status.say(f"{said}; the other {others} take over until it is back")
        elif self._deadline is None:
            self._status.say(f"{said}; waiting up to {self.wait:g} s for it")
        self._missed()

    def _missed(self) -> None:
        """After an endpoint has gone: if none is left, begin to wait for one, for as long as the recipe allows."""
        if self._deadline is None and not any(member.available for member in self.members):
            self._deadline = asyncio.get_running_loop().call_later(self.wait, self._give_up)
        self._changed()

    async def take_back(self, member: Member) -> bool:
        """Give an endpoint requests again. Returns False, and does not, if it no longer serves what it did before."""
        if not await self._same(member):
            return False
        member.note_return()
        self._failure = None
        self._status.say(f"model `{self.name}`: {member.url} is back")
        self._changed()
        return True

    async def _same(self, member: Member) -> bool:
        try:
            if self._check is not None:
                await self._check(member.endpoint)
        except KunError as error:
            self._status.say(f"{error.message}: not taken back")
            return False
        return True

    def _give_up(self) -> None:
        """End the waiting: no endpoint has answered for as long as the recipe allows. All that wait get a RunError."""
        if any(member.available for member in self.members):
            self._deadline = asyncio.get_running_loop().call_later(min(60.0, self.wait), self._give_up)
            return
        self._deadline = None
        urls = ", ".join(member.url for member in self.members) or "there is none"
        told = next((f"; the last time: {member.refusal.message}" for member in self.members if member.refusal), "")
        cure = _REFUSES if told else "start a server"
        self._failure = RunError(
            f"model `{self.name}`: no endpoint has answered for {self.wait:g} s: {urls}{told}",
            hint=f"{cure}, then run the same command again: it goes on where it stopped",
        )
        while self._queue:
            _, _, place, _ = self._queue.pop()
            if not place.done():
                place.set_exception(self._failure)
