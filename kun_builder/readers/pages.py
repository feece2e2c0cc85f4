"""The sizes of the pages of a Parquet column, read from the pages' own headers: pyarrow does not tell them.

A header is a struct in Thrift's compact protocol (https://github.com/apache/thrift/blob/master/doc/specs), described in
https://github.com/apache/parquet-format as PageHeader: field 2 is the size unpacked, field 3 the size in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

_WINDOWS = (1 << 10, 1 << 24)  # bytes in which a header is looked for; statistics in it may be long
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_DEPTH = 20


class PageError(Exception):
    """Pages cannot be read, or must not be read because one is too `large`."""

    def __init__(self, message: str, large: bool = False) -> None:
        super().__init__(message)
        self.large = large


def page_sizes(file: IO[bytes], column: Any) -> Iterator[tuple[int, int]]:
    """Yield (bytes in the file, bytes unpacked) of each page of a column chunk; `column` is pyarrow's metadata."""
    offsets = [column.data_page_offset, column.dictionary_page_offset if column.has_dictionary_page else None]
    at = min(offset for offset in offsets if offset)
    end = at + column.total_compressed_size
    while at < end:
        header, length = _header(file, at)
        unpacked, packed = header.get(2, -1), header.get(3, -1)
        if unpacked < 0 or packed < 0:
            raise PageError(f"no page at byte {at}")
        yield packed, unpacked
        at += length + packed


def _header(file: IO[bytes], at: int) -> tuple[dict[int, int], int]:
    """The integers in the page header at byte `at`, by field number, and the header's length in bytes."""
    for window in _WINDOWS:
        file.seek(at)
        reader = _Compact(file.read(window))
        try:
            return reader.struct(), reader.at
        except IndexError:
            continue
    raise PageError(f"no page header at byte {at}")


class _Compact:
    """Reads just enough of Thrift's compact protocol to get past a struct. Raises IndexError where the data end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        """Integer fields of the struct ahead by number; those of structs within are left out."""
        fields, number = dict[int, int](), 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            if kind in _INTEGERS:
                fields[number] = self._integer()
            elif kind not in (_TRUE, _FALSE):
                self._skip(kind, depth + 1)
        return fields

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise PageError("no page header")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _DEPTH:
            raise PageError("no page header")
        if kind == _STRUCT:
            self.struct(depth)
        elif kind == _BINARY:
            self._forward(self._varint())
        elif kind in _INTEGERS:
            self._varint()
        elif kind in (_TRUE, _FALSE, _BYTE):
            self._forward(1)
        elif kind == _DOUBLE:
            self._forward(8)
        elif kind in (_LIST, _SET):
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                self._skip(head & 15, depth + 1)
        else:
            raise PageError("no page header")

    def _forward(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise IndexError
