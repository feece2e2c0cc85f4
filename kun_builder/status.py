"""What a run is doing right now: written by everyone who works, read by whoever draws it.

Plain attributes without locks: each is written from one thread or is only ever added to, and a reader that is a moment
late shows a number that is a moment old.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Status:
    """Live figures of one run. `say` is for lines that a user must see; it is replaced by the command line."""

    phase: str = ""
    """What runs now, for example `read wudao` or `label > score > polish`."""
    total: int | None = None
    """Units of this phase, if known: rows, or bytes while reading."""
    unit: str = "rows"
    done: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    """`stage: reason` to number of rows, over the whole run."""
    requests: int = 0
    reused: int = 0
    """Answers that came out of the journal."""
    retries: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    phase_started: float = field(default_factory=time.monotonic)
    say: Callable[[str], None] = lambda message: None

    def begin(self, phase: str, total: int | None, unit: str = "rows") -> None:
        """Start a new phase."""
        self.phase, self.total, self.unit, self.done = phase, total, unit, 0
        self.phase_started = time.monotonic()
