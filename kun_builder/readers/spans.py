"""Parts of one file that can be read by themselves: whole lines of a plain file, row groups of a Parquet file.

A span of lines is given in bytes, which may fall inside a line: a line belongs to the span in which it begins. So
adjacent spans have each line whole and once, and nobody needs to look for line ends before cutting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeAlias

from kun_builder.readers.addresses import name_of
from kun_builder.readers.places import open_anywhere, open_stream
from kun_builder.readers.streams import CHUNK, Stream, counted

Span: TypeAlias = tuple[int, int]
"""First and end (not included): bytes of a file of lines, or row groups of a Parquet file."""


def cut_bytes(total: int, size: int) -> list[Span]:
    """Spans of at least `size` bytes over `total`."""
    count = max(1, total // size)
    edges = [total * number // count for number in range(count + 1)]
    return list(pairwise(edges))


def cut_groups(path: str, size: int) -> list[Span]:
    """Spans of row groups with at least `size` packed bytes each; the last one has what is left. There are none if the
    file is broken, and the reading that follows reports why."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_anywhere(path) as file:
            facts = pq.ParquetFile(file).metadata
    except (pa.ArrowException, OSError):
        return []
    edges, packed = [0], 0
    for group in range(facts.num_row_groups):
        about = facts.row_group(group)
        packed += sum(about.column(number).total_compressed_size for number in range(about.num_columns))
        if packed >= size:
            edges.append(group + 1)
            packed = 0
    if edges[-1] < facts.num_row_groups:
        edges.append(facts.num_row_groups)
    return list(pairwise(edges))


@contextmanager
def open_lines(path: str, span: Span, progress: Callable[[int], None] | None = None) -> Iterator[Stream]:
    """The lines that begin within `span`, as a stream whose `position` counts from the file's first byte."""
    at, end = (_line_start(path, edge) for edge in span)
    with open_stream(path, at, end) as read:
        stream = Stream(counted(read, progress), name_of(path))
        stream.position = at
        yield stream


def _line_start(path: str, at: int) -> int:
    """The first position from `at` on at which a line begins, or the end of the file."""
    if at == 0:
        return 0
    at -= 1
    with open_stream(path, at) as read:
        while data := read(CHUNK):
            if (end := data.find(b"\n")) >= 0:
                return at + end + 1
            at += len(data)
    return at
