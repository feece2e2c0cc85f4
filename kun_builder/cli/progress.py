"""Progress of a run on stderr: live on a terminal, a line now and then elsewhere, JSON lines on request."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.output import Output, console, visible

if TYPE_CHECKING:
    from kun_builder.status import Status

_REFRESH = 4  # times a second, on a terminal
_EVERY = 5.0  # seconds between lines elsewhere
_STILL = 30.0  # the same where nothing has happened since the last one
_WINDOW = 30.0  # seconds over which rates are taken, or longer:
_UNITS = 10  # until so many units are done, all of the phase counts
_REASONS = 6  # the most frequent reasons are shown


class Meter:
    """Reckons rates of a Status over the last half minute of its phase, or its last ten units if they take longer.

    As long as there is something left to read, that is the phase, though the models are asked meanwhile.
    """

    def __init__(self, status: Status) -> None:
        self._status = status
        self._samples: deque[tuple[float, int, int, int, int]] = deque()
        self._phase = ""

    def read(self) -> dict[str, Any]:
        """The figures to show; None for those that are not known."""
        status, now = self._status, time.monotonic()
        shown = status.reading or status  # how many rows there will be is known when all is read
        if shown.phase != self._phase:
            self._samples.clear()
            self._phase = shown.phase
        self._samples.append((now, shown.done, status.completion_tokens, status.requests, status.reused))
        while now - self._samples[0][0] > _WINDOW and shown.done - self._samples[1][1] >= _UNITS:
            self._samples.popleft()
        then, done, tokens, requests, reused = self._samples[0]
        seconds = now - then
        rate = (shown.done - done) / seconds if seconds > 1 else None
        left = (shown.total - shown.done) / rate if rate and shown.total is not None else None
        answers = status.requests - requests or status.reused - reused  # those of the journal come at once
        if shown is status and (needed := status.answers_left()) is not None:
            left = needed * seconds / answers if answers and seconds > 1 else None
        return {
            "phase": shown.phase,
            "done": shown.done,
            "total": shown.total,
            "unit": shown.unit,
            "per_second": rate and round(rate, 2),
            "in_flight": status.in_flight,
            "requests": status.requests,
            "reused": status.reused,
            "retries": status.retries,
            "tokens_per_second": round((status.completion_tokens - tokens) / seconds, 1) if seconds > 1 else None,
            "drops": dict(status.drops.most_common()),
            "elapsed": round(now - status.started, 1),
            "left": left and round(left, 1),
        }


def describe(figures: dict[str, Any]) -> str:
    """The figures in one line, for people."""
    if not figures["phase"]:
        return "starting"
    unit, total = figures["unit"], figures["total"]
    parts = [_amount(figures["done"], total, unit)]
    if answers := figures["requests"] + figures["reused"]:
        parts.append(f"{answers:,} answers")
    if figures["per_second"]:
        parts.append(f"{_number(figures['per_second'], unit)}/s")
    if figures["in_flight"]:
        parts.append(f"{figures['in_flight']} requests in flight")
    if figures["tokens_per_second"]:
        parts.append(f"{figures['tokens_per_second']:,.0f} tokens/s")
    if figures["retries"]:
        parts.append(f"{figures['retries']} retries")
    if figures["left"] is not None:
        parts.append(f"{_clock(figures['left'])} left")
    return f"{figures['phase']}: {', '.join(parts)}"


def describe_drops(figures: dict[str, Any]) -> str:
    """Dropped rows by reason, the most frequent first; empty if there are none."""
    drops = list(figures["drops"].items())
    shown = ", ".join(f"{reason} {count:,}" for reason, count in drops[:_REASONS])
    more = sum(count for _, count in drops[_REASONS:])
    return f"dropped: {shown}{f', other {more:,}' if more else ''}" if drops else ""


def _dated(figures: dict[str, Any]) -> str:
    """One line for a log that is read later: the time, and all that a terminal would show."""
    what = "; ".join(filter(None, (describe(figures), describe_drops(figures))))
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {what}"


def _amount(done: int, total: int | None, unit: str) -> str:
    of = "" if total is None else f"/{_number(total, unit)}"
    return f"{_number(done, unit)}{of}" + ("" if unit == "bytes" else f" {unit}")


def _number(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


@contextmanager
def progress(status: Status, out: Output) -> Iterator[None]:
    """Show `status` on stderr while the block runs, and what our modules log; in quiet mode only their warnings."""
    meter = Meter(status)
    status.say = out.note
    with _logged(status, out):
        if out.format == "quiet":
            yield
        elif out.json_log:
            with _lines(meter, lambda figures: json.dumps(figures, ensure_ascii=False)):
                yield
        elif sys.stderr.isatty():
            with _live(meter, status):
                yield
        else:
            with _lines(meter, _dated):
                yield


class _Records(logging.Handler):
    """Shows log records to the user, for example that a model is fetched or that a server refuses a field."""

    def __init__(self, status: Status, out: Output) -> None:
        super().__init__(logging.INFO)
        self._status, self._out = status, out

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record, above the panel if there is one."""
        if record.levelno >= logging.WARNING:
            self._out.warn(record.getMessage())
        else:
            self._status.say(record.getMessage())


@contextmanager
def _logged(status: Status, out: Output) -> Iterator[None]:
    ours, handler = logging.getLogger("kun_builder"), _Records(status, out)
    level, propagate = ours.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False  # else a root handler would say it again
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        ours.propagate = propagate


@contextmanager
def _live(meter: Meter, status: Status) -> Iterator[None]:
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def draw() -> Table:
        figures = meter.read()
        bar = ProgressBar(total=figures["total"], completed=figures["done"], width=60, pulse=figures["total"] is None)
        lines = Table.grid()
        for line in (Text(describe(figures)), bar, Text(describe_drops(figures), style="dim")):
            lines.add_row(line)
        return lines

    screen = console(err=True)
    status.say = lambda message: screen.print(visible(message))
    with Live(get_renderable=draw, console=screen, refresh_per_second=_REFRESH, transient=True):
        yield


@contextmanager
def _lines(meter: Meter, line: Callable[[dict[str, Any]], str]) -> Iterator[None]:
    """Print a line when a phase begins, every few seconds, and at the end."""
    stop = threading.Event()

    def watch() -> None:
        said, last = ["", 0, 0, 0], 0.0
        while not stop.wait(1 / _REFRESH):
            figures = meter.read()
            state = [figures[name] for name in ("phase", "done", "requests", "reused")]
            pause = 0.0 if state[0] != said[0] else _EVERY if state != said else _STILL
            if state[0] and time.monotonic() - last >= pause:
                said, last = state, time.monotonic()
                click.echo(line(figures), err=True)

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if (figures := meter.read())["phase"]:
            click.echo(line(figures), err=True)
