"""From sources to shards: every record of every input becomes a row of an Arrow file, streaming.

A row without a text has its verdict from the start: dropped (`no_text`) or quarantined, by the stage `read`. A finished
split has `<split>.json`, with the key of all that it depends on: reading again does nothing until an input, an option
or the source's code changes. A killed run goes on after the last shard that it finished. With `limit`, the rows of a
split are drawn over all of its records (`sampling.py`).
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from kun_builder.drops import DROPPED, QUARANTINED
from kun_builder.errors import Drop, KunError, PluginError, SourceError, shown
from kun_builder.readers import Records, find_files, name_inputs
from kun_builder.recipe.options import accepted
from kun_builder.report import StepCounts, replace_file
from kun_builder.run.plan import digest, file_digests, plain
from kun_builder.run.sampling import Sample
from kun_builder.run.source_shards import SHARD_CHARACTERS, IngestShard, Row, ShardWriter, load_rows
from kun_builder.status import Status
from kun_builder.types import Record, Source

if TYPE_CHECKING:
    from kun_builder.recipe.parts import SplitSpec
    from kun_builder.recipe.plugins import Entry

STAGE = "read"
_FORMAT = 2  # of shards and of what is in their metadata; part of every key
_SUSPECT = 10  # a source that makes nothing of at least so many records does not fit them


@dataclass(frozen=True)
class IngestResult:
    """One split as read: its shards in the order of the input, and what became of its records."""

    key: str
    files: int
    shards: tuple[IngestShard, ...]
    records: int
    """Records of the whole input: more than were read, where a limit drew some of them."""

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


def ingest(
    split: str,
    spec: SplitSpec,
    entry: Entry[Source],
    *,
    folder: Path,
    shard_rows: int,
    limit: int | None,
    seed: int,
    status: Status,
) -> IngestResult:
    """Read `split` into shards `<split>-00000.arrow` in `folder`, or return those that an earlier run finished.

    limit: at most so many rows, drawn over all records; the same `seed` draws the same ones, and a larger limit draws
    those and more. Raises SourceError for an input that is missing or that the source does not fit, PluginError where
    the source itself fails.
    """
    inputs = _inputs(split, spec, entry)
    drawn = [] if limit is None else [limit, seed]
    key = digest([_key(split, inputs, spec, entry), shard_rows, SHARD_CHARACTERS, drawn])
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / f"{split}.json"
    if done := _finished(manifest, key):
        return done
    manifest.unlink(missing_ok=True)
    shutil.rmtree(_waiting_place(folder, split), ignore_errors=True)
    reading = _Reading(split, entry, spec.options, inputs, status)
    size = sum(reading.sizes.values())
    status.begin(f"{STAGE} {split}", size or None, "bytes" if size else "rows")
    writer = ShardWriter(folder, split, key, shard_rows)
    sample = None if limit is None else Sample(limit, seed)
    if sample is None:
        rows = reading.rows(after=writer.resume())
    else:
        writer.clear(0)
        rows = _draw(reading, sample, folder, shard_rows)
    for row in rows:
        writer.add(row)
        if row[-2]:
            status.drops[f"{STAGE}: {row[-2]}"] += 1
    shards = writer.finish()
    records = sample.offered if sample else sum(shard.rows for shard in shards)
    result = IngestResult(key, len(inputs), shards, records)
    _check_fit(split, entry, result)
    replace_file(manifest, orjson.dumps(asdict(result), default=_name))
    return result


def input_key(split: str, spec: SplitSpec, entry: Entry[Source]) -> str:
    """Digest of the files behind `split` (names, sizes, times of change), its options and its source's code."""
    return _key(split, _inputs(split, spec, entry), spec, entry)


def _name(path: Path) -> str:
    """In a manifest, shards are named as they are beside it: the folder may move."""
    return path.name


