"""Parts of one file that can be read by themselves: whole lines of a plain file, row groups of a Parquet file.

A span of lines is given in bytes, which may fall inside a line: a line belongs to the span in which it begins. So
adjacent spans have each line whole and once, and nobody needs to look for line ends before cutting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, TypeAlias

from kun_builder.errors import SourceError, shown
from kun_builder.readers.streams import CHUNK, Stream, open_file

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
        facts = pq.ParquetFile(path).metadata
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
    with open_file(path) as _:  # the errors of a file that cannot be opened are told in one place
        pass
    with open(path, "rb", buffering=0) as file:
        at, end = (_line_start(file, edge) for edge in span)
        file.seek(at)

        def read(size: int) -> bytes:
            nonlocal at
            try:
                data = file.read(min(size, end - at))
            except OSError as error:
                raise SourceError(f"{shown(path)} cannot be read: {error.strerror}") from error
            at += len(data)
            if progress:
                progress(len(data))
            return data

        stream = Stream(read, Path(path).name)
        stream.position = at
        yield stream


def _line_start(file: IO[bytes], at: int) -> int:
    """The first position from `at` on at which a line begins, or the end of the file."""
    if at == 0:
        return 0
    file.seek(at - 1)
    at -= 1
    while data := file.read(CHUNK):
        if (end := data.find(b"\n")) >= 0:
            return at + end + 1
        at += len(data)
    return at
