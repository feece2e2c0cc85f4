"""A production line of generators that work at the same time: each goes on with what the one before it has finished.

Each runs in a thread of its own, which only hands things on: the work itself is done by processes, by the event loop of
the models, or by Arrow outside of Python's lock. Only paths of shards wait between two generators, not rows, so the
queue may grow and a quick one need not wait for a slow one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from kun_builder.errors import Stopped

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that threads get to end when a line is broken off; a stage that hangs ends with the process."""


class Line:
    """The threads of one run. Leaving the block breaks off what is still at work, and waits for it."""

    def __init__(self) -> None:
        self._broken = threading.Event()
        self._coming: list[Coming[Any]] = []

    def ahead(self, items: Iterable[T]) -> Coming[T]:
        """Draw `items` in a thread of their own from now on."""
        coming = Coming(items, self._broken)
        self._coming.append(coming)
        coming.start()
        return coming

    def check(self) -> None:
        """Raise Stopped if the line is broken off: for whoever works long without handing anything on."""
        if self._broken.is_set():
            raise Stopped("it was broken off")

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exc: object) -> None:
        self._broken.set()
        for coming in list(self._coming):
            coming.ring()
        for coming in list(self._coming):
            coming.join(PATIENCE)


class Coming(Generic[T]):
    """Items that another thread draws, in order, while its user does other work; anybody may `ring` to wake it."""

    def __init__(self, items: Iterable[T], broken: threading.Event) -> None:
        self._items, self._broken = items, broken
        self._come: deque[T] = deque()
        self._bell = threading.Event()
        self._drawn = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._draw, name="line", daemon=True)

    def start(self) -> None:
        """Begin to draw."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait so long for the thread's end."""
        self._thread.join(seconds)

    def ring(self, *_: object) -> None:
        """End the `wait` of this moment, or the next one: something has happened."""
        self._bell.set()

    def wait(self, seconds: float) -> None:
        """Wait until something has come, or someone has rung, but not longer."""
        self._bell.wait(seconds)
        self._bell.clear()

    def take(self) -> list[T]:
        """What has come since the last time. To be called now and then: raises Stopped if the line is broken off.

        It also raises what drawing has raised, except Stopped, which only `over` raises: a run that is told to end
        still waits for what is under way.
        """
        if self._broken.is_set():
            raise Stopped("it was broken off")
        if self._error and not isinstance(self._error, Stopped):
            raise self._error
        return [self._come.popleft() for _ in range(len(self._come))]

    @property
    def over(self) -> bool:
        """Whether everything has come and was taken. Raises the Stopped that drawing has raised."""
        if not self._drawn or self._come:
            return False
        if self._error:
            raise self._error
        return True

    def _draw(self) -> None:
        try:
            for item in self._items:
                self._come.append(item)
                self._bell.set()
                if self._broken.is_set():
                    break
        except BaseException as error:  # its user's thread raises it
            self._error = error
        finally:
            if close := getattr(self._items, "close", None):
                close()
            self._drawn = True
            self._bell.set()
