"""One endpoint of a pool, with its window, its limits per minute, its health and its figures; and the choice of the one
that a request goes to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kun_builder.errors import RequestError
from kun_builder.models.rate import Rate
from kun_builder.models.window import Window
from kun_builder.types import Endpoint, Request

FIRST_PROBE = 0.5
"""Seconds until an endpoint that was set aside is first probed."""
_HEALTH = 5.0  # seconds in which a healthy endpoint says so
_FORGET = 0.99  # how much of its slowest answer is remembered after another one


@dataclass(frozen=True)
class EndpointReport:
    """What one endpoint did: how many requests it answered, how many failed there, how often it was set aside.

    window: its limit of requests in flight over time, as pairs (seconds since the start, limit).
    limits: those that the recipe sets, per minute.
    """

    url: str
    answered: int
    failed: int
    set_aside: int
    window: tuple[tuple[float, int], ...]
    limits: Mapping[str, float] = field(default_factory=dict)


class Member:
    """One endpoint of a pool, with all that the pool knows of it."""

    def __init__(self, endpoint: Endpoint, concurrency: int, sharers: int, limits: Mapping[str, float]) -> None:
        self.endpoint, self.url = endpoint, endpoint.url
        self.limits, self.rate = limits, Rate(limits, sharers)
        self._told = not concurrency  # then the endpoint may say: a batch API how many it collects, llama.cpp its slots
        self.window = Window(concurrency or self._at_once, sharers=sharers)
        self.pace = 0.0
        """Smoothed seconds per token of one request; 0 before the first answer."""
        self.aside = self.leaving = self.doubted = False
        """Three reasons to give it no requests: it does not answer and was set aside; the recipe's file of endpoints no
        longer names it, and it leaves once its work is done; it says nothing, and may be slow or may hang."""
        self.proven = True
        """Whether it has answered since it was last set aside."""
        self.answered = self.failed = self.set_aside = 0
        self.failures = 0
        """How many requests have failed since its last answer."""
        self.refusal: RequestError | None = None
        """The last failure since its last answer, where the server has told it itself, with a status."""
        self.heard = time.monotonic()
        """When it last answered, or began to work after a pause."""
        self.slowest = 0.0
        """Seconds that its slowest answers take; 0 before the first one."""
        self.probe = FIRST_PROBE
        self.tasks: set[asyncio.Task[Any]] = set()
        self.lost: set[asyncio.Task[Any]] = set()
        """Those of `tasks` that are being cancelled, because the endpoint was set aside while they waited for it."""
        self.news = asyncio.Event()
        """Set when its `Watch` has something to look at: the first request after a pause, or failures in a row."""

    @property
    def available(self) -> bool:
        """Whether it may be given requests, as far as its health goes."""
        return not (self.aside or self.leaving or self.doubted)

    @property
    def _at_once(self) -> int:
        return getattr(self.endpoint, "in_flight", 0)

    def note_answer(self, took: float) -> None:
        """Note an answer that took so many seconds."""
        self.answered += 1
        self.slowest = max(took, self.slowest * _FORGET)

    def note_return(self) -> None:
        """Note that it is back. It may work on another number of requests at once than before."""
        self.aside, self.failures, self.heard = False, 0, time.monotonic()
        if self._told and self._at_once:
            self.window.fix(self._at_once)

    @property
    def running(self) -> int:
        """How many requests the server worked on when `waiting` was last asked; 0 where it does not tell."""
        return getattr(self.endpoint, "running", 0)

    async def waiting(self) -> int | None:
        """How many requests wait at the server by its own count; None if it does not count them.

        Raises TimeoutError if it does not tell within a few seconds.
        """
        async with asyncio.timeout(_HEALTH):
            return await self.endpoint.queued()

    async def healthy(self) -> bool | None:
        """Whether the server says that it is well; None if it says nothing for some seconds, but does not refuse."""
        try:
            async with asyncio.timeout(_HEALTH):
                return await self.endpoint.healthy()
        except TimeoutError:
            return None

    def report(self) -> EndpointReport:
        """The figures so far."""
        window = (*self.window.history, (self.window.age, self.window.limit))
        return EndpointReport(self.url, self.answered, self.failed, self.set_aside, window, self.limits)


@dataclass(slots=True)
class Place:
    """A place that a request has in a member's window: when it took it, and how many tokens it is guessed to take."""

    member: Member
    started: float
    tokens: float

    def give_back(self) -> None:
        """Free the place of a request that was not sent after all."""
        self.member.window.failed(refused=False, started=self.started)
        self.member.rate.take(-self.tokens, requests=-1)


@dataclass(eq=False, slots=True)
class Asked:
    """A request that waits for a place. `kind` is the stage that asks. `avoid` is empty, or the address of an endpoint
    at which the request has failed, so that any other one is better."""

    request: Request
    kind: str
    avoid: str


def choose(members: Sequence[Member], avoid: str, tokens: float) -> tuple[Member | None, float]:
    """The member that will answer a request of so many tokens soonest, and 0; or None, and the seconds to wait.

    It is the one with the least work in flight, weighted by the time that it takes for a token, among those that have
    room. The member at the address `avoid` is taken only where there is no other. If none can be taken and only limits
    per minute are in the way, the number is the seconds until the first of them allows it; else it is 0.
    """
    best, least, pauses = None, 0.0, list[float]()
    for member in members:
        if not (member.available and member.window.room):
            continue
        if member.limits and (wait := member.rate.pause(tokens)):
            member.window.held_back()
            pauses.append(wait)
            continue
        load = (member.window.in_flight + 1) * (member.pace or _usual_pace(members))
        if member.url == avoid:
            load += 1e9
        if best is None or load < least:
            best, least = member, load
    return best, min(pauses, default=0.0)


def _usual_pace(members: Sequence[Member]) -> float:
    return min((member.pace for member in members if member.pace), default=1.0)
