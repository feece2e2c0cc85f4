"""Building a published dataset again from the recipes that travel with it, and comparing row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from kun_builder.errors import PublishError, SourceError
from kun_builder.hub.finished import open_run
from kun_builder.hub.release import compare_rows, digest_rows, rows_of
from kun_builder.hub.repo import Head, Repository
from kun_builder.recipe.file import Dumper
from kun_builder.report import RunReport

Build = Callable[[Path, Path, int | None], RunReport]
"""Builds a recipe: `build(recipe file, run folder, limit)`."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One split, published and built again. Rows are known by their ids."""

    split: str
    published: int
    rebuilt: int
    same: int
    different: int
    missing: int
    """Published, but not built again."""
    extra: int


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came out of building a dataset again. `drift`: versions that are not those of then."""

    repo: str
    commit: str
    splits: tuple[Comparison, ...]
    drift: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether every row is the published one."""
        return all(split.same == split.published == split.rebuilt for split in self.splits)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "identical": self.identical}


def reproduce(repo: Repository, revision: str, folder: Path, paths: Mapping[str, str], build: Build) -> Reproduction:
    """Build every split of `repo` at `revision` again, in `folder`, by `build`.

    paths: inputs of splits whose files are elsewhere on this machine. Raises PublishError if the dataset is not one of
    kun-builder's.
    """
    head = repo.head(revision)
    if head.manifest is None:
        raise PublishError(f"{repo.name} was not published by kun-builder", hint="there is no .kun/manifest.json in it")
    splits, drift = [], []
    for key, facts in head.manifest["runs"].items():
        wanted = [name for name, split in head.manifest["splits"].items() if split["run"] == key]
        document = yaml.safe_load(repo.read(head.commit, facts["lock"]))
        recipe = write_recipe(document, folder / key / "recipe.yaml", wanted, paths)
        try:
            report = build(recipe, folder / key, (document.get("lock") or {}).get("limit"))
        except SourceError as error:
            raise SourceError(error.message, hint="say where the input is here, with --path SPLIT=PATH") from error
        splits += _compare(repo, head, folder / key, wanted)
        drift += _drift(facts, report)
    return Reproduction(repo=repo.name, commit=head.commit, splits=tuple(splits), drift=tuple(drift))


def write_recipe(document: Mapping[str, Any], target: Path, splits: Sequence[str], paths: Mapping[str, str]) -> Path:
    """The recipe of a lock file with only these splits, and their inputs as seen from here."""
    recipe = {name: value for name, value in document.items() if name not in ("lock", "publish")}
    missing = [name for name in splits if name not in document["splits"]]
    if missing:
        raise PublishError(f"the lock file says nothing of {', '.join(missing)}")
    dirs = [path for path in (recipe.get("plugins") or {}).get("dirs", ()) if Path(path).is_dir()]
    recipe["plugins"] = {**(recipe.get("plugins") or {}), "dirs": dirs}  # others are another machine's
    recipe["splits"] = {name: _located(document["splits"][name], paths.get(name)) for name in splits}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.dump(recipe, Dumper=Dumper, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return target


def _located(split: Mapping[str, Any], path: str | None) -> dict[str, Any]:
    return {**split, "path": [path]} if path else dict(split)


def _compare(repo: Repository, head: Head, folder: Path, splits: Sequence[str]) -> list[Comparison]:
    rebuilt = open_run(folder).kept
    base = repo.base(head)
    found = []
    for name in splits:
        old = base.digests(name)
        change = compare_rows(old, digest_rows(rows_of(rebuilt[name])))
        both = change["rows"] - change["added"]
        found.append(
            Comparison(
                split=name,
                published=len(old["id"]),
                rebuilt=change["rows"],
                same=both - change["changed"],
                different=change["changed"],
                missing=change["removed"],
                extra=change["added"],
            )
        )
    return found


def _drift(then: Mapping[str, Any], now: RunReport) -> list[str]:
    """Versions of steps and models that are not the published ones."""
    steps = {step["label"]: _version(step) for step in now.steps}
    lines = [
        f"{step['label']}: {_version(step)} → {steps.get(step['label'], 'absent')}"
        for step in then["steps"]
        if steps.get(step["label"]) != _version(step)
    ]
    for name, model in then["models"].items():
        here = now.models.get(name, {})
        if (model["id"], model["revision"]) != (here.get("id"), here.get("revision")):
            lines.append(f"model {name}: {model['id']} {model['revision']} → {here.get('id')} {here.get('revision')}")
    if then["version"] != now.version:
        lines.append(f"kun-builder: {then['version']} → {now.version}")
    return lines


def _version(step: Mapping[str, Any]) -> str:
    return f"{step['package']} {step['package_version']}, stage version {step['version']}"
