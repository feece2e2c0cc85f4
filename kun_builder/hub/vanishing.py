"""Finds the splits of a repository that readers can load now, and could not after a commit.

They could not if the card that the commit brings does not name them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

_HEAD = re.compile(rb"\A---\r?\n(.*?)\r?\n---\r?(\n|\Z)", re.DOTALL)
_SPLIT = re.compile(r"(?:data|provenance)/(\w+(?:\.\w+)*)-[\w-]+\.parquet|(?:provenance/)?(\w+(?:\.\w+)*)\.jsonl")
_DATA = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".arrow")


def vanishing(readme: bytes, tree: Iterable[str], ours: Iterable[str], rows: Mapping[str, int]) -> list[str]:
    """What a reader can load now and could not after the commit, as names of splits or paths of data files.

    They are somebody else's, or of an earlier run; readers find them by the repository's present card, `readme`, or by
    the names of its files. `rows` has the splits that stay.
    """
    configs = list(_configs(readme))
    if configs:
        named = [split if config == "default" else f"{config}/{split}" for config, split in configs]
        stay = {f"{config}{split}" for split in rows for config in ("", "provenance/")}
        lost = [name for name in dict.fromkeys(named) if name not in stay]
        twice = {f"provenance/{name}" for name in lost}
        return [name for name in lost if name not in twice]
    files = [path for path in tree if path.endswith(_DATA) and path not in set(ours) and not path.startswith(".")]
    found = [_split_of(path) for path in files]
    return [name for name in dict.fromkeys(found) if name not in rows]


def _split_of(path: str) -> str:
    match = _SPLIT.fullmatch(path)
    return next(filter(None, match.groups())) if match else path


def _configs(readme: bytes) -> Iterator[tuple[str, str]]:
    """Configuration and split of every entry of a card's `configs`, however it is written."""
    head = _HEAD.match(readme)
    try:
        data = yaml.safe_load(head[1]) if head else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return
    for config in _list(data.get("configs") if isinstance(data, dict) else None):
        files = config.get("data_files") if isinstance(config, dict) else None
        name = str(config.get("config_name", "default")) if isinstance(config, dict) else ""
        if isinstance(files, dict):
            yield from ((name, str(split)) for split in files)
        elif isinstance(files, str):
            yield name, "train"
        for entry in _list(files):
            yield name, str(entry.get("split", "train")) if isinstance(entry, dict) else "train"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
