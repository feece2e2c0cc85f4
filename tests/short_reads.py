"""Streams that give their bytes in pieces of any size, as sockets and decompressors do."""

from collections.abc import Iterable
from itertools import chain, repeat

from kun_builder.readers.cursor import Cursor
from kun_builder.readers.records import read_stream
from kun_builder.readers.streams import Stream


def stream_of(data: bytes, sizes: Iterable[int] = (), name: str = "x.jsonl") -> Stream:
    """`data` as a stream whose reads return at most `sizes` bytes, one size after the other, then all that is asked."""
    position, pieces = 0, chain(sizes, repeat(len(data) + 1))

    def read(size: int) -> bytes:
        nonlocal position
        piece = data[position : position + min(size, next(pieces))]
        position += len(piece)
        return piece

    return Stream(read, name)


def records_of(data: bytes, sizes=(), name="x.jsonl", documents="file", columns=(), **cursor):
    """All records of `data`."""
    return list(read_stream(stream_of(data, sizes, name), Cursor(**cursor), documents, columns))
