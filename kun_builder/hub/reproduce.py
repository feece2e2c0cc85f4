"""Building a published dataset again from the recipes that travel with it, and comparing row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from kun_builder.errors import PublishError
from kun_builder.files import replace_file
from kun_builder.hub.published_recipe import UserSettings, read_lock, take_recipe
from kun_builder.hub.repository import Head, Repository
from kun_builder.recipe.file import Dumper
from kun_builder.recipe.registry import Registry
from kun_builder.report import RunReport, StepFacts
from kun_builder.result.finished import FinishedRun
from kun_builder.result.release import compare_rows, digest_rows, rows_of

Build = Callable[[Path, Mapping[str, Any], int | None], FinishedRun]
"""Builds a recipe in the folder of its file: called with that file, what stands in it, and the limit of rows."""


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
    """What came of building a dataset again.

    `splits` compares each split with the published one. `drift` has a line for each version of a step, of a model or of
    kun-builder that is another one now.
    """

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


def reproduce(
    repo: Repository, revision: str, folder: Path, user: UserSettings, registry: Registry, build: Build
) -> Reproduction:
    """Build every split of `repo` at `revision` again, in `folder`, by `build`.

    user: what only the user can say, above all where the input of each split is on this machine. Raises PublishError
    if the dataset is not one of kun-builder's, or needs what the user has not given.
    """
    head = repo.head(revision)
    if head.manifest is None:
        raise PublishError(f"{repo.name} was not published by kun-builder", hint="there is no .kun/manifest.json in it")
    recipes, splits, drift = {}, [], []
    for key in head.manifest["runs"]:
        document = read_lock(repo.read(head, head.manifest["runs"][key]["lock"]))
        recipes[key] = document, take_recipe(document, _splits_of(head.manifest, key), user, registry)
    for key, (document, recipe) in recipes.items():  # all of it is known to be complete before anything is built
        path = folder / key / "recipe.yaml"
        replace_file(path, yaml.dump(recipe, Dumper=Dumper, sort_keys=False, allow_unicode=True).encode())
        run = build(path, recipe, _limit(document))
        splits += _compare(repo, head, run, _splits_of(head.manifest, key))
        drift += _drift(head.manifest["runs"][key], run.report)
    return Reproduction(repo=repo.name, commit=head.commit, splits=tuple(splits), drift=tuple(drift))


def _splits_of(manifest: Mapping[str, Any], run: str) -> list[str]:
    return [name for name, split in manifest["splits"].items() if split["run"] == run]


def _limit(document: Mapping[str, Any]) -> int | None:
    facts = document.get("lock")
    limit = facts.get("limit") if isinstance(facts, dict) else None
    return limit if isinstance(limit, int) and limit > 0 else None


def _compare(repo: Repository, head: Head, run: FinishedRun, splits: Sequence[str]) -> list[Comparison]:
    base = repo.base(head)
    found = []
    for name in splits:
        old = base.digests(name)
        change = compare_rows(old, digest_rows(rows_of(run.kept[name], run.columns)))
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
    steps = {step.label: step.made_by for step in now.steps}
    lines = [
        f"{step.label}: {step.made_by} → {steps.get(step.label, 'absent')}"
        for step in map(StepFacts.from_json, then["steps"])
        if steps.get(step.label) != step.made_by
    ]
    for name, model in then["models"].items():
        here = now.models.get(name, {})
        if (model["id"], model["revision"]) != (here.get("id"), here.get("revision")):
            lines.append(f"model {name}: {model['id']} {model['revision']} → {here.get('id')} {here.get('revision')}")
    if then["version"] != now.version:
        lines.append(f"kun-builder: {then['version']} → {now.version}")
    return lines
