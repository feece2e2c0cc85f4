"""Watching one endpoint of a pool: how long its queue is, and whether it is slow, hangs or has gone.

A server that refuses the connection has gone, and is set aside at once. One that says nothing may hang; but it may also
be so slow, or have so many requests of ours, that it cannot even tell its health. Such a server is doubted: it keeps
what it works on and gets nothing more, until it says something, or until it has been silent for so much longer than its
answers take that it must hang.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Protocol

from kun_builder.models.member import Member

LOOK, _LOOK_MOST = 0.02, 2.0
"""Seconds between looks at the queue of an endpoint at work."""
SUSPECT = 3
"""Failures in a row after which an endpoint is asked how it is."""
_USELESS = 20  # failures in a row after which it is set aside even if it calls itself healthy
_SILENCE = 10.0  # seconds without an answer after which an endpoint with requests in flight is asked how it is
_HANGS = 6  # so many times longer without a word, it hangs; at least twice as long as its slowest answers take
_PROBE_MOST = 30.0  # seconds between probes of an endpoint that is set aside, at most


class Keeper(Protocol):
    """Who acts on what a `Watch` sees: the pool."""

    wait: float
    """Seconds to wait for an endpoint that has never answered."""

    def set_aside(self, member: Member) -> None:
        """The endpoint has gone or hangs: ask elsewhere what it was working on."""

    def doubt(self, member: Member, doubted: bool) -> None:
        """The endpoint says nothing, or, with False, talks again."""

    async def take_back(self, member: Member) -> bool:
        """The endpoint is healthy again. Returns False if it no longer serves what it did before."""


class Watch:
    """Looks after one endpoint for as long as the pool lives."""

    def __init__(self, member: Member, keeper: Keeper) -> None:
        self._member, self._keeper = member, keeper

    async def run(self) -> None:
        """Watch for ever."""
        member, pause = self._member, LOOK
        while True:
            if member.aside:
                await self._revive()
            if not (member.window.in_flight or member.doubted):
                pause = LOOK
                await member.news.wait()  # the first request, or a suspicion
            member.news.clear()
            due = time.monotonic() + pause
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await member.news.wait()
            if member.failures >= SUSPECT or member.doubted or self._silent():
                await self._examine()
                pause = _LOOK_MOST
            elif not member.aside:
                pause = await self._look(pause, time.monotonic() - due)

    def _silent(self) -> bool:
        member = self._member
        return member.window.in_flight > 0 and time.monotonic() - member.heard > max(_SILENCE, member.slowest)

    async def _look(self, pause: float, late: float) -> float:
        """Ask for the server's queue, if it can tell anything now. Returns the seconds until the next look.

        late: seconds by which this process is behind with its own work.
        """
        window = self._member.window
        if window.fixed or 2 * window.in_flight < window.limit:
            return LOOK if window.searching else min(pause * 2, _LOOK_MOST)
        asked = time.monotonic()
        try:
            waiting = await self._member.waiting()
        except TimeoutError:  # some servers tell it only between two steps of their work
            window.unheard()
            return _LOOK_MOST
        if waiting is None:
            return _LOOK_MOST
        soon = window.queue(waiting, late, self._member.running)
        again = max(LOOK, 2 * (time.monotonic() - asked))
        return again if soon or window.searching else min(pause * 2, _LOOK_MOST)

    async def _examine(self) -> None:
        """Ask the endpoint how it is, and act on it.

        It is set aside if it is not healthy, or if its requests fail although it says that it is; it is doubted if it
        says nothing.
        """
        member, began = self._member, time.monotonic()
        healthy = await member.healthy()
        if not healthy and not member.failures:
            healthy = await member.healthy()
        if member.failures >= (_USELESS if member.proven else SUSPECT):
            self._keeper.set_aside(member)
        elif member.heard > began or healthy:
            self._keeper.doubt(member, False)
        elif healthy is None and self._may_be_slow():
            self._keeper.doubt(member, True)
        else:
            self._keeper.set_aside(member)

    def _may_be_slow(self) -> bool:
        """Whether an endpoint that says nothing may just be working on its requests, as slowly as it does."""
        member = self._member
        patience = max(_HANGS * _SILENCE, 2 * member.slowest) if member.answered else self._keeper.wait
        return member.window.in_flight > 0 and time.monotonic() - member.heard < patience

    async def _revive(self) -> None:
        """Probe the endpoint at growing intervals until it is healthy and has been taken back."""
        member = self._member
        while True:
            await asyncio.sleep(member.probe * random.uniform(0.8, 1.2))
            member.probe = min(member.probe * 2, _PROBE_MOST)
            if await member.healthy() and await self._keeper.take_back(member):
                return
