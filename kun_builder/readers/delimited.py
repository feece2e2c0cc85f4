"""CSV and TSV: one dict per row, whose keys stand in the first row.

Python's csv module, since it takes lines: of each row its byte is known, a row in another encoding is repaired or told
as it is elsewhere, and one bad row costs its first line, not the lines that an unclosed
quotation mark would swallow.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator

from kun_builder.readers.cursor import MAX_RECORD, NOT_UTF8, TOO_LONG, Cursor, broken
from kun_builder.readers.decode import NO_ENCODING, decode, legacy_codec
from kun_builder.readers.lines import Lines
from kun_builder.readers.streams import Stream
from kun_builder.types import Record

BROKEN_ROW = "broken_row"


def delimited_rows(stream: Stream, cursor: Cursor, head: bytes) -> Iterator[Record]:
    """Rows below the first, which holds the keys. Delimiter and encoding are guessed from `head`, the first bytes."""
    csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_RECORD))  # the feed has the limit
    feed = _Feed(stream, legacy_codec(head.rpartition(b"\n")[0] or head))
    rows = csv.reader(feed, delimiter=_delimiter(stream.name, head), strict=True)
    header: list[str] = []
    while (row := _row(rows, feed)) is not None:
        fault = feed.fault or _misfit(row, header)
        if not header and not fault:
            header = row
        elif row or fault:
            index, offset = cursor.index, cursor.base + feed.offset
            if not cursor.take():
                continue
            if fault:
                reason, _, detail = fault.partition(": ")
                yield broken(reason, detail, index, offset, feed.raw)
            else:
                yield Record(index, dict(zip(header, row, strict=True)), offset)


def _row(rows: Iterator[list[str]], feed: _Feed) -> list[str] | None:
    """The next row, empty if it is broken or blank; None at the end."""
    feed.begin()
    try:
        return next(rows)
    except StopIteration:
        return None
    except csv.Error as error:
        if not feed.fault.startswith(TOO_LONG):
            feed.fault = f"{BROKEN_ROW}: {error}"
        feed.give_back()
        return []


def _misfit(row: list[str], header: list[str]) -> str:
    if not header or not row or len(row) == len(header):
        return ""
    return f"{BROKEN_ROW}: {len(row)} fields, where the first row has {len(header)}"


def _delimiter(name: str, head: bytes) -> str:
    """A tab if the name ends with `.tsv` or `.tab`, else the most frequent of `,;|` and tab in the first line."""
    if re.search(r"\.(tsv|tab)(\.|$)", name, re.IGNORECASE):
        return "\t"
    first = head.partition(b"\n")[0]
    return max(",;\t|", key=lambda mark: first.count(mark.encode()))


class _Feed:
    """Gives lines as text to the csv module, and remembers those of the row that it is reading.

    offset: where the row begins, in bytes. raw: the row's first ten lines. fault: why the row cannot be used, else "".
    """

    def __init__(self, stream: Stream, codec: str) -> None:
        self._lines = iter(Lines(stream))
        self._codec = codec
        self._ahead = deque[tuple[int, bytes]]()  # lines to be read again
        self.begin()

    def begin(self) -> None:
        """Begin another row."""
        self._taken: list[tuple[int, bytes]] = []
        self._size, self.fault = 0, ""

    @property
    def offset(self) -> int:
        return self._taken[0][0] if self._taken else 0

    @property
    def raw(self) -> bytes:
        return b"\n".join(line for _, line in self._taken[:10])

    def give_back(self) -> None:
        """Have the row's lines but the first read again, so that an unclosed quotation mark costs only its line."""
        self._ahead.extendleft(reversed(self._taken[1:]))
        del self._taken[1:]

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        at, line = self._ahead.popleft() if self._ahead else next(self._lines)
        self._taken.append((at, line))
        self._size += len(line) + 1
        if self._size > MAX_RECORD:
            self.fault = f"{TOO_LONG}: no end of the row within {MAX_RECORD} bytes"
            raise csv.Error(self.fault)
        text = self._text(line)
        if text is None:
            self.fault = self.fault or f"{NOT_UTF8}: {NO_ENCODING}"
            text = line.decode("utf-8", "replace")
        return text.removesuffix("\r") + "\n"

    def _text(self, line: bytes) -> str | None:
        try:
            return line.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError:
            pass
        try:
            return line.decode(self._codec) if self._codec else decode(line)
        except UnicodeDecodeError:
            return None
