"""What a run is doing right now: written by everyone who works, read by whoever draws it.

Plain attributes without locks: each is written from one thread or only ever added to, and a reader that comes a moment
late shows a number that is a moment old.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Passage:
    """Counts rows at one step of a phase: those that have come, have left, and have passed to the next step.

    asks: whether the step asks a model. answers: how many answers the rows that have left got at this step.
    """

    asks: bool
    come: int = 0
    left: int = 0
    passed: int = 0
    answers: int = 0


@dataclass
class Phase:
    """How far one part of a run is."""

    phase: str = ""
    """What runs now, for example `read wudao` or `normalize > length`."""
    total: int | None = None
    """Units of this phase, if known: rows, or bytes while reading."""
    unit: str = "rows"
    done: int = 0


@dataclass
class Status(Phase):
    """Live figures of one run. `say` is for lines that a user must see; it is replaced by the command line."""

    reading: Phase | None = None
    """How far reading is, as long as something is left to read; what was read is worked on meanwhile."""
    drops: Counter[str] = field(default_factory=Counter)
    """Number of dropped and quarantined rows by `stage: reason`, over the whole run."""
    requests: int = 0
    reused: int = 0
    """Answers that came out of the journal."""
    retries: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    ending: str = ""
    """Why the run ends before it is finished. Once this is set, nothing more is asked."""
    say: Callable[[str], None] = lambda message: None
    passages: dict[str, Passage] = field(default_factory=dict)
    """Steps of this phase, in order, if its rows go through them one by one."""
    answers_before: int = 0
    """Number of answers of earlier phases."""

    @property
    def answers(self) -> int:
        """Answers so far, asked for or out of the journal."""
        return self.requests + self.reused

    def begin(self, phase: str, total: int | None, unit: str = "rows") -> None:
        """Start a new phase."""
        self.passages, self.answers_before = {}, self.answers
        self.phase, self.total, self.unit, self.done = phase, total, unit, 0

    def answers_left(self) -> float | None:
        """Answers that this phase still needs, as far as its rows so far tell; None if it asks no model.

        It assumes that rows to come drop out and get answers at each step as often as those before them did, and one
        answer as long as no row has left the step.
        """
        passages = list(self.passages.values())
        if self.total is None or not any(passage.asks for passage in passages):
            return None
        there = [passage.come - passage.left for passage in passages]
        coming = float(max(0, self.total - self.done - sum(there)))
        needed = 0.0
        for passage, rows in zip(passages, there, strict=True):
            coming += rows
            needed += coming * (passage.answers / passage.left if passage.left else passage.asks)
            coming *= passage.passed / passage.left if passage.left else 1.0
        under_way = self.answers - self.answers_before - sum(passage.answers for passage in passages)
        return max(0.0, needed - under_way)
