"""What a publishing process does in tests, with waits and pictures switched off: run by `servers.zygote`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import datasets.packaged_modules.parquet.parquet
import datasets.utils.metadata
from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars, http_backoff, http_stream_backoff

import kun_builder.result.release
from kun_builder.errors import KunError
from kun_builder.hub.push import Target, publish
from kun_builder.hub.retry import Retry
from kun_builder.result.finished import open_finished

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


def push_during_push(run: str, *, other: str, **target: Any) -> dict[str, Any]:
    """Publish `run`; between its upload and its commit, `other` is published into the same repository."""
    create_commit, first = HfApi.create_commit, [True]

    def interrupted(self: HfApi, *args: Any, **kwargs: Any) -> Any:
        if first.pop() if first else False:
            push(other, **target)
        return create_commit(self, *args, **kwargs)

    HfApi.create_commit = interrupted
    return push(run, **target)


def load(repo: str, config: str = "default", **options: Any) -> dict[str, list[dict[str, Any]]]:
    """All rows of a dataset as a reader gets them."""
    loaded = datasets.load_dataset(repo, config, **options)
    return {split: list(rows) for split, rows in loaded.items()}
