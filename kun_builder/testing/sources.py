"""`check_source`: a source read by the engine's own reader, whole, in parts, damaged and dirty."""

from __future__ import annotations

import shutil
import tempfile
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kun_builder.errors import KunError, SourceError
from kun_builder.readers import Records
from kun_builder.recipe.option_values import check_options
from kun_builder.recipe.options import Option, accepted
from kun_builder.recipe.parts import SplitSpec
from kun_builder.recipe.registry import Entry, Plugin
from kun_builder.run.ingest import ReadSettings, ingest
from kun_builder.run.source_shards import load_rows
from kun_builder.status import Status
from kun_builder.testing.faults import declared, expect
from kun_builder.types import Record, Row, Source

_STARTS = 7  # places in a file from which it is read again
_CUTS = (0.1, 0.5, 0.9)  # where a damaged copy of a file ends


def check_source(source: Source, *paths: str | Path, memory: int = 64 << 20, **options: Any) -> list[Row]:
    """Read all of `paths`, as a recipe's `path:` has them, and check what the engine relies on; returns the rows.

    Checked: signature and options; a licence, but for a reader of any corpus (`corpus=False`); unique ids that stay the
    same however the rows are cut into shards;
    records counted from 0, and the same from any of them on; memory, which must stay under `memory` bytes for any
    length of file (give one that is longer); files that end too early, and records with missing, null or other fields:
    they must be quarantined and not become text; that `verbatim` names what `parse` returns. A row is a dict with `id`,
    `file`, `position`, `offset`, `text` and, if it was dropped or quarantined, `_outcome`, `_reason`, `_value`.
    Raises AssertionError.
    """
    known = declared("source", source)
    known_corpus = source.license or not source.corpus
    expect(known_corpus, f"source `{source.name}` has no `license`: what may be done with the corpus is on the card")
    spec = _spec(source, known, [str(path) for path in paths], options)
    rows = _read(source, spec, 1_000_000)
    expect(_read(source, spec, 2) == rows, f"source `{source.name}` gives other rows when it reads again")
    ids = [row["id"] for row in rows]
    expect(len(set(ids)) == len(ids), f"source `{source.name}` gives two rows one id")
    expect(
        any(row["_outcome"] is None for row in rows), f"source `{source.name}` finds no text in {', '.join(spec.path)}"
    )
    for file in _files(source, spec):
        if Path(file).is_file():
            _check_restart(source, spec.options, file)
            _check_memory(source, spec.options, file, memory)
            _check_damage(source, spec, file)
            _check_dirt(source, spec.options, file)
            _check_verbatim(source, spec.options, file)
    return rows


def _spec(source: Source, known: tuple[Option, ...], paths: list[str], options: Mapping[str, Any]) -> SplitSpec:
    complete, faults = check_options(known, options, Path())
    expect(not faults, f"source `{source.name}`: {'; '.join(fault.what for fault in faults)}")
    return SplitSpec(source.name, tuple(paths), complete)


def _read(source: Source, spec: SplitSpec, shard_rows: int) -> list[Row]:
    """The rows that a run would read."""
    entry = Entry(source, Plugin("test", "test"))
    with tempfile.TemporaryDirectory() as folder:
        try:
            split = {"test": (spec, entry)}
            read = ingest(split, ReadSettings(folder=Path(folder), shard_rows=shard_rows, status=Status()))
        except SourceError:
            raise
        except KunError as error:
            raise AssertionError(f"{error.message}: yield a Record with `error`, or raise SourceError") from error
        return [row for shard in read["test"].shards for row in load_rows(shard.path).to_pylist()]


def _files(source: Source, spec: SplitSpec) -> list[str]:
    """The inputs, as the engine finds them."""
    from kun_builder.readers import find_files

    if source.find is None:
        return [file for path in spec.path for file in find_files(path, source.files, "test")]
    return [file for path in spec.path for file in source.find(path, **accepted(source.find, spec.options))]


def _records(source: Source, options: Mapping[str, Any], file: str, start: int = 0) -> Iterator[Record]:
    if source.read is None:
        return iter(Records(file, start, columns=source.columns))
    return iter(source.read(file, start, **accepted(source.read, options)))


def _check_restart(source: Source, options: Mapping[str, Any], file: str) -> None:
    """Check that records are counted from 0 without a gap, and that reading from record n on gives the same ones."""
    whole = list(_records(source, options, file))
    numbers = [record.index for record in whole]
    expect(numbers == list(range(len(whole))), f"{file}: records must be counted 0, 1, 2, ..., not {numbers[:5]}...")
    offsets = [record.offset for record in whole if record.offset is not None]
    expect(offsets == sorted(offsets), f"{file}: offsets of records must not go back")
    for start in sorted({len(whole) * step // (_STARTS - 1) for step in range(_STARTS)}):
        expect(
            list(_records(source, options, file, start)) == whole[start:],
            f"{file}: read from record {start} on, it gives other records than read whole: `read` must skip {start}",
        )


def _check_memory(source: Source, options: Mapping[str, Any], file: str, memory: int) -> None:
    if source.read is None:
        return  # the engine's own reader
    tracemalloc.start()
    try:
        for _ in _records(source, options, file):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    expect(peak < memory, f"{file}: reading takes {peak >> 20} MB: `read` must stream, not load")


def _check_damage(source: Source, spec: SplitSpec, file: str) -> None:
    """Check that a file which ends too early raises nothing and that the records before its end are read."""
    whole = list(_records(source, spec.options, file))
    data = Path(file).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        damaged = shutil.copy(file, Path(folder, Path(file).name))
        for share in _CUTS:
            Path(damaged).write_bytes(data[: int(len(data) * share)])
            try:
                rows = _read(source, SplitSpec(spec.source, (str(damaged),), spec.options), 1_000_000)
            except SourceError:
                continue
            expect(len(rows) <= len(whole) + 1, f"{file}, cut at {share:.0%}, gives more records than the whole file")


def _check_dirt(source: Source, options: Mapping[str, Any], file: str) -> None:
    """Check that a record whose fields are missing, null or of another kind does not become text."""
    chosen = accepted(source.parse, options)
    record = next((r.data for r in _records(source, options, file) if not r.error and isinstance(r.data, dict)), None)
    if record is None:
        return
    expect(not _text(source, {}, chosen), f"source `{source.name}` makes text of a record without any field")
    for wrong in (None, 3.25, ["x"], {"x": "y"}):
        text = _text(source, dict.fromkeys(record, wrong), chosen)
        expect(
            str(wrong) not in text,
            f"source `{source.name}` takes {wrong!r} for text: {text[:80]!r}; raise ValueError for what is no string",
        )


def _check_verbatim(source: Source, options: Mapping[str, Any], file: str) -> None:
    """Check that `parse` returns the field that the engine takes in its place as it is."""
    field = source.verbatim(**accepted(source.verbatim, options)) if source.verbatim else ""
    for record in _records(source, options, file) if field else ():
        said = record.data.get(field) if isinstance(record.data, dict) else None
        if isinstance(said, str) and said.strip():
            expect(
                _text(source, record.data, accepted(source.parse, options)) == said,
                f"{file}, record {record.index}: `parse` returns another text than `{field}`, which `verbatim` names",
            )


def _text(source: Source, data: Any, options: Mapping[str, Any]) -> str:
    """The text of a record, empty where it would be dropped or quarantined."""
    try:
        text = source.parse(data, **options)
    except (Exception, SystemExit):  # as in a run: whatever is raised quarantines the record
        return ""
    return text if isinstance(text, str) else ""
