"""From sources to shards: every record of every input becomes a row of an Arrow file, streaming.

A row without a text has its verdict from the start: dropped (`no_text`) or quarantined, by the stage `read`. A finished
split has `<split>.json`, with the key of all that it depends on: reading again does nothing until an input, an option
or the source's code changes. A killed run goes on after the last shard that it finished. With `limit`, the rows of a
split are drawn over all of its records (`sampling.py`).
"""

from __future__ import annotations

import functools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from kun_builder.drops import QUARANTINED
from kun_builder.errors import SourceError, shown
from kun_builder.files import replace_file, seal, unseal
from kun_builder.report import StepCounts
from kun_builder.run.inputs import inputs_of, look_at, reading_key
from kun_builder.run.parts import PLACE, STAGE, Check, Part, Reading, blame, cut, large, read_ahead
from kun_builder.run.plan import digest
from kun_builder.run.processes import Crew
from kun_builder.run.sampling import Sample
from kun_builder.run.source_shards import SHARD_CHARACTERS, IngestShard, ShardWriter, load_rows, place
from kun_builder.status import Phase, Status
from kun_builder.types import Source

if TYPE_CHECKING:
    from kun_builder.recipe.parts import SplitSpec
    from kun_builder.recipe.registry import Entry

TABLE_ROWS = 1000
"""How many rows are turned into Arrow at once."""

_SUSPECT = 10  # a source that makes nothing of at least so many records does not fit them
_TRIED = 1000  # records in which a source must show that it fits, or nothing goes on before all is read


@dataclass(frozen=True)
class IngestResult:
    """One split as read: its shards in the order of the input, and what became of its records."""

    key: str
    files: int
    shards: tuple[IngestShard, ...]
    records: int
    """Records of the whole input. With a limit, more than those that were drawn."""

    @property
    def counts(self) -> StepCounts:
        """Records read, and those that gave no text, by reason."""
        dropped, quarantined = Counter[str](), Counter[str]()
        for shard in self.shards:
            dropped.update(shard.dropped)
            quarantined.update(shard.quarantined)
        return StepCounts(
            label=STAGE,
            stage=STAGE,
            rows_in=sum(shard.rows for shard in self.shards),
            rows_out=sum(shard.alive for shard in self.shards),
            dropped=dict(dropped),
            quarantined=dict(quarantined),
        )


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """How splits are read, and where to."""

    folder: Path
    """Of the shards."""
    shard_rows: int
    """Most rows of a shard."""
    limit: int | None = None
    """At most so many rows of a split, drawn over all records."""
    seed: int = 0
    """The same one draws the same rows, and a larger limit draws those and more."""
    status: Status
    crew: Crew | None = None
    """Reads beside this process; without it, and with a limit, this process reads alone."""
    check: Check = lambda: None
    """Called now and then, and ends the reading by raising."""


Splits: TypeAlias = "Mapping[str, tuple[SplitSpec, Entry[Source]]]"


def ingest(splits: Splits, settings: ReadSettings) -> dict[str, IngestResult]:
    """Read each split as `read_shards` does; returns when all are read."""
    results: dict[str, IngestResult] = {}
    for _ in read_shards(splits, settings, results):
        pass
    return results


