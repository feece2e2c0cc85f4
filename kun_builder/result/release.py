"""What a dataset repository is to hold: a finished run, and those splits of earlier runs that it does not replace.

`.kun/manifest.json` in the repository says which files are ours, which run made each split, and what each release
changed. Publishing is a function of the run and of the release before it, so that publishing twice changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from kun_builder.drops import RESULT_COLUMNS, result_columns
from kun_builder.errors import PublishError
from kun_builder.result.card_facts import card_facts
from kun_builder.result.cards.cards import card
from kun_builder.result.cards.metadata import check_card
from kun_builder.result.file_facts import FileFacts, file_facts
from kun_builder.result.manifest import FORMAT, MANIFEST, recipe_of
from kun_builder.result.own_words import merge, with_words, words_of
from kun_builder.result.plots import pictures, to_png, to_svg
from kun_builder.result.stats import read_columns
from kun_builder.run.head import CONFIGS

if TYPE_CHECKING:
    import numpy.typing as npt

    from kun_builder.result.finished import FinishedRun

CARD = "README.md"
LOCK = "recipe.lock.yaml"

Digests = dict[str, "npt.NDArray[np.uint64]"]
"""Of each row of a split: `id` and `row`, 64-bit hashes of its id and of what the default configuration has of it;
sorted by id."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The release that a repository holds now, or nothing.

    read: content of a small file. digests: the rows of a published split. holds: whether a file is there.
    """

    manifest: Mapping[str, Any] | None = None
    read: Callable[[str], bytes] = lambda path: b""
    digests: Callable[[str], Digests] = lambda split: no_digests()
    holds: Callable[[str], bool] = lambda path: True


@dataclass(frozen=True)
class Release:
    """All of our files of a repository after publishing. `files`: those that we hold; the others stay as they are."""

    files: Mapping[str, Path | bytes]
    facts: Mapping[str, FileFacts]
    manifest: Mapping[str, Any]
    rows: Mapping[str, int]
    """Rows of every split."""
    changes: Mapping[str, Any]
    merged: frozenset[str] = frozenset()
    """Files that somebody else has changed in a place that is theirs, and whose change is in ours."""


def compose(run: FinishedRun, base: Base, repo: str) -> Release:
    """The release that puts `run` into a repository which holds `base`."""
    old = base.manifest or {}
    made = made_by(run, old)
    kept = {name: split for name, split in old.get("splits", {}).items() if name not in made}
    _check_format(run, kept)
    _check_columns(run, kept)
    splits = {**old.get("splits", {}), **{name: _split_entry(run, name, run.key) for name in made}}
    locks = {key: _lock_of(old, key, base) for key in {split["run"] for split in kept.values()} - {run.key}}
    runs = {key: {**old["runs"][key], "lock": path} for key, (path, _) in locks.items()} | {run.key: _run_entry(run)}
    releases = _releases(run, old, base, made)
    data = {path: run.folder.dataset / path for name in made for path in run.files_of(name)}
    files: dict[str, Path | bytes] = {**data, LOCK: run.lock}
    files |= {path: content for path, content in locks.values()}
    notes, merged = _own_words(run, old, base)
    title = _title(run, old, kept)
    files |= _dressing(repo, run, splits, runs, releases, notes["shown"], title)
    ours = {path: run.facts[path] if path in run.files else file_facts(content) for path, content in files.items()}
    facts_of = ours | _kept_files(old, kept, files)
    owners = {path: split for split, entry in splits.items() for path in entry["files"]}
    manifest = {
        "format": FORMAT,
        "title": title,
        "files": {p: {**asdict(f), "split": owners.get(p, "")} for p, f in sorted(facts_of.items())},
        "splits": splits,
        "runs": runs,
        "releases": releases,
        "notes": notes,
    }
    files[MANIFEST] = orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
    facts_of[MANIFEST] = file_facts(files[MANIFEST])
    rows = {name: entry["report"]["kept"] for name, entry in splits.items()}
    return Release(files, facts_of, manifest, rows, releases[-1], merged)


def _own_words(run: FinishedRun, old: Mapping[str, Any], base: Base) -> tuple[dict[str, str], frozenset[str]]:
    """The person's words for the card, and whether the published card differs from ours by nothing but them."""
    before: Mapping[str, Any] = old.get("notes", {})
    if CARD not in old.get("files", {}) or not base.holds(CARD):
        return {"recipe": run.notes, "shown": merge(run.notes, before, None)}, frozenset()
    card = base.read(CARD).decode("utf-8", "replace")
    published = words_of(card)
    notes = {"recipe": run.notes, "shown": merge(run.notes, before, published)}
    versions = with_words(card, str(before.get("shown", ""))) if published is not None else ()
    ours = old["files"][CARD]["sha256"]
    edited = any(file_facts(version.encode()).sha256 == ours for version in versions)
    return notes, frozenset({CARD} if edited else ())


