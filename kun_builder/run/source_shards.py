"""Shards of rows as they were read: each is there as a whole or not at all, and its metadata says how it came to be."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from kun_builder.drops import DROPPED, QUARANTINED, VERDICT
from kun_builder.files import file_digest
from kun_builder.readers import clean

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "split", "file")]
    + [(name, pa.int64()) for name in ("position", "offset")]
    + [(name, pa.string()) for name in ("text", *VERDICT)]
)
SHARD_CHARACTERS = 8 << 20
"""Characters after which a shard is closed: at most 32 MB of UTF-8. Only its last row may go beyond."""

PART = pa.schema([SCHEMA.field(name) for name in ("position", "offset", "text", *VERDICT)])
"""Schema of rows as a part is read: their positions count from the first record of the part."""


_END = b"\xff\xff\xff\xff\0\0\0\0"
"""How a stream of Arrow ends; it begins with the first half."""


@dataclass(frozen=True)
class IngestShard:
    """One shard: `rows` are in its file, and `alive` of them live on.

    `key` is the digest of its rows: the same rows have the same key, wherever they were read. `digest` is that of its
    file, by which damage is noticed; of an earlier version, there is none.
    """

    path: Path
    rows: int
    alive: int
    key: str
    dropped: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""

    @property
    def intact(self) -> bool:
        """Whether its file is as it was written. It takes as long as reading the file."""
        return is_whole(self.path) and self.digest in ("", file_digest(self.path))


class ShardWriter:
    """Writes rows to shards; each is there as a whole, with its key, counts and digest in the schema's metadata."""

    def __init__(self, folder: Path, split: str, key: str, shard_rows: int) -> None:
        self._folder, self._split, self._key, self._shard_rows = folder, split, key, shard_rows
        self._done: list[IngestShard] = []
        self._told = 0
        self._tables: list[pa.Table] = []
        self._rows = self._characters = 0

    def resume(self) -> tuple[str, int] | None:
        """Keep the shards of this key that an earlier run left; the input and index of their last record."""
        last = None
        while shard := _shard_of(self._path(len(self._done)), self._key):
            self._done.append(shard)
            row = load_rows(shard.path, ["file", "position"]).slice(shard.rows - 1).to_pylist()
            last = (row[0]["file"], row[0]["position"]) if row else None
        self.clear(len(self._done))
        return last

    def clear(self, start: int) -> None:
        """Delete the split's shards from number `start` on."""
        for path in self._folder.iterdir():
            match = re.fullmatch(re.escape(self._split) + r"-(\d{5,})\.arrow", path.name)
            if match and int(match[1]) >= start:
                path.unlink()

    def news(self) -> list[IngestShard]:
        """Shards that are finished since the last call, those of an earlier run included."""
        news = self._done[self._told :]
        self._told = len(self._done)
        return news

    def add(self, table: pa.Table) -> None:
        """Add rows of SCHEMA. Where a shard ends depends on the rows only, not on the tables they come in."""
        ends = np.cumsum(pc.utf8_length(table["text"]).to_numpy())
        at = 0
        while at < len(ends):
            before = ends[at - 1] if at else 0
            full = int(np.searchsorted(ends, before + SHARD_CHARACTERS - self._characters)) + 1
            stop = min(at + self._shard_rows - self._rows, full, len(ends))
            self._tables.append(table.slice(at, stop - at))
            self._rows += stop - at
            self._characters += int(ends[stop - 1] - before)
            if self._rows >= self._shard_rows or self._characters >= SHARD_CHARACTERS:
                self._flush()
            at = stop

    def finish(self) -> tuple[IngestShard, ...]:
        """All shards; at least one, so that an empty split has a schema."""
        if self._rows or not self._done:
            self._flush()
        return tuple(self._done)

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._split}-{number:05d}.arrow"

    def _flush(self) -> None:
        table = pa.concat_tables([SCHEMA.empty_table(), *self._tables]).combine_chunks()
        path = self._path(len(self._done))
        facts = _facts(table)
        temporary = path.with_name(f".{path.name}.tmp")
        metadata = {"kun_ingest": orjson.dumps({"input": self._key, **facts})}
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, SCHEMA.with_metadata(metadata)) as writer:
            writer.write_table(table)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        self._done.append(IngestShard(path, **facts, digest=file_digest(path)))
        self._tables, self._rows, self._characters = [], 0, 0


