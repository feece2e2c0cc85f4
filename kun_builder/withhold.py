"""Rows of a corpus whose text may not be passed on: a digest and a position in the text's place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kun_builder.errors import PublishError
from kun_builder.plan import RESULT_COLUMNS
from kun_builder.report import SplitReport
from kun_builder.types import Source

DIGEST = "text_sha256"
_KEPT = ("id", "split", "file", *RESULT_COLUMNS)
_SHARED = 20
"""Characters that a value must have in common with the text to count as a part of it."""
_SPACE = re.compile(r"\s+")


def stays_here(corpus: Source | SplitReport) -> bool:
    """Whether its raw text may not be passed on: it says so, or no licence is declared that would allow it."""
    return not (corpus.license and corpus.redistributable)


def without_text(table: pa.Table) -> pa.Table:
    """The rows without raw text.

    `text` becomes `text_sha256`, of its UTF-8 bytes; any other column's value that is the text, holds it or is cut out
    of it becomes null, but for the result's own columns: see `refuse_copies`.
    """
    texts = _texts(table)
    bare = [_bare(text) for text in texts]
    digests = [None if text is None else hashlib.sha256(text.encode()).hexdigest() for text in texts]
    schema = _schema(table.schema)
    columns = []
    for field in schema:
        if field.name == DIGEST:
            columns.append(pa.array(digests, pa.string()))
        elif pa.types.is_string(field.type) and field.name not in _KEPT:
            values = table[field.name].to_pylist()
            columns.append(pa.array([_unless_copied(v, t) for v, t in zip(values, bare, strict=True)], pa.string()))
        else:
            columns.append(table[field.name])
    return pa.table(columns, schema=schema)


def refuse_copies(paths: Iterable[Path]) -> None:
    """Raise PublishError where an instruction or output repeats its whole raw text: the result would pass it on."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            names = [name for name in ("id", "text", *RESULT_COLUMNS) if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=10_000, columns=names):
                _refuse_copies(pa.Table.from_batches([batch]))


def _refuse_copies(table: pa.Table) -> None:
    texts = [_bare(text) for text in _texts(table)]
    for name in RESULT_COLUMNS:
        for row_id, value, text in zip(table["id"].to_pylist(), table[name].to_pylist(), texts, strict=True):
            if len(text) >= _SHARED and text in _bare(value):
                raise PublishError(
                    f"row {row_id}: its {name} contains the whole raw text, and the source may not be passed on",
                    hint="polish the answers of this source, or drop those that polishing left as they were",
                )


def _texts(table: pa.Table) -> list[Any]:
    return table["text"].to_pylist() if "text" in table.column_names else [None] * len(table)


def _schema(schema: pa.Schema) -> pa.Schema:
    at = schema.get_field_index("text")
    return schema.set(at, pa.field(DIGEST, pa.string())) if at >= 0 else schema


def _bare(text: str | None) -> str:
    return _SPACE.sub("", text or "")


def _unless_copied(value: str | None, text: str) -> str | None:
    short = _bare(value)
    copied = text and (short == text or text in short or (len(short) >= _SHARED and short in text))
    return None if copied else value
