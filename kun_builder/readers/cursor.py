"""Where reading stands in one input, and what a broken record looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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
"""Most bytes of a record. A longer one counts as broken, so that memory stays bounded; mostly a line end is missing."""

_RAW = 1000  # bytes of a broken record that are kept for whoever looks into it


@dataclass(slots=True)
class Run:
    """Plain JSON lines in a row, as far as one field of them: strings in which there is more than white space.

    `index` is the number of the first record, `offsets` are the bytes at which they begin.
    """

    index: int
    offsets: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Cursor:
    """Counts the records of one input over all files in it; `wanted` tells which of them are worth parsing.

    start: index of the first record that is wanted at all. only: the field that is all that is wanted of plain JSON
    lines, which then come in runs. index: number of the next record, from 0. base: decompressed
    bytes of the files before the present one, so that an offset counts what `zcat`, `tar -xO` or `unzip -p` print
    before the record.
    """

    start: int = 0
    wanted: Callable[[int], bool] | None = None
    index: int = 0
    base: int = 0
    only: str = ""

    def take(self) -> bool:
        """Count one record; returns whether it is wanted."""
        index = self.index
        self.index = index + 1
        return index >= self.start and (self.wanted is None or self.wanted(index))


def broken(reason: str, detail: object, index: int, offset: int | None, raw: bytes = b"") -> Record:
    """The record for one that cannot be used; its `error` says why."""
    return Record(index, None, offset, f"{reason}: {detail}", bytes(raw[:_RAW]))
