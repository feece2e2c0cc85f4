"""Lines: split before anything is parsed, so that a record nobody wants costs a line end and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

from kun_builder.readers.cursor import MAX_RECORD, NOT_UTF8, TOO_LONG, Cursor, broken
from kun_builder.readers.decode import BLANK, NO_ENCODING, decode, json_record
from kun_builder.readers.streams import Stream
from kun_builder.types import Record

Documents: TypeAlias = Literal["file", "paragraph", "line"]
"""What a document of a plain text file is: all of it, a block between blank lines, or a line."""

Pieces: TypeAlias = Iterator[tuple[int, bytes]]
"""Pieces of a stream, each after the byte where it begins."""


def json_lines(stream: Stream, cursor: Cursor) -> Iterator[Record]:
    """One JSON value per line. Blank lines are no records."""
    for at, line in lines(stream):
        index, offset = cursor.index, cursor.base + at
        if not line.strip(BLANK) or not cursor.take():
            continue
        if len(line) > MAX_RECORD:
            yield broken(TOO_LONG, f"no line end within {MAX_RECORD} bytes", index, offset, line)
        else:
            yield json_record(line, index, offset)


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


def lines(stream: Stream) -> Pieces:
    """Lines without their line feed. Of one longer than MAX_RECORD only the beginning, itself longer than that."""
    carry, offset, skipping = b"", 0, False
    while chunk := stream.read():
        pieces = (carry + chunk).split(b"\n")
        carry = pieces.pop()
        for piece in pieces:
            if not skipping:
                yield offset, piece
            offset += len(piece) + 1
            skipping = False
        if len(carry) > MAX_RECORD or skipping:
            if not skipping:
                yield offset, carry
            offset += len(carry)
            carry, skipping = b"", True
    if stream.failure:
        stream.rest = offset, carry
    elif carry:
        yield offset, carry


def _paragraphs(stream: Stream) -> Pieces:
    """Blocks between blank lines, cut off soon after MAX_RECORD."""
    start, block, size = 0, list[bytes](), 0
    for offset, line in lines(stream):
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


_PIECES: dict[Documents, Callable[[Stream], Pieces]] = {"file": _whole, "paragraph": _paragraphs, "line": lines}