def part_table(columns: Sequence[Sequence[Any]]) -> pa.Table:
    """A table of schema PART, from the values of each column."""
    try:
        return pa.table([pa.array(column, kind) for column, kind in zip(columns, PART.types, strict=True)], PART)
    except UnicodeEncodeError:  # a source's own reader let a lone surrogate pass
        return part_table([[clean(value) for value in column] for column in columns])


def run_table(first: int, offsets: Sequence[int], texts: Sequence[str]) -> pa.Table:
    """A table of schema PART for records in a row, from number `first` on, all of which live."""
    positions = np.arange(first, first + len(texts))
    columns = [pa.array(positions), pa.array(offsets, pa.int64()), pa.array(texts, pa.string())]
    return pa.table([*columns, *(pa.nulls(len(texts), pa.string()) for _ in VERDICT)], PART)


def place(table: pa.Table, split: str, file: str, first: int) -> pa.Table:
    """Rows of SCHEMA from a table of PART that begins at the record `first` of the input `file`."""
    position = pc.add(table["position"], first)
    ids = pc.binary_join_element_wise(pa.scalar(f"{split}/{file}:"), pc.cast(position, pa.string()), "")
    names = [pa.repeat(pa.scalar(name), len(table)) for name in (split, file)]
    return pa.table([ids, *names, position, *table.columns[1:]], SCHEMA)


def _facts(table: pa.Table) -> dict[str, Any]:
    """What an `IngestShard` says of a table of one chunk."""
    facts = {"rows": table.num_rows, "alive": table["_outcome"].null_count, "key": _digest(table)}
    for outcome in (DROPPED, QUARANTINED):
        reasons = table.filter(pc.equal(table["_outcome"], outcome))["_reason"]
        facts[outcome] = dict(Counter(reasons.to_pylist()))
    return facts


def _digest(table: pa.Table) -> str:
    """SHA-256 of the values of a table of one chunk, first 32 hex digits. How its buffers lie makes no difference."""
    content = hashlib.sha256()
    for column in table.columns:
        array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        content.update(pc.is_valid(array).to_numpy(zero_copy_only=False) if array.null_count else b"-")
        if pa.types.is_string(array.type):
            content.update(pc.binary_length(array).fill_null(0).to_numpy())
            array = _bytes_of(array)
        else:
            array = array.fill_null(0).to_numpy()
        content.update(array)
    return content.hexdigest()[:32]


def _bytes_of(array: pa.StringArray) -> pa.Buffer:
    """The bytes of all strings, one after the other."""
    if array.null_count:  # there may be bytes behind a null
        array = array.fill_null("")
    _, ends, data = array.buffers()
    if not len(array) or data is None:
        return pa.py_buffer(b"")
    first, last = np.frombuffer(ends, np.int32)[[array.offset, array.offset + len(array)]].tolist()
    return data.slice(first, last - first)


def is_whole(path: Path) -> bool:
    """Whether a shard has its beginning and its end. A full disk, a copy that was broken off, or a machine that lost
    its power can leave a part of one, or nothing but zeros."""
    try:
        with path.open("rb") as file:
            begins = file.read(4) == _END[:4]
            file.seek(-len(_END), os.SEEK_END)
            return begins and file.read() == _END
    except OSError:  # it is missing, or shorter than its end
        return False


def load_rows(path: Path, columns: list[str] | None = None) -> pa.Table:
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        table = stream.read_all()
    return table.select(columns) if columns else table


def _shard_of(path: Path, key: str) -> IngestShard | None:
    """The shard at `path`; None if there is none, or it is damaged or has another key."""
    if not is_whole(path):
        return None
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            said = orjson.loads((stream.schema.metadata or {})[b"kun_ingest"])
            if said.pop("input", None) != key:
                return None
            table = stream.read_all()
        table.validate(full=True)  # offsets that are damaged must not be followed
        facts = _facts(table.combine_chunks()) if table.schema.equals(SCHEMA) else None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # whichever of them damage leads to
    return IngestShard(path, **said, digest=file_digest(path)) if said == facts else None
