"""A finished run as it may be published: complete, counted, read back, and without text that may not be passed on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from kun_builder.errors import PublishError
from kun_builder.folder import RunFolder, dataset_metadata
from kun_builder.hub.withhold import withhold
from kun_builder.plan import RESULT_COLUMNS
from kun_builder.report import RunReport, read_report
from kun_builder.stats import SplitStats, split_stats

STAGE = ".publish"
"""Folder in the run folder with exactly the data files that go out."""


@dataclass(frozen=True)
class FinishedRun:
    """A run whose files are complete. `stage` is the folder of its data: what is published, or the dataset itself."""

    folder: RunFolder
    report: RunReport
    lock: bytes
    license: str
    stage: Path
    withheld: frozenset[str] = frozenset()
    """Splits whose raw text stays here: their corpus is not redistributable, or its licence is not declared."""

    @cached_property
    def files(self) -> dict[str, Path]:
        """Data files by their path in the repository."""
        paths = sorted(path for path in self.stage.rglob("*") if path.suffix in (".parquet", ".jsonl"))
        return {path.relative_to(self.stage).as_posix(): path for path in paths}

    @cached_property
    def provenance(self) -> dict[str, list[Path]]:
        """Provenance files of each split."""
        return {name: self._matching(f"provenance/{name}-*.parquet") for name in self.report.splits}

    @cached_property
    def stats(self) -> dict[str, SplitStats]:
        """Figures of each split's rows."""
        rejected = self.folder.rejected
        return {
            name: split_stats(files, [path for path in [rejected / f"{name}.parquet"] if path.exists()])
            for name, files in self.provenance.items()
        }

    @cached_property
    def key(self) -> str:
        """Digest of what the run was and of what came out of it."""
        content = [(path, _sha256(file)) for path, file in self.files.items()]
        return hashlib.sha256(json.dumps([self.report.signature, content]).encode()).hexdigest()[:16]

    def files_of(self, split: str) -> list[str]:
        """Paths in the repository of one split's files."""
        paths = self._matching(self._pattern("default", split)) + self.provenance[split]
        return [path.relative_to(self.stage).as_posix() for path in paths]

    def config_of(self, config: str, split: str) -> dict[str, Any]:
        """What the card's metadata says of a split in a configuration: pattern, columns, bytes."""
        from datasets import Features, Value

        pattern = self._pattern(config, split)
        files = self._matching(pattern)
        if pattern.endswith(".jsonl"):
            features, size = Features({name: Value("string") for name in RESULT_COLUMNS}), files[0].stat().st_size
        else:
            features = Features.from_arrow_schema(pq.read_schema(files[0]))
            size = sum(_memory(pq.read_metadata(file)) for file in files)
        download = sum(file.stat().st_size for file in files)
        return {"path": pattern, "features": features.to_dict(), "bytes": size, "download": download}

    def _pattern(self, config: str, split: str) -> str:
        if config == "provenance":
            return f"provenance/{split}-*.parquet"
        return f"{split}.jsonl" if self.report.format == "jsonl" else f"data/{split}-*.parquet"

    def _matching(self, pattern: str) -> list[Path]:
        return sorted(self.stage.glob(pattern))


def open_run(path: Path) -> FinishedRun:
    """The run in `path` as it is. Raises PublishError or RunError if it is not complete."""
    folder = RunFolder(path)
    report = read_report(folder.report_path)
    if report.status != "complete":
        raise PublishError(f"{path} is {report.status}, not complete", hint="run kun-build again to finish it")
    report.check()
    try:
        lock = (path / "recipe.lock.yaml").read_bytes()
    except FileNotFoundError as error:
        raise PublishError(f"{path} has no recipe.lock.yaml", hint="build the run again with --fresh") from error
    return FinishedRun(folder, report, lock, _license(report, publish_settings(lock)), folder.dataset)


def open_finished(path: Path) -> FinishedRun:
    """The run in `path` as it may be published, staged. Raises PublishError for what is missing or not allowed."""
    run = open_run(path)
    withheld = _withheld(run.report, publish_settings(run.lock))
    run = replace(run, stage=path / STAGE, withheld=withheld)
    _stage(run)
    return run


