"""Shards on disk: Arrow files that are finished when their sidecar is there, and never computed again.

`<name>.arrow` is written first and synced, `<name>.json` after it, atomically: a crash between the two leaves a shard
that counts as not done. A dataset stage does not copy text: its drops are a small file beside the shards they concern.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kun_builder.drops import DROPPED, VERDICT, with_verdicts
from kun_builder.files import file_digest, replace_file, seal, unseal
from kun_builder.report import StepCounts, Tally
from kun_builder.run.source_shards import is_whole, load_rows
from kun_builder.run.worker import Result, conform

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Shard:
    """One shard of a split, with `alive` living rows. `key` is the digest of all that its content depends on.

    `excluded` are the rows that dataset stages dropped, as (row number in the file, stage, reason, value).
    """

    split: str
    number: int
    path: Path
    key: str
    alive: int
    excluded: tuple[tuple[int, str, str, str], ...] = ()

    def living(self) -> Dataset:
        """The rows without a verdict, memory-mapped; columns of verdicts and private ones are left out."""
        from datasets import Dataset
        from datasets.table import InMemoryTable

        return Dataset(InMemoryTable(self.table()), fingerprint=self.key)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the living rows."""
        with pa.memory_map(str(self.path)) as file, pa.ipc.open_stream(file) as stream:
            return pa.schema([field for field in stream.schema if not field.name.startswith("_")])

    def table(self) -> pa.Table:
        """The living rows as one Arrow table, memory-mapped as far as they lie together."""
        table, alive = load_rows(self.path, self.schema.names), self.living_rows()
        together = not len(alive) or alive[-1] - alive[0] == len(alive) - 1
        return table.slice(alive[0] if len(alive) else 0, len(alive)) if together else table.take(pa.array(alive))

    def measured(self, columns: Sequence[str]) -> Dataset:
        """`columns` of the living rows, for a dataset stage; private columns may be named."""
        dataset = self._open()
        alive = self.living_rows()
        dataset = dataset.select_columns([name for name in columns if name in dataset.column_names])
        return dataset if len(alive) == len(dataset) else dataset.select(alive)

    def living_rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Numbers of the living rows in the file, ascending."""
        outcome = load_rows(self.path, ["_outcome"]).column(0)
        mask = pc.is_null(outcome).to_numpy()
        mask[[row for row, *_ in self.excluded]] = False
        return np.flatnonzero(mask)

    def dead(self) -> pa.Table:
        """The rows that died in this shard, with their verdicts, private columns left out."""
        table = load_rows(self.path).combine_chunks()
        names = [name for name in table.column_names if not name.startswith("_") or name in VERDICT]
        died = table.filter(pc.is_valid(table["_outcome"])).select(names)
        if not self.excluded:
            return died
        cut = table.take(pa.array([row for row, *_ in self.excluded])).select(names)
        verdicts = zip(*[(DROPPED, stage, reason, value) for _, stage, reason, value in self.excluded], strict=True)
        cut = with_verdicts(cut, {n: pa.array(c, pa.string()) for n, c in zip(VERDICT, verdicts, strict=True)})
        return pa.concat_tables([died, cut.select(died.column_names)])

    def _open(self) -> Dataset:
        from datasets import Dataset

        return Dataset.from_file(str(self.path))


@dataclass(frozen=True)
class ShardRecord:
    """The sidecar of a finished shard: `rows` are in its file, and `alive` of them live on."""

    key: str
    alive: int
    rows: int
    counts: tuple[StepCounts, ...]
    usage: tuple[tuple[str, str, Mapping[str, int]], ...] = ()
    """One entry for each step and model: their names, and the fields of its `Tally`."""

    @classmethod
    def of(cls, key: str, result: Result) -> ShardRecord:
        """The record of a shard that has just been computed."""
        usage = tuple((stage, model, asdict(tally)) for (stage, model), tally in result.usage.items())
        return cls(key, result.alive, result.table.num_rows, result.counts, usage)

    def tallies(self) -> dict[tuple[str, str], Tally]:
        """The usage as `Tally` objects, by step and model."""
        return {(stage, model): Tally(**fields) for stage, model, fields in self.usage}


def read_record(path: Path, key: str) -> ShardRecord | None:
    """The record beside the shard `path`, or None if the shard is not finished, damaged, or of another key."""
    try:
        data = unseal(path.with_suffix(".json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if data.get("key") != key or not is_whole(path) or data.get("digest") not in (None, file_digest(path)):
        return None  # earlier versions wrote no digest
    counts = tuple(StepCounts(**count) for count in data["counts"])
    return ShardRecord(key, data["alive"], data["rows"], counts, tuple(tuple(entry) for entry in data["usage"]))


def finish_shard(path: Path, record: ShardRecord) -> None:
    """Finish a written shard: sync it to disk, then write the record by which it counts as done, and by which damage
    is noticed when it is taken up again."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    replace_file(path.with_suffix(".json"), seal({**asdict(record), "digest": file_digest(path)}))


def write_empty(path: Path, schema: pa.Schema) -> None:
    """A shard without rows, in the format that `Dataset.from_file` reads."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        writer.write_table(conform(schema.empty_table(), schema))


def exclude(shard: Shard, key: str, drops: Sequence[tuple[int, str, str, str]]) -> Shard:
    """The shard with further rows excluded; its key changes with them."""
    return replace(shard, key=key, excluded=(*shard.excluded, *drops), alive=shard.alive - len(drops))
