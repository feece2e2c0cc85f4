"""JSON arrays, and values without a line end between them, of any length in constant memory.

Reading goes on after a broken element.

A record mostly ends where `}, {"<first key>":` stands: unescaped quotes make that impossible inside a string. Such a
piece is parsed as a line would be. Where that fails (elements of another shape, objects nested alike, the last element)
Python's JSON scanner finds the end; where it cannot either, the element is broken up to the next such boundary.

Not ijson: it gives no positions, ends at the first broken element, at control characters and at bytes that are not
UTF-8, and turns half an emoji into a question mark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from kun_builder.readers.cursor import MAX_RECORD, TOO_LONG, Cursor, broken
from kun_builder.readers.decode import BLANK, json_record
from kun_builder.readers.streams import Stream
from kun_builder.types import Record

_OPEN = re.compile(rb'(?:\xef\xbb\xbf)?[\s\x00\x1e]*(?:\[|\{\s*"RECORDS"\s*:\s*\[|(?=\{[ \t\r]*\n))')
# Between values: commas, the record separators of RFC 7464, and byte order marks of files that were put together.
GAP = rb"[\s,\x00\x1e]*(?:\xef\xbb\xbf[\s,\x00\x1e]*)*"
_START = re.compile(GAP)
_JOINED = re.compile(rb"\}%s\{" % GAP)
_BETWEEN = re.compile(rb"%s(?:\][\s\]},\x00\x1e]*%s\[?)?" % (GAP, GAP))
_KEY = rb'"[^"\\\s,:\]}][^"\\]{0,200}"'  # not beginning as what follows a string: `},{"` may be a string's end
_FIRST_KEY = re.compile(rb"\{\s*(%s)\s*:" % _KEY)
_BOUNDARY = rb"\}" + GAP + rb"(?=\{\s*%s\s*:)"
_ANY_BOUNDARY = re.compile(_BOUNDARY % _KEY)
_SCANNER = json.JSONDecoder(strict=False)

_TINY, _SMALL, _LARGE = 1 << 12, 1 << 16, 1 << 20
"""Bytes within which the end of an element is looked for: by the scanner at first, by boundary at first, and those
after which an element counts as broken if a boundary is in sight (so that one nested like its own array and larger than
that is taken for a broken one)."""


def opens_array(head: bytes) -> bool:
    """Whether a stream that begins so is an array (`[`, `{"RECORDS": [`) or a run of values over several lines."""
    if opening := _OPEN.match(head):
        line, _, rest = head[opening.start() :].partition(b"\n")
        return bool(json_record(line, 0, 0).error) or not rest.strip(BLANK)
    start = _start(head)
    end = head.find(b"\n", start)
    if head[start : start + 1] != b"{" or end < 0 or not json_record(head[start:end], 0, 0).error:
        return False
    return _scan(head, start, len(head), False) > end


def joined(line: bytes) -> bool:
    """Whether `line` may hold several objects, by its bytes alone: `}{`, with anything that separates values between.

    A list of objects looks the same, so parsing must tell whether the line is one value.
    """
    return line.count(b"}") > 1 and bool(_JOINED.search(line))


def opens_several(line: bytes) -> bool:
    """Whether `line`, which is no JSON value, begins with a whole object that another follows."""
    start = _start(line)
    if line[start : start + 1] != b"{" or not (end := _scan(line, start, len(line), False)):
        return False
    return bool(_JOINED.match(line, end - 1))


def _start(data: bytes) -> int:
    match = _START.match(data)
    return match.end() if match else 0


def json_array(stream: Stream, cursor: Cursor) -> Iterator[Record]:
    """The elements of one array, of several in a row, or of a wrapped one."""
    view = _View(stream)
    view.skip(_OPEN)
    yield from _elements(stream, view, cursor, _ANY_BOUNDARY)


def json_values(stream: Stream, cursor: Cursor, at: int) -> Iterator[Record]:
    """The objects of `stream`, which begins at byte `at` of its file, whatever separates them.

    A broken object ends where the next one begins with the same first key as the first object of the stream: an object
    with another first key may be a part of it.
    """
    view = _View(stream, at)
    view.skip(_START)
    yield from _elements(stream, view, cursor, None)


def _elements(stream: Stream, view: _View, cursor: Cursor, fallback: re.Pattern[bytes] | None) -> Iterator[Record]:
    boundary = None
    while view.at_object or view.skip(_BETWEEN):
        boundary = boundary or _boundary(view)
        record = _element(view, cursor, boundary or _ANY_BOUNDARY, fallback or boundary or _ANY_BOUNDARY)
        if record.error and view.ended and view.at == len(view.data) and stream.failure:
            # cut off with the stream, not broken by itself
            stream.rest = (record.offset or 0) - cursor.base, record.raw
        elif cursor.take():
            yield record


def _element(view: _View, cursor: Cursor, boundary: re.Pattern[bytes], fallback: re.Pattern[bytes]) -> Record:
    """Read the element ahead and go past it. The result depends on the bytes only, not on the pieces they came in.

    An element that cannot be parsed ends at the next `boundary`, or at `fallback` if there is none.
    """
    index, size = cursor.index, _SMALL
    while True:
        view.fill(size)
        data, here, offset = view.data, view.at, cursor.base + view.offset
        limit = min(len(data), here + size)
        last = view.ended and limit == len(data)
        if edge := boundary.search(data, here, limit):
            record = json_record(data[here : edge.start() + 1], index, offset)
            if not record.error:
                view.at = edge.end()
                return record
        if end := _scan(data, here, limit, last):
            record = json_record(data[here:end], index, offset)
            if not record.error:
                view.at = end
                return record
        if last or size >= _LARGE:
            edge = edge or fallback.search(data, here, limit)
        if last or (edge and size >= _LARGE):
            view.at = edge.end() if edge else limit
            return json_record(data[here : view.at], index, offset)
        if size >= MAX_RECORD:
            view.skip_to(boundary)
            return broken(TOO_LONG, f"no end within {MAX_RECORD} bytes", index, offset, data[here:])
        size *= 4


def _scan(data: bytes, here: int, limit: int, last: bool) -> int:
    """Where the JSON value that begins at `here` ends, or 0 if no end is found before `limit`.

    A value that is no object counts only if a comma, a bracket or the end follows it as it follows an element:
    otherwise it may be the rest of a cut string, or the 12 of 123.
    """
    stop, reach = here, _TINY
    while stop < limit:
        stop, reach = min(here + reach, limit), reach * 4
        text = data[here:stop].decode("utf-8", "surrogateescape")
        try:
            end = _SCANNER.raw_decode(text)[1]
        except (ValueError, RecursionError):
            continue
        follows = text[end:].lstrip(" \t\r\n\x00")[:1]
        if text[0] == "{" or follows in (",", "]") or (not follows and last and stop == limit):
            return here + len(text[:end].encode("utf-8", "surrogateescape"))
        if follows:
            return 0
    return 0


class _View:
    """The part of a stream that is in memory. Reading is at byte `at` of it, which is byte `offset` of the stream."""

    def __init__(self, stream: Stream, base: int = 0) -> None:
        self._stream, self._base = stream, base
        self.data, self.at, self.ended = b"", 0, False

    @property
    def offset(self) -> int:
        return self._base + self.at

    @property
    def at_object(self) -> bool:
        """Whether an object certainly begins here."""
        return self.data[self.at : self.at + 1] == b"{"

    def fill(self, size: int) -> None:
        """Have `size` bytes in memory from `at` on, or all that are left."""
        if self.ended or len(self.data) - self.at >= size:
            return
        parts = [self.data[self.at :]]
        have = len(parts[0])
        while have < size and (chunk := self._stream.read()):
            parts.append(chunk)
            have += len(chunk)
        self.ended = have < size
        self._base += self.at
        self.data, self.at = b"".join(parts), 0

    def skip(self, pattern: re.Pattern[bytes]) -> bool:
        """Go past `pattern`, however long it is; returns whether anything follows."""
        size = _SMALL
        while True:
            self.fill(size)
            match = pattern.match(self.data, self.at)
            end = match.end() if match else self.at
            if end < len(self.data) or self.ended:
                self.at = end
                return end < len(self.data)
            size *= 4

    def skip_to(self, boundary: re.Pattern[bytes]) -> None:
        """Go past the next boundary, or to the end."""
        while not (edge := boundary.search(self.data, self.at)) and not self.ended:
            self.at = max(self.at, len(self.data) - _SMALL)
            self.fill(_LARGE)
        self.at = edge.end() if edge else len(self.data)


def _boundary(view: _View) -> re.Pattern[bytes] | None:
    """The pattern of what stands between records, made from the first key of the element ahead; None if it has none."""
    match = _FIRST_KEY.match(view.data, view.at)
    return re.compile(_BOUNDARY % re.escape(match[1])) if match else None