def check_loads(run: FinishedRun) -> dict[str, dict[str, int]]:
    """Rows per configuration and split as `load_dataset` finds them in a fresh process; they equal the report's."""
    with tempfile.TemporaryDirectory(prefix="kun-build-") as cache:
        loaded = json.loads(_fresh_process(run.stage, cache))
    expected = {name: split.kept for name, split in run.report.splits.items()}
    for config, splits in loaded.items():
        found = {name: split["rows"] for name, split in splits.items()}
        if found != expected:
            raise PublishError(f"load_dataset finds {found} rows in {config}, but the report says {expected}")
        columns = {tuple(split["columns"]) for split in splits.values()}
        if config == "default" and columns != {RESULT_COLUMNS}:
            raise PublishError(f"the columns of the dataset are {columns}, not {RESULT_COLUMNS}")
    return {config: {name: split["rows"] for name, split in splits.items()} for config, splits in loaded.items()}


def _fresh_process(folder: Path, cache: str) -> str:
    """Run `kun_builder.hub.readback` offline, without our token."""
    env = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": cache, "USE_TORCH": "0"}  # torch: seconds, for nothing here
    command = [sys.executable, "-m", "kun_builder.hub.readback", str(folder.resolve())]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=cache, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise PublishError(f"load_dataset cannot read {folder}: {last[0]}", hint="build the run again with --fresh")
    return done.stdout


def publish_settings(lock: bytes) -> Mapping[str, Any]:
    """The part `publish:` of a lock file: how the recipe wants the dataset published."""
    settings = (yaml.safe_load(lock) or {}).get("publish") or {}
    return settings if isinstance(settings, dict) else {}


def _withheld(report: RunReport, publish: Mapping[str, Any]) -> frozenset[str]:
    """Splits whose text stays here. Raises PublishError unless the user has acknowledged their licences."""
    names = frozenset(name for name, s in report.splits.items() if not (s.license and s.redistributable))
    if names and publish.get("license_acknowledged") is not True:
        said = ", ".join(f"{name} ({report.splits[name].license or 'no licence declared'})" for name in sorted(names))
        raise PublishError(
            f"the licence of these sources is not declared or does not allow to pass their text on: {said}",
            hint="read the licences; if publishing what was derived from them is allowed, say so in the recipe with"
            " `publish: {license_acknowledged: true}`, and build again. The raw text stays here in any case",
        )
    return names


def _license(report: RunReport, publish: Mapping[str, Any]) -> str:
    """The recipe's licence, else that of the sources if they share one."""
    if chosen := publish.get("license"):
        return str(chosen)
    declared = {split.license for split in report.splits.values()}
    return (declared.pop() or "other") if len(declared) == 1 else "other"


def _stage(run: FinishedRun) -> None:
    """Link the data files into a fresh stage; of withheld splits, write provenance without the text."""
    shutil.rmtree(run.stage, ignore_errors=True)
    for split, facts in run.report.splits.items():
        names = [f"{split}.jsonl"] if run.report.format == "jsonl" else [f"data/{split}-*.parquet"]
        for pattern in (*names, f"provenance/{split}-*.parquet"):
            files = sorted(run.folder.dataset.glob(pattern))
            if not files:
                raise PublishError(
                    f"{run.folder.dataset / pattern} is missing", hint="build the run again with --fresh"
                )
            for file in files:
                target = run.stage / file.relative_to(run.folder.dataset)
                target.parent.mkdir(parents=True, exist_ok=True)
                if split in run.withheld and pattern.startswith("provenance"):
                    withhold(file, target)
                else:
                    os.link(file, target)
            _count(split, pattern, files, facts.kept)
    (run.stage / "README.md").write_text(dataset_metadata(list(run.report.splits), run.report.format), encoding="utf-8")


def _count(split: str, pattern: str, files: Sequence[Path], expected: int) -> None:
    try:
        rows = sum(pq.read_metadata(file).num_rows for file in files if file.suffix == ".parquet")
    except pa.ArrowInvalid as error:
        raise PublishError(
            f"{pattern} of split `{split}` is damaged: {error}", hint="build it again with --fresh"
        ) from error
    if rows != expected and files[0].suffix == ".parquet":
        raise PublishError(
            f"{pattern} has {rows} rows, but the report says {expected}", hint="build again with --fresh"
        )


def _memory(metadata: pq.FileMetaData) -> int:
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
