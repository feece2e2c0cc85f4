"""Provenance of a corpus whose text may not be passed on: a digest and a position in the text's place."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kun_builder.errors import PublishError
from kun_builder.plan import RESULT_COLUMNS

DIGEST = "text_sha256"
_KEPT = ("id", "split", "file", *RESULT_COLUMNS)
_SHARED = 20
"""Characters that a value must have in common with the text to count as a part of it."""
_SPACE = re.compile(r"\s+")


def withhold(source: Path, target: Path) -> None:
    """Write the provenance file `source` to `target` without raw text.

    `text` becomes `text_sha256`, of its UTF-8 bytes; any other column's value that is the text, holds it or is cut out
    of it becomes null. Raises PublishError where an output repeats the whole text: the result itself would pass it on.
    """
    with pq.ParquetFile(source) as file:
        schema = _schema(file.schema_arrow)
        with pq.ParquetWriter(target, schema, use_content_defined_chunking=True) as writer:
            for batch in file.iter_batches(batch_size=10_000):
                writer.write_table(_without_text(pa.Table.from_batches([batch]), schema), row_group_size=10_000)


def _schema(schema: pa.Schema) -> pa.Schema:
    at = schema.get_field_index("text")
    return schema.set(at, pa.field(DIGEST, pa.string())) if at >= 0 else schema


def _without_text(table: pa.Table, schema: pa.Schema) -> pa.Table:
    texts: list[Any] = table["text"].to_pylist() if "text" in table.column_names else [None] * len(table)
    bare = [_SPACE.sub("", text or "") for text in texts]
    _refuse_copies(table, bare)
    digests = [None if text is None else hashlib.sha256(text.encode()).hexdigest() for text in texts]
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


def _unless_copied(value: str | None, text: str) -> str | None:
    short = _SPACE.sub("", value or "")
    copied = text and (short == text or text in short or (len(short) >= _SHARED and short in text))
    return None if copied else value


def _refuse_copies(table: pa.Table, texts: list[str]) -> None:
    for name in RESULT_COLUMNS:
        for row_id, value, text in zip(table["id"].to_pylist(), table[name].to_pylist(), texts, strict=True):
            if len(text) >= _SHARED and text in _SPACE.sub("", value):
                raise PublishError(
                    f"row {row_id}: its {name} contains the whole raw text, and the source may not be passed on",
                    hint="polish the answers of this source, or drop those that polishing left as they were",
                )
