"""What a run may spend, and what it has spent: kept in the run folder, so that it counts over all of its starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import orjson

from kun_builder.errors import RunError
from kun_builder.files import replace_file
from kun_builder.types import Completion, ModelSpec

FILE = ".spent.json"
LIMITS = ("money", "tokens", "hours")
_EVERY = 2.0
"""Seconds between two writings of the count. A killed process loses at most that much of it."""


class Spent(Exception):  # not an error of the row that meets it
    """The budget is used up: this request was not sent."""


class Budget:
    """Counts what is spent against the limits of the recipe. A limit of None is not set.

    Answers that come out of the journal cost nothing. Time counts while kun-build works on the run.
    """

    def __init__(
        self, path: Path, limits: Mapping[str, float | None], models: Mapping[str, ModelSpec], *, fresh: bool = False
    ) -> None:
        """`path` is the file of the count. The count goes on from there, or from 0 if `fresh`."""
        self._path, self._models = path, models
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}
        self._spent = dict.fromkeys(LIMITS, 0.0) if fresh else _read(path)
        self._looked = self._written = time.monotonic()

    def add(self, model: str, answer: Completion) -> None:
        """Count an answer that a server gave."""
        spec = self._models[model]
        paid = answer.prompt_tokens * spec.cost_in + answer.completion_tokens * spec.cost_out
        self._spent["money"] += paid / 1e6
        self._spent["tokens"] += answer.prompt_tokens + answer.completion_tokens
        if time.monotonic() - self._written > _EVERY:
            self.write()

    def used_up(self) -> bool:
        """Whether a limit is reached."""
        self._spent["hours"] += (now := time.monotonic()) / 3600 - self._looked / 3600
        self._looked = now
        return any(self._spent[name] >= limit for name, limit in self._limits.items())

    def check(self) -> None:
        """Raise RunError if a limit is reached."""
        if self.used_up():
            raise self.error()

    def error(self) -> RunError:
        """The error that ends the run; the count is written first."""
        self.write()
        return RunError(
            f"the budget of the run is used up: {', '.join(self._reached())}",
            hint="all that was answered is kept: raise `budget` in the recipe and run the same command again, and"
            " it goes on where it stopped",
        )

    def write(self) -> None:
        """Write the count to its file."""
        self._written = time.monotonic()
        replace_file(self._path, orjson.dumps(self._spent))

    def _reached(self) -> list[str]:
        spent = self._spent
        over = {name: limit for name, limit in self._limits.items() if spent[name] >= limit}
        return [f"{name} {spent[name]:,.6g} of {limit:,.6g}" for name, limit in over.items()]


def open_budget(
    folder: Path, limits: Mapping[str, float | None], models: Mapping[str, ModelSpec], *, fresh: bool = False
) -> Budget | None:
    """The budget of the run in `folder`; None where nothing is limited."""
    limited = any(limit is not None for limit in limits.values())
    return Budget(folder / FILE, limits, models, fresh=fresh) if limited else None


def _read(path: Path) -> dict[str, float]:
    """The count so far; 0 of everything if the file is missing or not one of kun-builder's."""
    try:
        found = orjson.loads(path.read_bytes())
        return {name: float(found.get(name, 0.0)) for name in LIMITS}
    except (OSError, ValueError, TypeError, AttributeError):
        return dict.fromkeys(LIMITS, 0.0)
