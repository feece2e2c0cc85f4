"""Rows of a corpus whose text may not be passed on: a digest and a position in the text's place."""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kun_builder.drops import RESULT_COLUMNS, TURNS
from kun_builder.errors import PublishError
from kun_builder.recipe.corpus import Declared
from kun_builder.report import SplitReport

DIGEST = "text_sha256"
_KEPT = ("id", "split", "file", "calls", "steps", *RESULT_COLUMNS)
"""Columns that are never emptied: those that the engine makes of names and places, and those of the result."""
_SHARED = 20
"""Characters that a value must have in common with the text to count as a part of it."""
_NUMBERS = 20
"""Length from which on a list of whole numbers may be the text in another form: token ids, code points."""
_LONG = rf"(?:[^\pZ\pC][\pZ\pC]*){{{_SHARED}}}"
"""Arrow's regular expression (RE2) for a text with at least `_SHARED` characters that are no white space."""
_SPACE, _NO_WORD = re.compile(r"\s+"), re.compile(r"[\W_]+")
Forms = tuple[str, str]
"""Two forms of a text: one without spaces, one of letters and digits alone without regard to case and width. Cleaning
changes the rest."""


def stays_here(corpus: Declared | SplitReport) -> bool:
    """Whether the raw text of a corpus must not be passed on: it says so, or declares no licence that allows it."""
    facts = asdict(corpus) if isinstance(corpus, SplitReport) else corpus
    return not (facts["license"] and facts["redistributable"])


def without_text(table: pa.Table) -> pa.Table:
    """The rows without raw text.

    `text` becomes `text_sha256`, of its UTF-8 bytes; any other column's value that is the text, holds it or a part of
    it, or is cut out of it, becomes null, whatever the column's type is: strings are looked for within lists, structs
    and bytes, together and one by one. The result's own columns stay: see `refuse_copies`.
    """
    texts = _texts(table)

    @functools.cache
    def forms(row: int) -> Forms:
        return _forms(texts[row].as_py())

    schema = _schema(table.schema)
    columns = []
    for field in schema:
        if field.name == DIGEST:
            columns.append(pa.array(map(_digest, texts.cast(pa.binary()).to_pylist()), pa.string()))
        elif field.name not in _KEPT and _may_hold_text(field.type):
            columns.append(_emptied(table[field.name], _copying(table[field.name], texts, forms)))
        else:
            columns.append(table[field.name])
    return pa.table(columns, schema=schema)


def _digest(text: bytes | None) -> str | None:
    return None if text is None else hashlib.sha256(text).hexdigest()


