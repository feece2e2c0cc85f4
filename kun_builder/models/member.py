"""One endpoint of a pool: its window, its health and what it did."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from kun_builder.models.window import Window
from kun_builder.types import Endpoint

FIRST_PROBE = 0.5
"""Seconds until an endpoint that was set aside is first probed."""
_HEALTH = 5.0  # seconds in which a healthy endpoint says so


@dataclass(frozen=True)
class EndpointReport:
    """What one endpoint did. `window` is its limit of requests in flight over time: (seconds, limit)."""

    url: str
    answered: int
    failed: int
    set_aside: int
    window: tuple[tuple[float, int], ...]


class Member:
    """One endpoint of a pool with its window and its health."""

    def __init__(self, endpoint: Endpoint, concurrency: int, sharers: int = 1) -> None:
        self.endpoint, self.url = endpoint, endpoint.url
        at_once = concurrency or getattr(endpoint, "in_flight", 0)  # a batch API says how many it waits for
        self.window = Window(at_once, sharers=sharers)
        self.pace = 0.0
        """Smoothed seconds per token of one request; 0 before the first answer."""
        self.aside = self.leaving = False
        """Set aside because it does not answer; to be given nothing more because nobody names it any longer."""
        self.proven = True
        """Whether it has answered since it was last set aside."""
        self.answered = self.failed = self.set_aside = 0
        self.failures = 0
        """Since the last answer."""
        self.heard = time.monotonic()
        """When it last answered, or began to work after a pause."""
        self.probe = FIRST_PROBE
        self.tasks: set[asyncio.Task[Any]] = set()
        self.lost: set[asyncio.Task[Any]] = set()
        """Those that are being cut off because the endpoint is set aside."""
        self.news = asyncio.Event()
        """Something to look at: the first request after a pause, or failures in a row."""

    @property
    def available(self) -> bool:
        """Whether it may be given requests."""
        return not (self.aside or self.leaving)

    async def waiting(self) -> int | None:
        """The server's count of waiting requests, None if it tells none; TimeoutError if it does not answer at once."""
        async with asyncio.timeout(_HEALTH):
            return await self.endpoint.queued()

    async def healthy(self) -> bool:
        """Whether the server says that it is well, at once."""
        try:
            async with asyncio.timeout(_HEALTH):
                return await self.endpoint.healthy()
        except TimeoutError:
            return False

    def report(self) -> EndpointReport:
        """What it did so far."""
        window = (*self.window.history, (self.window.age, self.window.limit))
        return EndpointReport(self.url, self.answered, self.failed, self.set_aside, window)
