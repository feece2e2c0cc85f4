"""The run folder: who holds it, and how its results are written.

runs/<name>/recipe.lock.yaml   what really ran
runs/<name>/shards/            finished shards, per segment
runs/<name>/kept/              every row of the result, with its raw text and all that stages said of it
runs/<name>/rejected/          every row that is not in the result, with stage, reason, value
runs/<name>/report.json
runs/<name>/dataset/           the publishable folder, which `load_dataset` reads: nothing that may not be passed on
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from kun_builder.drops import RESULT_COLUMNS, VERDICT, result_columns
from kun_builder.errors import RunError, shown
from kun_builder.files import file_digest, make_private, replace_file
from kun_builder.report import RunReport, read_report
from kun_builder.run.head import CONFIGS, data_path, dataset_head, readable
from kun_builder.run.holding import hold
from kun_builder.run.ownership import Ownership
from kun_builder.run.redact import without_text
from kun_builder.run.shards import Shard
from kun_builder.run.worker import conform

ROWS_PER_FILE = 500_000
"""Most rows of one Parquet file of the result: some hundred megabytes, which suits the Hub's viewer and streaming."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def report_path(self) -> Path:
        """Where the report is, once the run has finished."""
        return self.path / "report.json"

    @property
    def owned(self) -> Ownership:
        """What in the folder runs have made and may replace."""
        return Ownership(self.path)

    @property
    def dataset(self) -> Path:
        """The publishable folder."""
        return self.path / "dataset"

    @property
    def kept(self) -> Path:
        """Rows of the result with all their columns, in Parquet whatever the format of the dataset is."""
        return self.path / "kept"

    def kept_files(self, split: str) -> list[Path]:
        """Files of one split's rows of the result."""
        return sorted(self.kept.glob(f"{split}-*.parquet"))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the dataset's default configuration, as the rows of the result have them."""
        first = next(iter(sorted(self.kept.glob("*.parquet"))), None)
        return result_columns(pq.read_schema(first).names) if first else RESULT_COLUMNS

    @property
    def shards(self) -> Path:
        """Finished shards of all segments."""
        return self.path / "shards"

    @property
    def rejected(self) -> Path:
        """Rows that are not in the result."""
        return self.path / "rejected"

    def rejected_files(self, split: str) -> list[Path]:
        """The file of one split's rejected rows, as a list that is empty where no run has written one."""
        return sorted(self.rejected.glob(f"{split}.parquet"))

    def digests(self, splits: Iterable[str], file_format: str) -> dict[str, str]:
        """Digest of each file of rows, by its path in the folder. The lock file has none: its `publish:` may change."""
        files: list[Path] = []
        for split in splits:
            files += [*self.kept_files(split), *self.rejected_files(split)]
            for config in CONFIGS:
                files += self.dataset.glob(data_path(config, split, file_format))
        return {file.relative_to(self.path).as_posix(): file_digest(file) for file in sorted(files)}

    def changed(self, report: RunReport) -> Path | None:
        """A file of the result that is not as the run wrote it, or None. Reads all of them."""
        for name, digest in report.files.items():
            try:
                same = file_digest(self.path / name) == digest
            except OSError:  # gone, or its disk fails
                same = False
            if not same:
                return self.path / name
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; the lock ends with the process, however it ends. Raises RunError if another one has it."""
        path = str(self.path.absolute())
        fault = "`::`, which names chained file systems to `datasets`," if "::" in path else ""
        if os.fsencode(path).decode("utf-8", "replace") != path:
            fault = "a byte that is not UTF-8"
        if fault:
            hint = "choose another folder with --output"
            raise RunError(f"{fault} is in the path of the run folder, {shown(self.path)}", hint=hint)
        self.path.mkdir(parents=True, exist_ok=True)
        with hold(self.path):
            yield

    def finished(self, signature: str) -> RunReport | None:
        """The report, if the folder holds the finished result of exactly this run."""
        try:
            report = read_report(self.report_path)
        except RunError:
            return None
        return report if report.signature == signature and self._has_result(report) else None

    def _has_result(self, report: RunReport) -> bool:
        """Whether the result is there as the report counts it, and as it was written."""
        try:
            for file in self.dataset.glob("*/*.parquet"):
                pq.read_metadata(file)
            for name, split in report.splits.items():
                rows = sum(pq.read_metadata(file).num_rows for file in self.kept_files(name))
                published = data_path("default", name, report.format)
                if rows != split.kept or (rows and not any(self.dataset.glob(published))):
                    return False
        except (pa.ArrowInvalid, OSError):  # damaged, or gone just now
            return False
        whole = self.dataset.is_dir() and self.kept.is_dir() and (self.path / "recipe.lock.yaml").exists()
        return whole and self.changed(report) is None

    def begin(self, *, fresh: bool) -> float:
        """Begin a run. Returns since when answers in the journal count for it, as Unix time; with 0 all of them do.

        A fresh run deletes the shards of all segments, and remembers when it began until it ends: if it is stopped, the
        next run goes on with it and finds the answers that it had got. Raises RunError where the folder holds what a
        run would replace and none has made.
        """
        self.owned.check()
        self.owned.claim("shards", ".fresh", ".spent.json")
        make_private(self.shards)
        began = self.path / ".fresh"
        if fresh:
            self.sweep(())
            replace_file(began, str(time.time()).encode())
        return float(began.read_text()) if began.exists() else 0.0

    def end(self) -> None:
        """Note that the run is finished. The next one may use every answer again."""
        for done in (self.path / ".fresh", *self.path.glob("verdicts/*/waiting.json")):
            done.unlink(missing_ok=True)

    def sweep(self, used: Iterable[Path]) -> None:
        """Delete shards that no segment of the finished run uses: leftovers of other options."""
        keep = {path for shard in used for path in (shard, shard.with_suffix(".json"))}
        for path in self.shards.glob("*/*"):
            if path.suffix in (".arrow", ".json") and path.parent.name != "read" and path not in keep:
                path.unlink()


class DatasetWriter:
    """Writes the result into fresh folders beside the old ones, and swaps them at the end."""

    def __init__(self, folder: RunFolder, file_format: str) -> None:
        self._folder = folder
        self._format = file_format
        self._rows: dict[str, int] = {}
        self._swaps = {path.parent / f".{path.name}.new": path for path in (folder.kept, folder.dataset)}
        self._kept, self._new = self._swaps
        folder.owned.claim(
            *(new.name for new in self._swaps), "rejected", "report.json", "report.html", "recipe.lock.yaml"
        )
        for new in self._swaps:
            shutil.rmtree(new, ignore_errors=True)
            make_private(new) if new == self._kept else new.mkdir(parents=True)

    def write_split(self, split: str, shards: Sequence[Shard], constants: Mapping[str, Any], *, withheld: bool) -> int:
        """Write the living rows of `shards` and return their number; `constants` are the same for each row.

        The constants go into the provenance; of a `withheld` corpus, it has no raw text. Rows keep the order of the
        input; the same rows give the same bytes.
        """
        rows = sum(shard.alive for shard in shards)
        kept = parquet_paths(self._kept, split, rows)
        with (
            provenance(kept, self._new, split, self._format, withheld=withheld) as publish,
            self._file(split, rows) as data,
            _RollingParquet(kept, private=withheld) as whole,
        ):
            for shard in shards:
                table = _with_constants(shard.table(), constants)
                whole.write(table)
                data.write(table.select(result_columns(table.column_names)))
                publish(table)
        self._rows[split] = data.rows
        return data.rows

    def _file(self, split: str, rows: int) -> _Jsonl | _RollingParquet:
        if self._format == "jsonl":
            return _Jsonl(self._new / data_path("default", split, "jsonl"))
        return _RollingParquet(parquet_paths(self._new / "data", split, rows))

    def finish(self) -> None:
        """Write the metadata that `load_dataset` needs, and put the new folders in the old ones' place."""
        (self._new / "README.md").write_text(dataset_head(readable(self._rows), self._format), encoding="utf-8")
        self._folder.owned.claim(*(place.name for place in self._swaps.values()))
        self._folder.owned.claim(*(f".{place.name}.old" for place in self._swaps.values()))
        self._folder.report_path.unlink(missing_ok=True)  # from here to the new report, the run is not finished
        for new, place in self._swaps.items():
            old = place.parent / f".{place.name}.old"
            shutil.rmtree(old, ignore_errors=True)
            if place.exists():
                place.rename(old)
            new.rename(place)
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def provenance(
    kept: Sequence[Path], dataset: Path, split: str, file_format: str, *, withheld: bool
) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that writes what may be published of a split's rows into the folder `dataset`: without raw text
    if it is `withheld`. It gets the same rows as the files `kept`, which are finished within the block.

    If nothing has to change, the files become links to those of `kept`. Both configurations have one format, since
    `load_dataset` takes the format of all from the first one.
    """
    (dataset / "provenance").mkdir(parents=True, exist_ok=True)
    paths = [dataset / "provenance" / path.name for path in kept]
    if file_format == "parquet" and not withheld:
        yield lambda table: None
        for path, target in zip(kept, paths, strict=True):
            _link(path, target)
        return
    jsonl = dataset / data_path("provenance", split, "jsonl")
    with _Jsonl(jsonl) if file_format == "jsonl" else _RollingParquet(paths) as file:
        yield lambda table: file.write(without_text(table) if withheld else table)


def _link(path: Path, target: Path) -> None:
    """Have the same file at another place, by a link, or as a copy if the file system knows no links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def parquet_paths(folder: Path, split: str, rows: int) -> list[Path]:
    """Paths of the Parquet files for this many rows of a split."""
    files = max(1, -(-rows // ROWS_PER_FILE))
    return [folder / f"{split}-{number:05d}-of-{files:05d}.parquet" for number in range(files)]


def write_rejected(folder: RunFolder, split: str, shards: Sequence[Shard], schema: pa.Schema) -> int:
    """Write the dead rows of `shards` (of all segments) into `rejected/<split>.parquet`; returns their number."""
    make_private(folder.rejected)
    with _RollingParquet([folder.rejected / f"{split}.parquet"], private=True) as file:
        for shard in shards:
            file.write(conform(shard.dead(), schema))
    return file.rows


def rejected_schema(result: pa.Schema) -> pa.Schema:
    """All columns that a row can have gathered before it died, and its verdict."""
    columns = [field for field in result if not field.name.startswith("_")]
    return pa.schema([*columns, *(pa.field(name, pa.string()) for name in VERDICT)])


def _with_constants(table: pa.Table, constants: Mapping[str, Any]) -> pa.Table:
    first = pa.array([0] * len(table), pa.int64())
    for name, value in constants.items():
        table = table.append_column(name, pa.array([value]).take(first))
    return table


class _Jsonl:
    """Writes one JSON object a line, in UTF-8, escaping only what JSON demands."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self._file = path.open("wb")
        self.rows = 0

    def __enter__(self) -> _Jsonl:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def write(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self.rows += len(table)


class _RollingParquet:
    """Writes rows into Parquet files of at most `ROWS_PER_FILE` rows; no rows make one empty file. Only the user may
    read `private` ones, wherever the folder is copied to; they stay on this machine and are not packed, as shards are
    not, nor made ready for the Hub: packing takes six times as long as writing."""

    def __init__(self, paths: Sequence[Path], *, private: bool = False) -> None:
        self._paths, self._private = paths, private
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def __enter__(self) -> _RollingParquet:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._writer:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        while True:
            room = ROWS_PER_FILE - self.rows % ROWS_PER_FILE
            if self._writer is None or (room == ROWS_PER_FILE and self.rows and len(table)):
                self._writer = self._open(table.schema)
            part = table.slice(0, room)
            if len(part):  # `datasets` cannot read a row group without rows
                self._writer.write_table(part, row_group_size=10_000)
            self.rows += len(part)
            table = table.slice(room)
            if not len(table):
                return

    def _open(self, schema: pa.Schema) -> pq.ParquetWriter:
        if self._writer:
            self._writer.close()
        path = self._paths[min(self.rows // ROWS_PER_FILE, len(self._paths) - 1)]
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._private:
            path.unlink(missing_ok=True)
            path.touch(mode=0o600)
            return pq.ParquetWriter(path, schema.remove_metadata(), compression="none")
        # Content-defined chunks: the Hub's storage finds what did not change between two versions of a file.
        return pq.ParquetWriter(path, schema.remove_metadata(), use_content_defined_chunking=True)
