"""A finished run as it may be published: complete, counted, read back, its licences acknowledged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from kun_builder.drops import TEXT_COLUMNS
from kun_builder.errors import PublishError
from kun_builder.recipe.corpus import Declared
from kun_builder.report import RunReport, SplitReport, read_report
from kun_builder.result.clusters import cluster_sizes
from kun_builder.result.file_facts import FileFacts, file_facts
from kun_builder.result.forms import forms_of
from kun_builder.result.stats import SplitStats, owners, read_columns, split_stats
from kun_builder.result.verdicts import read_evaluation, still_true, summary
from kun_builder.run.folder import RunFolder
from kun_builder.run.head import CONFIGS, data_path
from kun_builder.run.redact import refuse_copies, refuse_text, stays_here, without_text
from kun_builder.run.verdicts import FOLDER, verdicts_in

BUILD_AGAIN = (
    "delete its report.json and run kun-build again: the result is written from the shards, and nothing asked anew"
)


@dataclass(frozen=True)
class FinishedRun:
    """A run whose files are complete."""

    folder: RunFolder
    report: RunReport
    lock: bytes
    license: str

    @cached_property
    def withheld(self) -> frozenset[str]:
        """Splits whose raw text stays here: their corpus is not redistributable, or its licence is not declared."""
        return frozenset(name for name, split in self.report.splits.items() if stays_here(split))

    @property
    def acknowledged(self) -> bool:
        """Whether the user has said to know the licences of withheld splits."""
        return self.publish.get("license_acknowledged") is True

    @property
    def notes(self) -> str:
        """The person's own words for the card."""
        return str(self.publish.get("notes") or "").strip()

    @cached_property
    def publish(self) -> Mapping[str, Any]:
        """What the recipe says of publishing."""
        return publish_settings(self.lock)

    @cached_property
    def files(self) -> dict[str, Path]:
        """Data files by their path in the repository."""
        names = [path for split in self.report.splits for path in self.files_of(split)]
        return {name: self.folder.dataset / name for name in sorted(names)}

    @cached_property
    def facts(self) -> dict[str, FileFacts]:
        """Digests and size of each data file, by its path in the repository: every file is read once for them."""
        return {path: file_facts(file) for path, file in self.files.items()}

    @cached_property
    def kept(self) -> dict[str, list[Path]]:
        """Files with all that is known of each split's rows; they stay here."""
        return {name: self.folder.kept_files(name) for name in self.report.splits}

    @cached_property
    def rejected(self) -> dict[str, list[Path]]:
        """Files of each split's rejected rows (`RunFolder.rejected_files`)."""
        return {name: self.folder.rejected_files(name) for name in self.report.splits}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns of the default configuration."""
        return self.folder.columns

    @cached_property
    def stats(self) -> dict[str, SplitStats]:
        """Figures of each split's rows."""
        measured, forms = owners(self.report.steps), forms_of(self.report.steps)
        dropped = [path for paths in self.rejected.values() for path in paths]
        sizes = cluster_sizes(read_columns(dropped, ("_outcome", "_value")))
        return {
            name: split_stats(files, self.rejected[name], measured, forms, sizes) for name, files in self.kept.items()
        }

    @cached_property
    def judged(self) -> dict[str, Any]:
        """What people (`review`) and a model (`evaluation`) said of the rows as they are now; None where nobody did."""
        verdicts = verdicts_in(self.folder.path / FOLDER)
        true = still_true(verdicts, self.kept.values(), self.rejected.values()) if verdicts else []
        return {
            "review": summary(true) if true else None,
            "evaluation": read_evaluation(self.folder.path, self.report.signature),
        }

    @cached_property
    def key(self) -> str:
        """Digest of the run's signature and of its data files: the name of the run in a release."""
        content = [(path, facts.sha256) for path, facts in self.facts.items()]
        return hashlib.sha256(json.dumps([self.report.signature, content]).encode()).hexdigest()[:16]

    def files_of(self, split: str) -> list[str]:
        """Paths in the repository of one split's files."""
        paths = [path for config in CONFIGS for path in self.found(config, split)]
        return [path.relative_to(self.folder.dataset).as_posix() for path in paths]

    def config_of(self, config: str, split: str) -> dict[str, Any]:
        """What the card's metadata says of a split in a configuration: pattern, columns, bytes."""
        from datasets import Features

        files = self.found(config, split)
        download = sum(file.stat().st_size for file in files)
        return {
            "path": data_path(config, split, self.report.format),
            "features": Features.from_arrow_schema(self._schema(config, split)).to_dict(),
            "bytes": download if self.report.format == "jsonl" else sum(_memory(pq.read_metadata(f)) for f in files),
            "download": download,
        }

    def found(self, config: str, split: str) -> list[Path]:
        """Files of a split in a configuration of the dataset. Raises PublishError if there are none."""
        pattern = data_path(config, split, self.report.format)
        if not (files := sorted(self.folder.dataset.glob(pattern))):
            raise PublishError(f"{self.folder.dataset / pattern} is missing", hint=BUILD_AGAIN)
        return files

    def _schema(self, config: str, split: str) -> pa.Schema:
        schema = pq.read_schema(self.kept[split][0])
        if config == "default":
            return pa.schema([schema.field(name) for name in self.columns])
        return without_text(schema.empty_table()).schema if split in self.withheld else schema