def _finished(manifest: Path, key: str) -> IngestResult | None:
    try:
        facts = orjson.loads(manifest.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    if facts["key"] != key:
        return None
    shards = tuple(IngestShard(**{**shard, "path": manifest.parent / shard["path"]}) for shard in facts["shards"])
    whole = all(shard.path.exists() for shard in shards)
    return IngestResult(key, facts["files"], shards, facts["records"]) if whole else None


# --- inputs ----------------------------------------------------------------------------------------------------


def _inputs(split: str, spec: SplitSpec, entry: Entry[Source]) -> dict[str, str]:
    """Inputs under the names that row ids carry."""
    source = entry.value
    with _blame(entry, f"looking for the inputs of split `{split}`"):
        if source.find is None:
            found = [file for path in spec.path for file in find_files(path, source.files, split)]
        else:
            options = accepted(source.find, spec.options)
            found = [file for path in spec.path for file in source.find(path, **options)]
    if not found:
        raise SourceError(f"split `{split}`: source `{source.name}` finds nothing at {shown(', '.join(spec.path))}")
    return name_inputs(found, source.depth)


def _key(split: str, inputs: Mapping[str, str], spec: SplitSpec, entry: Entry[Source]) -> str:
    source = entry.value
    stamps = [[name, *_stamp(path)] for name, path in inputs.items()]
    options = {name: plain(value) for name, value in spec.options.items()}
    files = file_digests(entry.options, spec.options)
    return digest([_FORMAT, split, source.name, source.version, entry.digest, options, files, stamps])


def _stamp(path: str) -> list[Any]:
    """What changes when the content of `path` does; nothing for what is no path."""
    if os.path.isdir(path):
        return [[name, _stamp(os.path.join(path, name))] for name in sorted(os.listdir(path))]
    return [os.stat(path).st_size, os.stat(path).st_mtime_ns] if os.path.exists(path) else []


@contextmanager
def _blame(entry: Entry[Source], doing: str) -> Iterator[None]:
    """Put whatever a source raises under its owner's name."""
    try:
        yield
    except KunError:
        raise
    except Exception as error:  # a stranger's code may raise anything
        raise PluginError(
            f"source `{entry.value.name}` of {entry.package} failed while {doing}: {type(error).__name__}: {error}",
            hint="tell the plugin's author, or leave this input out",
        ) from error


# --- rows ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """One split being read."""

    split: str
    entry: Entry[Source]
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    status: Status

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each input on disk; 0 for one that is no file."""
        return {n: os.path.getsize(path) if os.path.isfile(path) else 0 for n, path in self.inputs.items()}

    def rows(self, sample: Sample | None = None, after: tuple[str, int] | None = None) -> Iterator[Row]:
        """Rows of all inputs in order, from behind the record `after` (input and index) on."""
        begun = after is None
        done, sizes = 0, self.sizes
        for name, path in self.inputs.items():
            begun = begun or (after is not None and after[0] == name)
            if begun:
                start = after[1] + 1 if after and after[0] == name else 0
                with _blame(self.entry, f"reading {shown(path)}"):
                    yield from self._file(name, path, start, sample)
            done += sizes[name]
            self.status.done = done or self.status.done

    def _file(self, name: str, path: str, start: int, sample: Sample | None) -> Iterator[Row]:
        source, prefix = self.entry.value, f"{self.split}/{name}:"
        records: Iterator[Record] = Records(path, start, columns=source.columns)
        if source.read:
            records = source.read(path, start, **accepted(source.read, self.options))
        deciding = isinstance(records, Records)  # our reader asks before it parses
        if isinstance(records, Records):
            records.progress = self._progress
            records.wanted = (lambda index: sample.offer(f"{prefix}{index}")) if sample else None
        last, options = start - 1, accepted(source.parse, self.options)
        for record in records:
            if record.index <= last:
                raise ValueError(f"record {record.index} came after record {last}")
            last = record.index
            if self.status.unit == "rows":
                self.status.done += 1
            row_id = f"{prefix}{last}"
            if deciding or sample is None or sample.offer(row_id):
                yield (row_id, self.split, name, last, record.offset, *_text(record, source, options))

    def _progress(self, read: int) -> None:
        self.status.done += read


_ALIVE = (None, None, None, None)


def _text(record: Record, source: Source, options: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The text of a record and its verdict: outcome, stage, reason, value."""
    if record.error:
        reason, _, detail = record.error.partition(": ")
        if not reason.isidentifier():
            reason, detail = "broken_record", record.error
        return record.raw.decode("utf-8", "backslashreplace"), QUARANTINED, STAGE, reason, detail
    try:
        text: Any = source.parse(record.data, **options)
    except KunError:
        raise
    except Drop as drop:
        return "", DROPPED, STAGE, drop.reason, drop.value
    except KeyError as error:
        return "", QUARANTINED, STAGE, "missing_field", str(error)
    except Exception as error:  # a stranger's parse may raise anything, and one bad row never ends a run
        return "", QUARANTINED, STAGE, "parse_failed", f"{type(error).__name__}: {error}"[:500]
    if isinstance(text, str):
        return (text, *_ALIVE) if text.strip() else ("", DROPPED, STAGE, "no_text", "empty")
    if text is None:
        return "", DROPPED, STAGE, "no_text", "none"
    return "", QUARANTINED, STAGE, "text_not_string", f"{type(text).__name__}: {text}"[:500]


def _draw(reading: _Reading, sample: Sample, folder: Path, shard_rows: int) -> Iterator[Row]:
    """The sample, in the order of the input. Candidates wait on disk: there are a few times as many as are drawn."""
    place = _waiting_place(folder, reading.split)
    place.mkdir()
    candidates = ShardWriter(place, reading.split, "", shard_rows)
    for row in reading.rows(sample):
        candidates.add(row)
    for shard in candidates.finish():
        for values in load_rows(shard.path).to_pylist():
            if sample.holds(values["id"]):
                yield tuple(values.values())
    shutil.rmtree(place)


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
