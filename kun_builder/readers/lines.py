"""Records in lines. Lines are split before anything is parsed, so that a record that is not wanted costs little."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import orjson

from kun_builder.readers.arrays import GAP, joined, json_values, opens_several
from kun_builder.readers.cursor import MAX_RECORD, NOT_UTF8, TOO_LONG, Cursor, Run, broken
from kun_builder.readers.decode import BLANK, NO_ENCODING, decode, json_record
from kun_builder.readers.streams import Stream
from kun_builder.types import Record

Documents: TypeAlias = Literal["file", "paragraph", "line"]
"""What a document of a plain text file is: all of it, a block between blank lines, or a line."""

Pieces: TypeAlias = Iterator[tuple[int, bytes]]
"""Pieces of a stream, each after the byte where it begins."""


_MARK = b"\xef\xbb\xbf"
_SEPARATORS = BLANK + b",\x1e"
_NO_RECORD = re.compile(rb"%s[\[\]]?%s\Z" % (GAP, GAP))  # brackets alone: an array within the lines


_RUN = 1 << 20  # bytes after which a run ends

_TOGETHER = 32
"""Lines that are parsed side by side. If one of them is not plain, each is parsed by itself."""


def json_lines(stream: Stream, cursor: Cursor) -> Iterator[Record | Run]:
    """Records of a file with one JSON value per line, or several where the line end between objects was lost.

    Blank lines are no records. Commas and the record separators of RFC 7464 between values are left out.
    """
    source, run = Lines(stream), Run(cursor.index)
    for at, lines in source.blocks():
        for some, texts in _plain(lines, cursor):
            if texts:
                run.texts += texts
                cursor.index += len(texts)
                for line in some:
                    run.offsets.append(cursor.base + at)
                    at += len(line) + 1
                continue
            if run.texts:
                yield run
            yield from _line(some[0], at, cursor, source.beyond, stream)
            at += len(some[0]) + 1
            run = Run(cursor.index)
        if run.texts and cursor.base + at - run.offsets[0] >= _RUN:
            yield run
            run = Run(cursor.index)
    if run.texts:
        yield run
    if stream.failure and stream.rest and joined(stream.rest[1]):
        at, line = stream.rest
        yield from _values(line, at, cursor, None, stream)


def _plain(lines: list[bytes], cursor: Cursor) -> Iterator[tuple[list[bytes], list[str]]]:
    """The lines in order: plain ones side by side, with their texts, and others each by itself, without one."""
    for first in range(0, len(lines), _TOGETHER):
        some = lines[first : first + _TOGETHER]
        if texts := _texts(some, cursor):
            yield some, texts
        else:
            for line in some:
                yield [line], _texts([line], cursor)


def _texts(lines: list[bytes], cursor: Cursor) -> list[str]:
    """The field that is all that is wanted of the lines; empty where one of them has to be looked at more closely."""
    field = cursor.only
    if not field or cursor.wanted or cursor.index < cursor.start or max(map(len, lines)) > MAX_RECORD:
        return []
    try:
        texts = [orjson.loads(line)[field] for line in lines]
        return texts if all(texts) and not any(map(str.isspace, texts)) else []
    except (ValueError, LookupError, TypeError):  # no JSON, no such field or no string in it, no object
        return []


def _line(line: bytes, at: int, cursor: Cursor, beyond: Beyond | None, stream: Stream) -> Iterator[Record]:
    index, offset = cursor.index, cursor.base + at
    record = None
    if line[:1] == b"{" and line[-1:] == b"}" and line.count(b"}") == 1 and len(line) <= MAX_RECORD:
        if cursor.take():  # most lines: one object, which holds no other
            yield json_record(line, index, offset)
        return
    if _NO_RECORD.match(line):
        return
    if joined(line):
        record = None if beyond else json_record(_value(line), index, offset)
        if (record is None or record.error) and opens_several(line):
            yield from _values(line, at, cursor, beyond, stream)
            return
    if cursor.take():
        if len(line) > MAX_RECORD:
            yield broken(TOO_LONG, f"no line end within {MAX_RECORD} bytes", index, offset, line)
        else:
            yield record or json_record(_value(line), index, offset)


def _value(line: bytes) -> bytes:
    """The line without what may surround its value: a comma, a record separator, another file's byte order mark."""
    if line[:1] == b"{" and line.endswith(b"}"):
        return line
    ends = line.strip(BLANK).removesuffix(_MARK).strip(_SEPARATORS)
    return ends if len(ends) < len(line.strip(BLANK)) else line