def read_shards(
    splits: Splits, settings: ReadSettings, results: dict[str, IngestResult]
) -> Iterator[tuple[str, IngestShard]]:
    """Read each split into shards `<split>-00000.arrow`, or take those that an earlier run finished.

    Yields (split, shard) as soon as the shard is on disk, in order; `results` gets each split when all of it is read.
    The first is not given away before every split has a record that its source can use, so that a recipe whose sources
    do not fit costs nothing. Raises SourceError for an input that is missing or that the source does not fit,
    PluginError where the source itself fails.
    """
    folder, crew, check = settings.folder, settings.crew, settings.check
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{PLACE}*"):  # by a run that was killed
        shutil.rmtree(left)
    jobs = [_Job(name, spec, entry, settings) for name, (spec, entry) in splits.items()]
    parts = [part for job in jobs for part in job.parts] if crew and settings.limit is None else []
    workers = min(crew.size, len(parts)) if crew else 1
    fits = len(jobs) == 1 or all(job.fits() for job in jobs)  # a single one that does not has no row that lives
    held: list[tuple[str, IngestShard]] = []
    with ExitStack() as stack:
        ahead = None
        if crew and workers > 1 and large(parts):
            ahead = stack.enter_context(read_ahead(parts, folder, TABLE_ROWS, crew, workers, check))
        elif len(parts) == 1 and large(parts):
            settings.status.say(
                f"{shown(parts[0].path)} is read by one process: only plain JSON lines and Parquet are cut"
            )
        for job in jobs:
            for shard in job.run(ahead):
                if fits:
                    yield job.split, shard
                else:
                    held.append((job.split, shard))
            results[job.split] = job.result
    yield from held


