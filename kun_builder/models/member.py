"""One endpoint of a pool: its window, its limits per minute, its health and what it did; and which one is next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kun_builder.models.rate import Rate
from kun_builder.models.window import Window
from kun_builder.types import Endpoint, Request

FIRST_PROBE = 0.5
"""Seconds until an endpoint that was set aside is first probed."""
_HEALTH = 5.0  # seconds in which a healthy endpoint says so
_FORGET = 0.99  # how much of its slowest answer is remembered after another one


@dataclass(frozen=True)
class EndpointReport:
    """What one endpoint did. `window` is its limit of requests in flight over time: (seconds, limit);
    `limits` are those of the recipe, per minute."""

    url: str
    answered: int
    failed: int
    set_aside: int
    window: tuple[tuple[float, int], ...]
    limits: Mapping[str, float] = field(default_factory=dict)


class Member:
    """One endpoint of a pool with its window and its health."""

    def __init__(self, endpoint: Endpoint, concurrency: int, sharers: int, limits: Mapping[str, float]) -> None:
        self.endpoint, self.url = endpoint, endpoint.url
        self.limits, self.rate = limits, Rate(limits, sharers)
        self._told = not concurrency  # a batch API says how many it waits for, llama.cpp has so many slots
        self.window = Window(concurrency or self._at_once, sharers=sharers)
        self.pace = 0.0
        """Smoothed seconds per token of one request; 0 before the first answer."""
        self.aside = self.leaving = self.doubted = False
        """Set aside because it does not answer; to be given nothing more because nobody names it any longer; given
        nothing more until it says something, because it may be slow or hang."""
        self.proven = True
        """Whether it has answered since it was last set aside."""
        self.answered = self.failed = self.set_aside = 0
        self.failures = 0
        """Since the last answer."""
        self.heard = time.monotonic()
        """When it last answered, or began to work after a pause."""
        self.slowest = 0.0
        """Seconds that its slowest answers take; 0 before the first one."""
        self.probe = FIRST_PROBE
        self.tasks: set[asyncio.Task[Any]] = set()
        self.lost: set[asyncio.Task[Any]] = set()
        """Those that are being cut off because the endpoint is set aside."""
        self.news = asyncio.Event()
        """Something to look at: the first request after a pause, or failures in a row."""

    @property
    def available(self) -> bool:
        """Whether it may be given requests."""
        return not (self.aside or self.leaving or self.doubted)

    @property
    def _at_once(self) -> int:
        return getattr(self.endpoint, "in_flight", 0)

    def answers(self, took: float) -> None:
        """It has answered, after so many seconds."""
        self.answered += 1
        self.slowest = max(took, self.slowest * _FORGET)

    def returns(self) -> None:
        """It is back, perhaps with other slots than before."""
        self.aside, self.failures, self.heard = False, 0, time.monotonic()
        if self._told and self._at_once:
            self.window.fix(self._at_once)

    async def waiting(self) -> int | None:
        """The server's count of waiting requests, None if it tells none; TimeoutError if it does not answer at once."""
        async with asyncio.timeout(_HEALTH):
            return await self.endpoint.queued()

    async def healthy(self) -> bool | None:
        """Whether the server says that it is well; None if it says nothing at once, and does not refuse to either."""
        try:
            async with asyncio.timeout(_HEALTH):
                return await self.endpoint.healthy()
        except TimeoutError:
            return None

    def report(self) -> EndpointReport:
        """What it did so far."""
        window = (*self.window.history, (self.window.age, self.window.limit))
        return EndpointReport(self.url, self.answered, self.failed, self.set_aside, window, self.limits)


@dataclass(slots=True)
class Place:
    """A place in a member's window, since when, and the tokens that its request is taken for."""

    member: Member
    started: float
    tokens: float

    def give_back(self) -> None:
        """Nothing was sent."""
        self.member.window.failed(refused=False, started=self.started)
        self.member.rate.take(-self.tokens, requests=-1)


@dataclass(eq=False, slots=True)
class Asked:
    """A request that has no place yet; `avoid` is the address of an endpoint that another is better than."""

    request: Request
    kind: str
    avoid: str


def choose(members: Sequence[Member], avoid: str, tokens: float) -> tuple[Member | None, float]:
    """The member with room that will answer a request of so many tokens soonest: fewest in flight, weighted by its
    pace; another than `avoid` if it can be. Where only limits per minute are in the way, seconds until they are not."""
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
