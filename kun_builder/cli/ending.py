"""How a build ends before it is finished: `--time-limit`, or SIGTERM, with which Slurm and its like announce the end.

While models are asked, no more is asked and what is under way is waited for, since an answer that is thrown away has
been paid for; anything else ends at once, as by Ctrl-C. Either way what is finished is kept, and the exit code is 75.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from kun_builder.errors import Stopped

if TYPE_CHECKING:
    from kun_builder.status import Status

PATIENCE = 20.0
"""Seconds after SIGTERM in which answers are waited for: Slurm kills 30 s after it, Kubernetes too."""
LIMIT_PATIENCE = 120.0
"""Seconds in which answers are waited for after a time limit, which no scheduler enforces."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_UNITS = (86_400, 3600, 60, 1)


def seconds_of(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """The seconds, at least one, of a duration: `3h45m`, `90m`, `45s`, `1d12h`."""
    if value is None:
        return None
    found = _DURATION.fullmatch(value)
    seconds = sum(int(n or 0) * unit for n, unit in zip(found.groups(), _UNITS, strict=True)) if found else 0
    if not seconds:
        raise click.BadParameter(f"{value!r} is no duration like 3h45m, 90m or 45s")
    return seconds


class _Ending:
    """Handles the signals that end a build, on the main thread."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self.cut = False
        """Whether work was broken off. If not, only questions that were yet to be asked are missing."""

    def terminated(self, *_: object) -> None:
        """Handle SIGTERM. At the second one, answers under way are not waited for."""
        self._begin("it was told to end (SIGTERM)", PATIENCE, again=self._status.ending.endswith("(SIGTERM)"))

    def alarm(self, *_: object) -> None:
        """Handle the alarm: the time limit at first, later the end of waiting for answers."""
        why = self._status.ending or "its time limit is reached"
        self._begin(why, LIMIT_PATIENCE, again=bool(self._status.ending))

    def _begin(self, why: str, patience: float, *, again: bool) -> None:
        self._status.ending = why
        asking = any(passage.asks for passage in tuple(self._status.passages.values()))
        if again or not asking:
            self.cut = True
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, patience)


@contextmanager
def ending(status: Status, limit: int | None) -> Iterator[None]:
    """Let a build run for at most `limit` seconds; None is no limit. Raises Stopped if it was ended early."""
    heard = _Ending(status)
    before = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGTERM, heard.terminated), (signal.SIGALRM, heard.alarm))
    }
    signal.setitimer(signal.ITIMER_REAL, limit or 0)
    try:
        yield
    except KeyboardInterrupt:
        if not heard.cut:
            raise
        raise Stopped(status.ending) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
