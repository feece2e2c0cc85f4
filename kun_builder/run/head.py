"""The YAML head of a dataset's README: which files are the data of which configuration and split.

A build writes it alone, so that `load_dataset` reads the folder at once; a card has it among all else that it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

CONFIGS = ("default", "provenance")
"""Configurations of the dataset: instruction and output, or text; and all that may be known of the same rows."""


def readable(rows: Mapping[str, int]) -> list[str]:
    """The splits that the metadata names: those with rows, since `datasets` loads no empty ones; else all."""
    return [split for split, count in rows.items() if count] or list(rows)


def dataset_head(splits: Sequence[str], file_format: str) -> str:
    """The whole head of a README that says nothing else: configurations and splits, each with its files."""
    paths = {config: {split: data_path(config, split, file_format) for split in splits} for config in CONFIGS}
    return f"---\n{yaml.safe_dump({'configs': configurations(paths)}, sort_keys=False)}---\n"


def configurations(paths: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """The entry `configs` of the head, explicit, so that no other file is taken for data.

    paths: for each configuration and split, the glob of its files in the dataset.
    """
    return [
        {"config_name": config, "data_files": [{"split": split, "path": path} for split, path in files.items()]}
        | ({"default": True} if config == CONFIGS[0] else {})
        for config, files in paths.items()
    ]


def data_path(config: str, split: str, file_format: str) -> str:
    """Where a split of a configuration is in the dataset, as a glob. JSONL lies in the places that COIG-Kun uses."""
    folder = {"default": "data/" if file_format == "parquet" else "", "provenance": "provenance/"}[config]
    return f"{folder}{split}-*.parquet" if file_format == "parquet" else f"{folder}{split}.jsonl"