def made_by(run: FinishedRun, old: Mapping[str, Any]) -> list[str]:
    """Splits that `run` puts into a release: one without rows does not replace a published one, which readers load."""
    return [name for name, split in run.report.splits.items() if split.kept or name not in old.get("splits", {})]


def _title(run: FinishedRun, old: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
    """The title of the dataset, which a run that brings only some of the splits does not change."""
    history = old.get("releases", [])
    return str(old.get("title") or history[-1]["name"]) if kept and history else run.report.name


def _check_format(run: FinishedRun, kept: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise PublishError for two formats in one dataset: `load_dataset` reads all files in the format of the first."""
    others = [name for name, entry in kept.items() if Path(entry["files"][0]).suffix[1:] != run.report.format]
    if others:
        raise PublishError(
            f"this run is in {run.report.format}, the published {', '.join(others)} is not: one dataset, one format",
            hint="build with the `format:` of the published dataset, or publish into another repository",
        )


def columns_of(split: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns of the default configuration that a split of a manifest has."""
    return result_columns(split["configs"]["default"]["features"])


def _check_columns(run: FinishedRun, kept: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise PublishError for texts beside pairs: a configuration has the same columns in every split."""
    others = [name for name, entry in kept.items() if columns_of(entry) != run.columns]
    if others:
        raise PublishError(
            f"this run is of {' and '.join(run.columns)}, the published {', '.join(others)} is not: one dataset, one"
            " kind of row",
            hint="publish into another repository",
        )


def present(run: FinishedRun, repo: str) -> dict[str, bytes]:
    """Card, pictures and lock file of a run by itself, by their path in the dataset's folder `repo`."""
    splits = {name: _split_entry(run, name, "run") for name in run.report.splits}
    return {LOCK: run.lock, **_dressing(repo, run, splits, {"run": _run_entry(run)}, [], run.notes)}


def _dressing(
    repo: str,
    run: FinishedRun,
    splits: Mapping[str, Mapping[str, Any]],
    runs: Mapping[str, Mapping[str, Any]],
    releases: Sequence[Mapping[str, Any]],
    words: str,
    title: str = "",
) -> dict[str, bytes]:
    """The card and its pictures, by their path in the repository."""
    facts = replace(card_facts(repo, run, splits, runs, releases, words), title=title or run.report.name)
    charts = pictures(facts.splits)
    readme = card(facts := replace(facts, pictures=tuple(charts)))
    check_card(readme, facts)
    return {"README.md": readme.encode(), **{f"plots/{name}.png": to_png(to_svg(c)) for name, c in charts.items()}}


# --- rows of two releases ----------------------------------------------------------------------------------------


def no_digests() -> Digests:
    """The digests of a split without rows."""
    return {"id": np.empty(0, np.uint64), "row": np.empty(0, np.uint64)}


def digest_rows(rows: Iterable[tuple[str, ...]]) -> Digests:
    """Digests of rows: id and texts of each."""
    ids, contents = bytearray(), bytearray()
    for row_id, *texts in rows:
        ids += hashlib.blake2b(row_id.encode(), digest_size=8).digest()
        contents += hashlib.blake2b("\0".join(map(str, texts)).encode(), digest_size=8).digest()
    found = {"id": np.frombuffer(ids, np.uint64), "row": np.frombuffer(contents, np.uint64)}
    order = np.argsort(found["id"])
    return {name: values[order] for name, values in found.items()}


def rows_of(
    files: Iterable[Any], columns: Sequence[str] = RESULT_COLUMNS, *, jsonl: bool = False
) -> Iterator[tuple[str, ...]]:
    """Id and `columns` of each row of Parquet files (paths or open ones), or of open JSONL files."""
    names = ("id", *columns)
    if jsonl:
        yield from (itemgetter(*names)(orjson.loads(line)) for file in files for line in file)
        return
    for table in read_columns(list(files), names):
        yield from zip(*(table[name].to_pylist() for name in names), strict=True)


def compare_rows(old: Digests, new: Digests) -> dict[str, int]:
    """How many rows there are now, and how many were added, removed and rewritten; a row is known by its id."""
    both, at_old, at_new = np.intersect1d(old["id"], new["id"], return_indices=True)
    return {
        "rows": len(new["id"]),
        "added": len(new["id"]) - len(both),
        "removed": len(old["id"]) - len(both),
        "changed": int(np.count_nonzero(old["row"][at_old] != new["row"][at_new])),
    }


def _releases(run: FinishedRun, old: Mapping[str, Any], base: Base, made: Sequence[str]) -> list[Mapping[str, Any]]:
    """The list of releases with this run at its end. A run that is the last one published is there already."""
    history = list(old.get("releases", []))
    if history and history[-1]["run"] == run.key:
        return history
    before = [old["splits"][name]["run"] for name in made if name in old.get("splits", {})]
    recipe = recipe_changes(old["runs"][before[0]], _run_entry(run)) if before else []
    published = {name: base.digests(name) if name in old.get("splits", {}) else no_digests() for name in made}
    changed = {name: compare_rows(published[name], digest_rows(rows_of(run.kept[name], run.columns))) for name in made}
    facts = {"run": run.key, "name": run.report.name, "created": run.report.created}
    return [*history, {**facts, "splits": changed, "recipe": recipe}]


def recipe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two runs' steps and models, one line each; a long text is only named."""
    before, after = dict(_leaves(recipe_of(old))), dict(_leaves(recipe_of(new)))
    names = [*before, *(name for name in after if name not in before)]
    return [_difference(n, before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _difference(name: str, old: Any, new: Any) -> str:
    if any(isinstance(value, str) and "\n" in value for value in (old, new)):
        return f"{name}: another text"
    return f"{name}: {'absent' if old is None else old} → {'absent' if new is None else new}"


# --- entries of the manifest, and back -----------------------------------------------------------------------------


def _split_entry(run: FinishedRun, name: str, key: str) -> dict[str, Any]:
    return {
        "run": key,
        "report": asdict(run.report.splits[name]),
        "stats": run.stats[name].to_json(),
        "withheld": name in run.withheld,
        "license": run.license,
        "files": sorted(run.files_of(name)),
        "configs": {config: run.config_of(config, name) for config in CONFIGS},
    }


def _run_entry(run: FinishedRun) -> dict[str, Any]:
    report = run.report
    steps = [step.to_json() for step in report.steps]
    facts = {"name": report.name, "version": report.version, "created": report.created, "seed": report.seed}
    facts |= {"usage": [asdict(use) for use in report.usage], "seconds": report.seconds, "machine": report.machine}
    facts["hardware"] = str(run.publish.get("hardware") or "")
    return {**facts, "limit": report.limit, "lock": LOCK, "steps": steps, "models": dict(report.models), **run.judged}


def _lock_of(old: Mapping[str, Any], key: str, base: Base) -> tuple[str, bytes]:
    """Where the lock file of an earlier run goes, and its content."""
    return f".kun/{key}.lock.yaml", base.read(old["runs"][key]["lock"])


def _kept_files(old: Mapping[str, Any], kept: Mapping[str, Any], new: Mapping[str, object]) -> dict[str, FileFacts]:
    """Digests and sizes of the files of splits that stay in the repository as they are."""
    paths = [path for entry in kept.values() for path in entry["files"] if path not in new]
    return {path: FileFacts(**{key: old["files"][path][key] for key in ("sha256", "git", "size")}) for path in paths}
