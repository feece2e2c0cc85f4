"""Parquet: one dict per row, by record batches; of the columns, those that the source needs.

A few kilobytes of Parquet can hold gigabytes, in one value or in one that is repeated, so the sizes that pages declare
are looked at before anything is unpacked, and a batch has as few rows as keep it small whatever they hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from kun_builder.readers.cursor import BROKEN_FILE, MAX_RECORD, NOT_UTF8, TOO_LONG, Cursor, broken
from kun_builder.readers.decode import NO_ENCODING, decode
from kun_builder.readers.pages import PageError, page_sizes
from kun_builder.readers.streams import Stream, seekable
from kun_builder.types import Record

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH = 256
"""Most rows of a batch, since documents may be long."""

_BATCH_SIZE = MAX_RECORD
"""Most bytes of a batch of several rows; a single row may have more."""

_LARGE_PAGE = 4 * MAX_RECORD
"""Unpacked bytes above which a page may be at most `_RATIO` times as large as it is in the file."""

_LARGEST_PAGE, _RATIO = 1 << 30, 50


def parquet_rows(
    stream: Stream, cursor: Cursor, columns: Sequence[str] = (), groups: tuple[int, int] | None = None
) -> Iterator[Record]:
    """Rows in order; a row's index counts the rows before it. A row group that cannot be read is one broken record.

    columns: those to read, all where none of them is there. groups: first and end of the row groups to read.
    """
    import pyarrow as pa

    with seekable(stream) as file:
        try:
            table = _open(file)
        except (pa.ArrowException, OSError) as error:
            stream.failure = f"Parquet: {error}"
            return
        names = [name for name in table.schema_arrow.names if name in columns] or table.schema_arrow.names
        for group in range(*(groups or (0, table.num_row_groups))):
            first, rows = cursor.index, table.metadata.row_group(group).num_rows
            if first + rows <= cursor.start:
                cursor.index += rows
                continue
            try:
                for batch in table.iter_batches(_batch(file, table, group, names), row_groups=[group], columns=names):
                    yield from _rows(batch, cursor)
            except (pa.ArrowException, OSError, PageError) as error:
                cursor.index = max(cursor.index, first)
                if cursor.take():
                    reason = TOO_LONG if isinstance(error, PageError) and error.large else BROKEN_FILE
                    yield broken(reason, f"Parquet, row group {group} of {rows} rows: {error}", cursor.index - 1, None)
                cursor.index = first + rows


def _open(file: IO[bytes]) -> pq.ParquetFile:
    """Open the file so that in lists of texts each distinct value is in memory once, however often a row repeats it."""
    import pyarrow.parquet as pq

    schema = pq.ParquetFile(file).schema
    leaves = [schema.column(number) for number in range(len(schema))]
    lists = [leaf.path for leaf in leaves if leaf.max_repetition_level and leaf.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(file, buffer_size=1 << 20, read_dictionary=lists)


def _batch(file: IO[bytes], table: pq.ParquetFile, group: int, names: Sequence[str]) -> int:
    """How many rows a batch may have if each is as long as the longest page. Raises PageError for one too large."""
    facts, largest = table.metadata.row_group(group), 1
    for column in (facts.column(number) for number in range(facts.num_columns)):
        if column.path_in_schema in names or column.path_in_schema.startswith(tuple(f"{name}." for name in names)):
            for packed, unpacked in page_sizes(file, column):
                if unpacked > _LARGEST_PAGE or (unpacked > _LARGE_PAGE and unpacked > _RATIO * packed):
                    raise PageError(f"{unpacked} bytes packed into {packed} in column {column.path_in_schema}", True)
                largest = max(largest, unpacked)
    return max(1, min(_BATCH, _BATCH_SIZE // largest))


def _rows(batch: pa.RecordBatch, cursor: Cursor) -> Iterator[Record]:
    first, large = cursor.index, _size(batch) > MAX_RECORD
    wanted = [number for number in range(batch.num_rows) if cursor.take()]
    step = 1 if large else max(1, len(wanted))
    for start in range(0, len(wanted), step):
        numbers = wanted[start : start + step]
        part = batch.take(numbers) if len(numbers) < batch.num_rows else batch
        if large and (size := _size(part)) > MAX_RECORD:
            detail = f"a row of {size} bytes; the limit is {MAX_RECORD}"
            yield broken(TOO_LONG, detail, first + numbers[0], None)
            continue
        columns = [_values(column) for column in part.columns]
        for number, row in zip(numbers, zip(*columns, strict=True), strict=True):
            if NO_ENCODING in row:
                yield broken(NOT_UTF8, NO_ENCODING, first + number, None)
            else:
                yield Record(first + number, dict(zip(part.schema.names, row, strict=True)))


def _size(batch: pa.RecordBatch) -> int:
    return sum(map(_bytes, batch.columns))


def _bytes(column: pa.Array) -> int:
    """Bytes of all values, each counted as often as it occurs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind) and (pa.types.is_string(kind.value_type) or pa.types.is_binary(kind.value_type)):
        return pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
    if pa.types.is_struct(kind):
        return sum(map(_bytes, column.flatten()))
    if pa.types.is_map(kind):
        return _bytes(column.keys) + _bytes(column.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _bytes(column.flatten())
    return int(column.nbytes)


# --- values ----------------------------------------------------------------------------------------------------


def _values(column: pa.Array) -> list[Any]:
    """The column as Python values. Binary values that hold text become strings. A date that Python cannot express is
    the number in the file, or None: most likely no source asks for it."""
    import pyarrow as pa

    try:
        values = column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError, LookupError, TypeError):
        values = [_value(cell) for cell in column]
    return [_text(value) if isinstance(value, bytes) else value for value in values]


def _text(value: bytes) -> str | bytes:
    text = decode(value)
    return value if text is None else text


def _value(cell: pa.Scalar) -> Any:
    import pyarrow as pa

    try:
        return cell.as_py()
    except UnicodeDecodeError:
        text = decode(cell.as_buffer().to_pybytes()) if hasattr(cell, "as_buffer") else None
        return NO_ENCODING if text is None else text
    except (pa.ArrowException, ValueError, OverflowError, LookupError, TypeError):
        return _number(cell) if pa.types.is_temporal(cell.type) else None


def _number(cell: pa.Scalar) -> Any:
    """The number in the file for a point in time that Python cannot express; None if it is no whole number."""
    import pyarrow as pa

    for kind in (pa.int64(), pa.int32()):
        try:
            return cell.cast(kind).as_py()
        except pa.ArrowException:
            continue
    return None