def _finished(manifest: Path, key: str) -> IngestResult | None:
    try:
        facts = unseal(manifest.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if facts.get("key") != key:
        return None
    shards = tuple(IngestShard(**{**shard, "path": manifest.parent / shard["path"]}) for shard in facts["shards"])
    intact = all(shard.intact for shard in shards)
    return IngestResult(key, facts["files"], shards, facts["records"]) if intact else None


class _Job:
    """Reads one split."""

    result: IngestResult
    """There when all of it is read."""

    def __init__(self, split: str, spec: SplitSpec, entry: Entry[Source], settings: ReadSettings) -> None:
        self.split, self._entry, self._to = split, entry, settings
        folder, limit = settings.folder, settings.limit
        inputs = inputs_of(split, spec, entry)
        drawn = [] if limit is None else [limit, settings.seed]
        key = digest([reading_key(split, inputs, spec, entry), settings.shard_rows, SHARD_CHARACTERS, drawn])
        self._key, self._files, self._manifest = key, len(inputs), folder / f"{split}.json"
        self._done = _finished(self._manifest, key)
        self._writer = ShardWriter(folder, split, key, settings.shard_rows)
        self._after: tuple[str, int] | None = None
        self.parts: list[Part] = []
        if not self._done:
            self._manifest.unlink(missing_ok=True)
            shutil.rmtree(_waiting_place(folder, split), ignore_errors=True)
            if limit is None:
                self._after = self._writer.resume()
            else:
                self._writer.clear(0)
            sizes = {name: look_at(entry.value, path).size for name, path in inputs.items()}
            self._size = sum(sizes.values())
            wholes = [Part(name, path, entry.value.name, spec.options, sizes[name]) for name, path in inputs.items()]
            done = list(inputs).index(self._after[0]) if self._after else 0  # inputs that an earlier run went through
            self.parts = [part for whole in wholes[done:] for part in self._cut(whole)]
            self._before = sum(whole.size for whole in wholes[:done])

    def fits(self) -> bool:
        """Whether the source can use one of the first records that are yet to be read."""
        if self._done or self._after:
            return True
        left = _TRIED
        for part in self.parts:
            for table in Reading(part, self._entry, _SUSPECT, check=self._to.check):
                if pc.sum(pc.not_equal(table["_outcome"], QUARANTINED).fill_null(True)).as_py():
                    return True
                left -= len(table)
                if left <= 0:
                    return False
        return False

    def _cut(self, whole: Part) -> list[Part]:
        """The input cut in parts. One that cannot be cut is a single part, from where an earlier run stopped in it."""
        with blame(self._entry, f"reading {shown(whole.path)}"):
            parts = cut(whole, self._entry) if self._to.limit is None else [whole]
        if len(parts) == 1 and self._after and self._after[0] == whole.name:
            return [replace(whole, start=self._after[1] + 1)]
        return parts

    def run(self, ahead: Iterator[tuple[Path, int]] | None) -> Iterator[IngestShard]:
        """Read the split: from `ahead`, what other processes have read ahead, or in this process if that is None.
        Yields each shard when it is on disk."""
        if self._done:
            self.result = self._done
            yield from self._done.shards
            return
        status, limit = self._to.status, self._to.limit
        self._reading = status.reading = Phase(
            f"{STAGE} {self.split}", self._size or None, "bytes" if self._size else "rows", self._before
        )
        sample = None if limit is None else Sample(limit, self._to.seed)
        for table in self._draw(sample) if sample else self._tables(ahead):
            self._writer.add(table)
            for value in table.filter(pc.is_valid(table["_outcome"]))["_reason"].value_counts().to_pylist():
                status.drops[f"{STAGE}: {value['values']}"] += value["counts"]
            yield from self._writer.news()
        shards = self._writer.finish()
        self._reading.done = self._size or self._reading.done
        records = sample.offered if sample else sum(shard.rows for shard in shards)
        self.result = IngestResult(self._key, self._files, shards, records)
        _check_fit(self.split, self._entry, self.result)
        shards_named = [{**asdict(shard), "path": shard.path.name} for shard in shards]
        replace_file(self._manifest, seal({**asdict(self.result), "shards": shards_named}))
        yield from self._writer.news()

    def _tables(self, ahead: Iterator[tuple[Path, int]] | None) -> Iterator[pa.Table]:
        """Rows of all inputs in order, from the one after the last that an earlier run has read."""
        name, first = "", 0
        for part in self.parts:
            first = first if part.name == name else 0
            name = part.name
            if ahead is None:
                rows = min(self._to.shard_rows, TABLE_ROWS)
                reading = Reading(part, self._entry, rows, progress=self._progress, check=self._to.check)
                for table in reading:
                    yield self._placed(table, part, first)
                first += reading.count
            else:
                path, count = next(ahead)
                with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
                    for batch in stream:
                        yield self._placed(pa.Table.from_batches([batch]), part, first)
                first += count
                self._progress(part.size)

    def _placed(self, table: pa.Table, part: Part, first: int) -> pa.Table:
        placed = place(table, self.split, part.name, first)
        if self._after and self._after[0] == part.name:
            placed = placed.filter(pc.greater(placed["position"], self._after[1]))
        return placed

    def _progress(self, read: int) -> None:
        self._to.check()
        self._reading.done += read

    def _draw(self, sample: Sample) -> Iterator[pa.Table]:
        """The rows of the sample in the order of the input. Candidates, a few times as many, wait on disk meanwhile."""
        waiting = _waiting_place(self._to.folder, self.split)
        waiting.mkdir()
        candidates = ShardWriter(waiting, self.split, "", self._to.shard_rows)
        for part in self.parts:
            offer = functools.partial(self._offer, sample, f"{self.split}/{part.name}:")
            for table in Reading(part, self._entry, TABLE_ROWS, offer, self._progress, self._to.check):
                candidates.add(place(table, self.split, part.name, 0))
        for shard in candidates.finish():
            table = load_rows(shard.path)
            yield table.filter(pa.array([sample.holds(row_id) for row_id in table["id"].to_pylist()], pa.bool_()))
        shutil.rmtree(waiting)

    @staticmethod
    def _offer(sample: Sample, prefix: str, index: int) -> bool:
        return sample.offer(f"{prefix}{index}")


def _waiting_place(folder: Path, split: str) -> Path:
    return folder / f".{split}-sample"


def _check_fit(split: str, entry: Entry[Source], result: IngestResult) -> None:
    """Raise SourceError if not one of many records was usable: a wrong field, or the wrong source for these files."""
    counts = result.counts
    if counts.rows_in < _SUSPECT or sum(counts.quarantined.values()) < counts.rows_in:
        return
    row = load_rows(result.shards[0].path).slice(0, 1).to_pylist()[0]
    raise SourceError(
        f"split `{split}`: source `{entry.value.name}` could not use any of {counts.rows_in} records; "
        f"the first, {row['id']}: {row['_reason']}: {row['_value']}",
        hint=f"`kun-build plugins {entry.value.name}` shows what its records look like, and its options",
    )