def open_run(path: Path, *, read_all: bool = True) -> FinishedRun:
    """The run in `path` as it is. Raises PublishError or RunError if it is not complete, or if a file of the result is
    not as the run wrote it, for which all of them are read, unless `read_all` is False."""
    folder = RunFolder(path)
    report = read_report(folder.report_path)
    if report.status != "complete":
        raise PublishError(f"{path} is {report.status}, not complete", hint="run kun-build again to finish it")
    report.check()
    try:
        lock = (path / "recipe.lock.yaml").read_bytes()
    except FileNotFoundError as error:
        raise PublishError(f"{path} has no recipe.lock.yaml", hint=BUILD_AGAIN) from error
    run = FinishedRun(folder, report, lock, _license(report, publish_settings(lock)))
    for split, facts in report.splits.items():
        if facts.kept and not run.kept[split]:
            raise PublishError(f"{folder.kept} has no file of `{split}`", hint=BUILD_AGAIN)
        _count(split, run.kept[split], facts.kept)
    if read_all and (wrong := folder.changed(report)):
        raise PublishError(f"{wrong} is not as the run wrote it: it is damaged, or was changed", hint=BUILD_AGAIN)
    return run


def open_finished(path: Path) -> FinishedRun:
    """The run in `path` as it may be published. Raises PublishError for what is missing or not allowed."""
    run = open_run(path)
    check_licences(run.report.splits, publish_settings(run.lock), texts=run.columns == TEXT_COLUMNS)
    for split, facts in run.report.splits.items():
        for config in CONFIGS:
            _count(split, run.found(config, split), facts.kept)
    for split in sorted(run.withheld):
        refuse_copies(run.kept[split])
        refuse_text(run.kept[split], _published(run.found("provenance", split)))
    return run


def publish_settings(lock: bytes) -> Mapping[str, Any]:
    """The part `publish:` of a lock file: how the recipe wants the dataset published. Raises PublishError if the file
    is damaged."""
    try:
        content = yaml.safe_load(lock)
    except (yaml.YAMLError, ValueError) as error:
        raise PublishError(f"recipe.lock.yaml is damaged: {error}", hint=BUILD_AGAIN) from error
    settings = content.get("publish") if isinstance(content, dict) else None
    return settings if isinstance(settings, dict) else {}


def check_licences(
    corpora: Mapping[str, Declared | SplitReport], publish: Mapping[str, Any], *, texts: bool = False
) -> None:
    """Raise PublishError unless the user has acknowledged the licences of corpora whose text stays here.

    texts: the dataset is the text itself, which no acknowledgement lets go.
    """
    names = sorted(name for name, corpus in corpora.items() if stays_here(corpus))
    said = ", ".join(f"{name} ({_licence_of(corpora[name]) or 'no licence declared'})" for name in names)
    if names and texts:
        raise PublishError(
            "the dataset is the text of these sources, and their licence is not declared or does not allow to pass"
            f" it on: {said}",
            hint="if it may be passed on, let the split say `license: ...` and `redistributable: true`, and run"
            " kun-build again; else the dataset stays here",
        )
    if names and publish.get("license_acknowledged") is not True:
        raise PublishError(
            f"the licence of these sources is not declared or does not allow to pass their text on: {said}",
            hint="read the licences; if publishing what was derived from them is allowed, say so in the recipe with"
            " `publish: {license_acknowledged: true}`, and run kun-build again. The raw text stays here until a split"
            " says `license: ...` and `redistributable: true`",
        )


def _licence_of(corpus: Declared | SplitReport) -> str:
    return corpus.license if isinstance(corpus, SplitReport) else corpus["license"]


def _license(report: RunReport, publish: Mapping[str, Any]) -> str:
    """The recipe's licence, else that of the sources if they share one; empty if nobody has declared any."""
    if chosen := publish.get("license"):
        return str(chosen)
    declared = {split.license for split in report.splits.values()}
    return declared.pop() if len(declared) == 1 else "other"


def _count(split: str, files: Sequence[Path], expected: int) -> None:
    parquet = [file for file in files if file.suffix == ".parquet"]
    try:
        rows = sum(pq.read_metadata(file).num_rows for file in parquet)
    except (pa.ArrowException, OSError) as error:
        raise PublishError(f"{parquet[0].parent} of split `{split}` is damaged: {error}", hint=BUILD_AGAIN) from error
    if parquet and rows != expected:
        where = parquet[0].parent
        raise PublishError(f"{where} has {rows} rows of `{split}`, but the report says {expected}", hint=BUILD_AGAIN)


def _published(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Rows of Parquet or JSONL files."""
    for path in files:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=10_000):
                    yield from batch.to_pylist()
        else:
            with path.open("rb") as lines:
                yield from map(orjson.loads, lines)


def _memory(metadata: pq.FileMetaData) -> int:
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
