"""Stages that hang: taken off their row where that is possible, and named while they hang where it is not.

A row stage that waits for something else than a model is cancelled, and its row quarantined (`RowRunner.look`). One
that holds up the event loop itself, and a batch stage, cannot be ended from outside: the user is told which it is.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kun_builder.run.exits import works_here

if TYPE_CHECKING:
    from kun_builder.run.plan import Step
    from kun_builder.run.rows import RowRunner

HANG = 600.0
"""Seconds without progress after which a row is taken from its stage. Waiting for a model does not count."""
LOOK = 15.0
"""Seconds between two looks at the rows. An event loop that has not answered for as long counts as held up."""
SLOW = 300.0
"""Seconds after which the user is told which batch stage is still at the same shard."""
GRACE = 10.0
"""Seconds that an event loop has to answer when a run ends."""


class LoopWatch:
    """Looks at an event loop and its rows from another thread; costs nothing between looks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rows: RowRunner, say: Callable[[str], None]) -> None:
        self._loop, self._rows, self._say = loop, rows, say
        self._answered = threading.Event()
        self._answered.set()
        self._asked = -LOOK
        self._thread = 0
        self._named = False
        loop.call_soon_threadsafe(works_here, lambda: rows.step_of(asyncio.current_task()))

    def look(self) -> None:
        """Ask the loop to look at its rows, if the last look is over; name the stage that keeps it from doing so."""
        seconds = time.monotonic() - self._asked
        if seconds < LOOK:
            return
        if self._answered.is_set():
            self._asked, self._named = time.monotonic(), False
            self._answered.clear()
            self._loop.call_soon_threadsafe(self._turn)
        elif not self._named:
            self._named = True
            self._say(f"{self._culprit()}: nothing else can go on meanwhile; Ctrl-C ends the run, what is done is kept")

    def _turn(self) -> None:
        self._thread = threading.get_ident()
        self._rows.look(max(1, round(HANG / LOOK)))
        self._answered.set()

    def _culprit(self) -> str:
        step = self._rows.step_of(asyncio.current_task(self._loop))
        frame = sys._current_frames().get(self._thread)
        place = f" at {frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
        return f"{step or 'something'} holds up the models' event loop for over {LOOK:g} s{place}"


def close_on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, object]) -> None:
    """Run `coroutine`, which closes something, on `loop`. If a stage holds the loop up it is not run, and what it would
    close ends with the process."""
    turned = threading.Event()
    loop.call_soon_threadsafe(turned.set)
    if turned.wait(GRACE):
        asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    else:
        coroutine.close()


@contextmanager
def named_while_slow(say: Callable[[str], None]) -> Iterator[Callable[[Step], None]]:
    """Yield a function to call as each step begins. If a step then takes over 300 s, `say` names it to the user."""
    timer: threading.Timer | None = None

    def begin(step: Step) -> None:
        nonlocal timer
        if timer:
            timer.cancel()
        timer = threading.Timer(SLOW, say, [f"{step} is still at the same rows after {SLOW:g} s"])
        timer.daemon = True
        timer.start()

    try:
        yield begin
    finally:
        if timer:
            timer.cancel()
