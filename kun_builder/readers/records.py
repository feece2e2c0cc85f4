"""Records of one input file, whatever it is: the reader of every source that brings none of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kun_builder.readers.arrays import json_array, opens_array
from kun_builder.readers.cursor import BROKEN_FILE, UNKNOWN_FORMAT, Cursor, Run, broken
from kun_builder.readers.decode import BLANK
from kun_builder.readers.delimited import delimited_rows
from kun_builder.readers.encodings import as_utf8
from kun_builder.readers.foreign import foreign_format
from kun_builder.readers.lines import Documents, json_lines, text_documents
from kun_builder.readers.parquet import parquet_rows
from kun_builder.readers.places import is_ranged, look
from kun_builder.readers.spans import Span, cut_bytes, cut_groups, open_lines
from kun_builder.readers.streams import Stream, open_file, unpack
from kun_builder.types import Record

_HEAD = 1 << 16  # bytes by which a format is told
_JSON_NAME = re.compile(r"\.(jsonl|ndjson|json)(\.|$)", re.IGNORECASE)
_TABLE_NAME = re.compile(r"\.(csv|tsv|tab)(\.|$)", re.IGNORECASE)
_TEXT_NAME = re.compile(r"\.(txt|text|md|markdown)(\.|$)", re.IGNORECASE)


class Records:
    """An iterator over the records of the file `path`, from record `start` on; it may be an address (`s3://`).

    JSON lines, JSON arrays (also `{"RECORDS": [...]}`, and objects printed over several lines or without a line end
    between them), Parquet, CSV, TSV and plain text, bare or inside gz, bz2, xz, zst, tar and zip; the format is told by
    content, tables by name, and text by name where it could be either. A format that is not read is named.
    `documents` says what a document of a text file is; of Parquet, only `columns` are read, all where none of these is
    there. The same file gives the same records, wherever reading starts.

    `wanted` (index -> bool, asked once per record), `progress` (bytes read from disk) and `span` may be set before the
    first record: a JSON line that is not wanted is not parsed; of a span of `cuts`, records are counted from 0, and
    `count` is their number once all were read. Raises SourceError where the file cannot be opened.
    """

    def __init__(
        self, path: str, start: int = 0, *, documents: Documents = "file", columns: Sequence[str] = ()
    ) -> None:
        self.wanted: Callable[[int], bool] | None = None
        self.progress: Callable[[int], None] | None = None
        self.span: Span | None = None
        self._cursor = Cursor()
        self._path, self._start, self._documents, self._columns = path, start, documents, columns
        self._records: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Record]:
        return self.runs("")  # type: ignore[return-value]  # without a field, there are none

    def __next__(self) -> Record:
        return next(iter(self))

    def runs(self, field: str) -> Iterator[Record | Run]:
        """The records, instead of iterating over them: plain JSON lines in a row that have a text in `field` come as
        one `Run` of these texts. Where `wanted` is set, every record comes by itself."""
        self._records = self._records or self._read(field)
        return self._records

    @property
    def count(self) -> int:
        """Number of records so far."""
        return self._cursor.index

    def cuts(self, size: int) -> list[Span]:
        """Spans of at least `size` bytes that together are the file. There are none if the file must be read as a
        whole: it is small, compressed, an array, plain text, or on a web server that sends only all of it."""
        total = look(self._path).size
        if total < 2 * size or not is_ranged(self._path):
            return []
        with open_file(self._path) as file:
            if next(unpack(file), None) is not file or as_utf8(file) is not file:
                return []
            kind = _kind(file.peek(_HEAD), file.name)
        if kind is _lines:
            return cut_bytes(total, size)
        return cut_groups(self._path, size) if kind is _parquet else []

    def _read(self, only: str = "") -> Iterator[Record | Run]:
        cursor = self._cursor = Cursor(self._start, self.wanted, only=only)
        if self.span is None:
            with open_file(self._path, self.progress) as file:
                yield from read_stream(file, cursor, self._documents, self._columns)
            return
        with open_file(self._path) as file:
            parquet = _kind(file.peek(_HEAD), file.name) is _parquet
            if parquet:
                yield from parquet_rows(file, cursor, self._columns, self.span)
        if not parquet:
            with open_lines(self._path, self.span, self.progress) as lines:
                cursor.base = lines.position
                yield from json_lines(lines, cursor)


def read_stream(
    stream: Stream, cursor: Cursor, documents: Documents = "file", columns: Sequence[str] = ()
) -> Iterator[Record | Run]:
    """Records of `stream`, and of all files in it if it is an archive."""
    for packed in unpack(stream):
        member = as_utf8(packed)
        if not member.hidden:
            yield from _records(member, cursor, documents, columns)
        while member.read():  # an archive goes on where its member ends
            pass
        if member.failure and not member.hidden:
            at, raw = member.rest or (member.position, b"")
            if cursor.take():
                yield broken(BROKEN_FILE, member.failure, cursor.index - 1, cursor.base + at, raw)
        cursor.base += member.position


Kind = Callable[[Stream, Cursor, Sequence[str]], Iterator[Record | Run]]


def _records(stream: Stream, cursor: Cursor, documents: Documents, columns: Sequence[str]) -> Iterator[Record | Run]:
    head = stream.peek(_HEAD)
    if kind := _kind(head, stream.name):
        return kind(stream, cursor, columns)
    text = bool(_TEXT_NAME.search(stream.name))
    table = bool(_TABLE_NAME.search(stream.name))
    if named := foreign_format(head, text=text) or ("" if text or (table and _few_nuls(head)) else _binary(head)):
        return _unknown(named, head, cursor)
    if b"\r" in head and b"\n" not in head:
        stream.feed_lines()
    if table and not text:
        return delimited_rows(stream, cursor, head)
    return text_documents(stream, cursor, documents)


def _kind(head: bytes, name: str) -> Kind | None:
    """The reader for a stream with this beginning; None for text, CSV and TSV, and formats that are not read."""
    if head.startswith(b"PAR1"):
        return _parquet
    if _TEXT_NAME.search(name):
        return None
    body = head.removeprefix(b"\xef\xbb\xbf").lstrip(BLANK + b"\x1e")
    if opens_array(body):
        return _array
    return _lines if body.startswith(b"{") or (_JSON_NAME.search(name) and not foreign_format(head)) else None


def _binary(head: bytes) -> str:
    return "neither JSON, Parquet, CSV nor text" if b"\0" in head else ""


def _few_nuls(head: bytes) -> bool:
    """Whether a table may be one all the same: exports of databases have a NUL here and there."""
    return head.count(b"\0") * 100 <= len(head)


def _parquet(stream: Stream, cursor: Cursor, columns: Sequence[str]) -> Iterator[Record]:
    return parquet_rows(stream, cursor, columns)


def _array(stream: Stream, cursor: Cursor, columns: Sequence[str]) -> Iterator[Record]:
    return json_array(stream, cursor)


def _lines(stream: Stream, cursor: Cursor, columns: Sequence[str]) -> Iterator[Record | Run]:
    return json_lines(stream, cursor)


def _unknown(named: str, head: bytes, cursor: Cursor) -> Iterator[Record]:
    if cursor.take():
        yield broken(UNKNOWN_FORMAT, named, cursor.index - 1, cursor.base, head)