def _copying(column: pa.ChunkedArray, texts: pa.Array, forms: Callable[[int], Forms]) -> list[bool]:
    """Whether each row's value passes its text on."""
    look = pc.is_valid(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        few = pc.and_(pc.string_is_ascii(column), pc.less(pc.binary_length(column), _SHARED))
        long = pc.fill_null(pc.match_substring_regex(texts, _LONG), False)
        # Fewer plain letters than count as a part of a text can only be all of a text that is as short.
        look = pc.and_not(look, pc.fill_null(pc.and_(few, long), False))
    return [suspect and _copies(column[row].as_py(), forms(row)) for row, suspect in enumerate(look.to_pylist())]


def _emptied(column: pa.ChunkedArray, empty: Sequence[bool]) -> pa.ChunkedArray:
    """The column with null for some rows; by slices, since Arrow can take rows of most types only."""
    chunks: list[pa.Array] = []
    start = 0
    for same, run in itertools.groupby(empty):
        rows = len(list(run))
        chunks += [pa.nulls(rows, column.type)] if same else column.slice(start, rows).chunks
        start += rows
    return pa.chunked_array(chunks, column.type)


def refuse_text(kept: Iterable[Path], published: Iterable[Mapping[str, Any]]) -> None:
    """Raise PublishError where rows that are to be published hold raw text; `kept` has the same rows with their text,
    in the same order."""
    for (row_id, text), row in zip(_rows_of(kept, ("id", "text")), published, strict=False):
        forms = _forms(text)
        for name, value in row.items():
            if name == "text" or (name not in _KEPT and _copies(value, forms)):
                raise PublishError(
                    f"row {row_id}: `{name}` of the provenance holds raw text, and the source may not be passed on",
                    hint="build the run again with --fresh",
                )


def _rows_of(paths: Iterable[Path], names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=10_000, columns=[name for name in names if name in there]):
                nothing = [None] * len(batch)
                columns = [batch[name].to_pylist() if name in there else nothing for name in names]
                yield from zip(*columns, strict=True)


def refuse_copies(paths: Iterable[Path]) -> None:
    """Raise PublishError where an instruction or output repeats its whole raw text: the result would pass it on."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            names = [name for name in ("id", "text", *RESULT_COLUMNS, TURNS) if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=10_000, columns=names):
                _refuse_copies(pa.Table.from_batches([batch]))


def _refuse_copies(table: pa.Table) -> None:
    texts = [_bare(text) for text in _texts(table).to_pylist()]
    for name in (*RESULT_COLUMNS, TURNS) if TURNS in table.column_names else RESULT_COLUMNS:
        for row_id, value, text in zip(table["id"].to_pylist(), table[name].to_pylist(), texts, strict=True):
            if len(text) >= _SHARED and text in _bare("".join(value or ())):
                raise PublishError(
                    f"row {row_id}: its {name} contains the whole raw text, and the source may not be passed on",
                    hint="let a stage write the answers of this source anew, or drop those that it left as they were",
                )


def _texts(table: pa.Table) -> pa.Array:
    if "text" not in table.column_names:
        return pa.nulls(len(table), pa.string())
    return pa.concat_arrays([pa.array([], pa.string()), *table["text"].chunks])


def _schema(schema: pa.Schema) -> pa.Schema:
    at = schema.get_field_index("text")
    schema = schema.set(at, pa.field(DIGEST, pa.string())) if at >= 0 else schema
    return pa.schema([field.with_nullable(True) for field in schema])


def _may_hold_text(kind: pa.DataType) -> bool:
    """Whether values of a type have strings, bytes or lists of whole numbers in them."""
    if pa.types.is_nested(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _may_hold_text(kind.value_type)
    plain = pa.types.is_primitive(kind) or pa.types.is_null(kind) or pa.types.is_decimal(kind)
    return not plain  # an extension's type may hold anything


def _bare(text: str | None) -> str:
    return _SPACE.sub("", text or "")


def _forms(text: str | None) -> Forms:
    return _bare(text), _NO_WORD.sub("", unicodedata.normalize("NFKC", text or "")).casefold()


def _copies(value: Any, text: Forms) -> bool:
    """Whether a value of any type passes the text on, or a part of it."""
    if value is None or isinstance(value, int | float) or not text[0]:
        return False
    pieces, numbers = [], 0
    for part in _parts(value):
        if isinstance(part, str):
            pieces.append(part)
        else:
            numbers += 1
    if numbers >= _NUMBERS:
        return True
    bare, words = _forms("".join(pieces))
    return _copied(bare, text[0]) or (len(text[1]) >= _SHARED and _copied(words, text[1])) or _cut_up(pieces, text[1])


def _parts(value: Any) -> Iterator[str | int]:
    """The strings in a value, and the whole numbers of its lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes | bytearray | memoryview):
        yield bytes(value).decode("utf-8", "ignore")
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _parts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, int) and not isinstance(item, bool):
                yield item
            else:
                yield from _parts(item)


def _copied(short: str, text: str) -> bool:
    """Whether one holds the other, or a run of the text that cannot be chance (any of twice `_SHARED` is found)."""
    if not (short and text):
        return False
    if short == text or text in short or (len(short) >= _SHARED and short in text):
        return True
    windows = (text[at : at + _SHARED] for at in range(0, len(text) - _SHARED + 1, _SHARED))
    return any(window in short for window in windows)


def _cut_up(pieces: Sequence[str], text: str) -> bool:
    """Whether pieces, in any order, are cut out of the text: together as long as a part that counts."""
    bare = {_forms(piece)[1] for piece in pieces} if len(pieces) > 1 else set()
    return sum(len(piece) for piece in bare if piece in text) >= _SHARED
