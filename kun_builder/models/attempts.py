"""Attempts that failed: how many there may be, how long to wait after each, and what is said when they are used up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from kun_builder.errors import RejectedError, TransientError

ATTEMPTS = 10
"""How often the requests of one row may fail, all of its stages together, before the row is quarantined."""
_BACKOFF, _BACKOFF_MOST = 0.05, 30.0


def pause(failed: int, retry_after: float | None) -> float:
    """Seconds until the next attempt: what the server asks for, else more after each failure, with random spread."""
    return (retry_after or min(_BACKOFF_MOST, _BACKOFF * 2.0**failed)) * random.uniform(1.0, 1.5)


def described(error: TransientError) -> str:
    """A failed attempt in a few words: what came, and from where."""
    return f"{error.status or 'no answer'} from {error.endpoint}"


def used_up(model: str, error: TransientError, failures: Sequence[str]) -> RejectedError:
    """What is raised when there are no attempts left: all that failed, as `described`, and the message of the last."""
    counted = Counter(failures)
    tried = ", ".join(f"{what}" + (f" ({n} times)" if n > 1 else "") for what, n in counted.items())
    return RejectedError(
        f"model `{model}` failed {len(failures)} times on this row: {tried}; the last time: {error.message}",
        status=error.status,
        endpoint=error.endpoint,
    )