def _values(line: bytes, at: int, cursor: Cursor, beyond: Beyond | None, stream: Stream) -> Iterator[Record]:
    """The objects of a line. `line` is all of it or, if `beyond` is given, its beginning."""
    begun = [line]

    def read(size: int) -> bytes:
        data = begun.pop() if begun else (beyond.read() if beyond else b"")
        if not data and stream.failure:
            raise EOFError(stream.failure)
        return data

    part = Stream(read, stream.name)
    yield from json_values(part, cursor, at)
    if stream.failure:
        stream.rest = part.rest or (at + part.position, b"")


def text_documents(stream: Stream, cursor: Cursor, documents: Documents) -> Iterator[Record]:
    """Documents of a plain text file, as strings."""
    for at, piece in _PIECES[documents](stream):
        index, offset = cursor.index, cursor.base + at
        if not piece.strip(BLANK) or not cursor.take():
            continue
        if len(piece) > MAX_RECORD:
            detail = f"a document of more than {MAX_RECORD} bytes; `documents: paragraph` or `line` cuts it"
            yield broken(TOO_LONG, detail, index, offset, piece)
        elif (text := decode(piece)) is None:
            yield broken(NOT_UTF8, NO_ENCODING, index, offset, piece)
        else:
            yield Record(index, text.replace("\r\n", "\n").strip(), offset)


class Lines:
    """Iterates over (byte where the line begins, line without its line feed), or `blocks` over several in a row.

    Of a line that does not end within some more than MAX_RECORD bytes only these are given; until the next line is
    asked for, `beyond` reads the rest.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.beyond: Beyond | None = None

    def __iter__(self) -> Pieces:
        for offset, lines in self.blocks():
            for line in lines:
                yield offset, line
                offset += len(line) + 1

    def blocks(self) -> Iterator[tuple[int, list[bytes]]]:
        """The lines of each chunk that is read, after the byte where the first begins."""
        stream, carry, offset = self._stream, b"", 0
        while chunk := stream.read():
            data = carry + chunk
            lines = data.split(b"\n")
            carry = lines.pop()
            if lines:
                yield offset, lines
                offset += len(data) - len(carry)
            if len(carry) > MAX_RECORD:
                self.beyond = beyond = Beyond(stream)
                yield offset, [carry]
                self.beyond = None
                offset += len(carry) + beyond.skip()
                carry = beyond.following
        if stream.failure:
            stream.rest = offset, carry
        elif carry:
            yield offset, [carry]


class Beyond:
    """The rest of a line that is too long to be held."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._ended, self._size = stream, False, 0
        self.following = b""

    def read(self) -> bytes:
        """The next bytes of the line; b"" at its end."""
        if self._ended:
            return b""
        data, end, following = self._stream.read().partition(b"\n")
        self._size += len(data) + len(end)
        if end or not data:
            self._ended, self.following = True, following
        return data or self.read()

    def skip(self) -> int:
        """Go to the end of the line. Returns how many bytes this object has read in all, line feed included."""
        while self.read():
            pass
        return self._size


def _paragraphs(stream: Stream) -> Pieces:
    """Blocks between blank lines, cut off soon after MAX_RECORD."""
    start, block, size = 0, list[bytes](), 0
    for offset, line in Lines(stream):
        if line.strip(BLANK):
            start = start if block else offset
            size += len(line)
            if size <= 2 * MAX_RECORD:
                block.append(line)
        elif block:
            yield start, b"\n".join(block)
            block, size = [], 0
    if stream.failure and stream.rest:
        stream.rest = start if block else stream.rest[0], b"\n".join([*block, stream.rest[1]])
    elif block:
        yield start, b"\n".join(block)


def _whole(stream: Stream) -> Pieces:
    """All of the stream, cut off soon after MAX_RECORD."""
    parts, size = [], 0
    while chunk := stream.read():
        if size <= MAX_RECORD:
            parts.append(chunk)
        size += len(chunk)
    if stream.failure:
        stream.rest = 0, b"".join(parts)
    else:
        yield 0, b"".join(parts)


_PIECES: dict[Documents, Callable[[Stream], Pieces]] = {
    "file": _whole,
    "paragraph": _paragraphs,
    "line": lambda stream: iter(Lines(stream)),
}
