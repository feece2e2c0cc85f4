"""Parquet: one dict per row, by record batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kun_builder.readers.cursor import BROKEN_FILE, NOT_UTF8, Cursor, broken
from kun_builder.readers.streams import Stream, seekable
from kun_builder.types import Record

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 256  # rows; documents may be long


def parquet_rows(stream: Stream, cursor: Cursor) -> Iterator[Record]:
    """Rows in order; a row's index counts the rows before it. A row group that cannot be read is one broken record."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with seekable(stream) as file:
        try:
            table = pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            stream.failure = f"Parquet: {error}"
            return
        for group in range(table.num_row_groups):
            first, rows = cursor.index, table.metadata.row_group(group).num_rows
            if first + rows <= cursor.start:
                cursor.index += rows
                continue
            try:
                for batch in table.iter_batches(_BATCH, row_groups=[group]):
                    yield from _rows(batch, cursor)
            except (pa.ArrowException, OSError) as error:
                cursor.index = max(cursor.index, first)
                if cursor.take():
                    yield broken(BROKEN_FILE, f"Parquet, row group {group}: {error}", cursor.index - 1, None)
                cursor.index = first + rows


def _rows(batch: pa.RecordBatch, cursor: Cursor) -> Iterator[Record]:
    first = cursor.index
    wanted = [number for number in range(batch.num_rows) if cursor.take()]
    if not wanted:
        return
    try:
        rows = batch.take(wanted).to_pylist()
    except UnicodeDecodeError:
        rows = [_row(batch.slice(number, 1)) for number in wanted]
    for number, row in zip(wanted, rows, strict=True):
        if isinstance(row, UnicodeDecodeError):
            yield broken(NOT_UTF8, row, first + number, None)
        else:
            yield Record(first + number, row)


def _row(row: pa.RecordBatch) -> Any:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return error
