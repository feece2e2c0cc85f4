"""The header `Retry-After`, by which servers of models and the Hub ask for a pause (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import time
from email.utils import mktime_tz, parsedate_tz

LONGEST = 366 * 86400.0
"""Seconds of the longest pause; a longer one counts as this."""


def asked_pause(value: str) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date, at most LONGEST; None if it is neither."""
    value = value.strip()
    if not value:
        return None
    if value.replace(".", "", 1).isdecimal():
        return min(float(value), LONGEST)
    parsed = parsedate_tz(value)
    if parsed is None:
        return None
    try:
        return min(max(0.0, mktime_tz(parsed) - time.time()), LONGEST)
    except (OverflowError, ValueError):
        return None
