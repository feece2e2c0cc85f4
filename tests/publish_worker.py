"""What a publishing process does in tests, with waits and pictures switched off: run by `servers.zygote`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import datasets.packaged_modules.parquet.parquet
import datasets.utils.metadata
import yaml
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import disable_progress_bars, http_backoff, http_stream_backoff

import kun_builder.result.release
from kun_builder.errors import KunError
from kun_builder.hub.published_recipe import UserSettings
from kun_builder.hub.push import Target, check_access, publish
from kun_builder.hub.repository import Repository
from kun_builder.hub.reproduce import reproduce
from kun_builder.hub.retry import Retry
from kun_builder.recipe.plugins import load_plugins
from kun_builder.result.finished import FinishedRun, open_finished

disable_progress_bars()
datasets.disable_progress_bars()
for function in (http_backoff, getattr(http_stream_backoff, "__wrapped__", http_stream_backoff)):
    function.__kwdefaults__["base_wait_time"] = 0.01  # the client's own waits


kun_builder.result.release.pictures = lambda splits: {"funnel": {"rows": [r.kept for r, _ in splits.values()]}}
kun_builder.result.release.to_svg = json.dumps
kun_builder.result.release.to_png = str.encode


def push(run: str, *, tries: int = 6, dry_run: bool = False, **target: Any) -> dict[str, Any]:
    """Publish a run folder; what it says, and what came out or went wrong."""
    said: list[str] = []
    waits: list[float] = []
    retry = Retry(tries=tries, wait=0.001, say=said.append, sleep=waits.append)
    try:
        published = publish(open_finished(Path(run)), Target(**target), retry=retry, dry_run=dry_run)
    except KunError as error:
        return {"error": error.message, "hint": error.hint, "said": said, "waits": waits}
    return {**asdict(published), "said": said, "waits": waits}


def check(*, offline: bool = False, **target: Any) -> dict[str, Any]:
    """Ask what is asked of a Hub before any work."""
    constants.HF_HUB_OFFLINE = offline
    try:
        check_access(Target(**target), retry=Retry(tries=1))
    except KunError as error:
        return {"error": error.message, "hint": error.hint}
    return {}


def read(repo: str, path: str, *, token: str) -> dict[str, Any]:
    """Read a file of a repository; what it holds, how many files there are, and what was said on the way."""
    said: list[str] = []
    repository = Repository(repo, token, Retry(tries=2, wait=0.001, say=said.append, sleep=lambda seconds: None))
    head = repository.head("main")
    return {"content": repository.read(head, path).decode(), "files": sorted(head.tree), "said": said}


def push_during_push(run: str, *, other: str, **target: Any) -> dict[str, Any]:
    """Publish `run`; between its upload and its commit, `other` is published into the same repository."""
    create_commit, first = HfApi.create_commit, [True]

    def interrupted(self: HfApi, *args: Any, **kwargs: Any) -> Any:
        if first.pop() if first else False:
            push(other, **target)
        return create_commit(self, *args, **kwargs)

    HfApi.create_commit = interrupted
    return push(run, **target)


def rebuild(
    repo: str, *, token: str, folder: str, run: str, paths: dict[str, list[str]], revision: str = "main"
) -> dict[str, Any]:
    """Reproduce a repository in `folder`, by a build that does nothing and gives the finished run in `run`.

    Returns what came out or went wrong, and what was to be built: the file, the recipe in it, the limit.
    """
    built: list[Any] = []

    def build(path: Path, recipe: Mapping[str, Any], limit: int | None) -> FinishedRun:
        written = yaml.safe_load(path.read_text("utf-8"))
        assert (written, list(written)) == (recipe, list(recipe))  # also in the order in which people write a recipe
        built.append([str(path), recipe, limit])
        return open_finished(Path(run))

    try:
        repository = Repository(repo, token, Retry(tries=1))
        done = reproduce(repository, revision, Path(folder), UserSettings(paths=paths), load_plugins(), build)
    except KunError as error:
        return {"error": error.message, "hint": error.hint, "built": built}
    return {**done.to_json(), "built": built}


def load(repo: str, config: str = "default", **options: Any) -> dict[str, list[dict[str, Any]]]:
    """All rows of a dataset as a reader gets them."""
    loaded = datasets.load_dataset(repo, config, **options)
    return {split: list(rows) for split, rows in loaded.items()}
