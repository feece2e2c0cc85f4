"""Where reading stands in one input, and what a broken record looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kun_builder.types import Record

BROKEN_JSON, NOT_UTF8, TOO_LONG, BROKEN_FILE, UNKNOWN_FORMAT = (
    "broken_json",
    "not_utf8",
    "record_too_long",
    "broken_file",
    "unknown_format",
)
"""Reasons of broken records: `Record.error` is `reason: detail`."""

MAX_RECORD = 16 << 20
"""Bytes. A longer record is broken (most often a missing line end), so that memory stays bounded."""

_RAW = 1000  # bytes of a broken record that are kept for whoever looks into it


@dataclass(slots=True)
class Cursor:
    """Counts the records of one input over all files in it; `wanted` tells which of them are worth parsing.

    index: of the next record. base: bytes of the files before the present one, decompressed: an offset is what
    `zcat`, `tar -xO` or `unzip -p` print before the record.
    """

    start: int = 0
    wanted: Callable[[int], bool] | None = None
    index: int = 0
    base: int = 0

    def take(self) -> bool:
        """Count one record; whether it is wanted."""
        index = self.index
        self.index = index + 1
        return index >= self.start and (self.wanted is None or self.wanted(index))


def broken(reason: str, detail: object, index: int, offset: int | None, raw: bytes = b"") -> Record:
    """A record that cannot be used, and why."""
    return Record(index, None, offset, f"{reason}: {detail}", bytes(raw[:_RAW]))
