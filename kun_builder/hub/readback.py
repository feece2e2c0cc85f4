"""Reads datasets as any user would, in a process that has never seen them.

    python -m kun_builder.hub.readback DIR
    python -m kun_builder.hub.readback ORG/NAME COMMIT SPLIT...     the token comes as HF_TOKEN

Prints JSON: of a folder, rows and columns per configuration and split; of a repository, the first row that streaming
gives of each split, null for an empty one.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from huggingface_hub import constants

from kun_builder.hub.repository import keep_token_home


def folder_facts(folder: str) -> dict[str, Any]:
    """Load every configuration of the dataset in `folder`."""
    from datasets import get_dataset_config_names, load_dataset

    found = {}
    for config in get_dataset_config_names(folder):
        loaded = load_dataset(folder, config)
        found[config] = {split: {"rows": len(rows), "columns": rows.column_names} for split, rows in loaded.items()}
    return found


def first_rows(repo: str, commit: str, splits: list[str]) -> dict[str, Any]:
    """Stream one row of each split of a repository at a commit."""
    from datasets import config, load_dataset

    keep_token_home(constants.ENDPOINT)
    config.STREAMING_READ_MAX_RETRIES = 1  # not 20, with 5 s between: the caller starts another reader in its own time
    return {
        split: next(iter(load_dataset(repo, split=split, streaming=True, revision=commit)), None) for split in splits
    }


def main(what: str, *where: str) -> None:
    """Print what is asked for, and end."""
    from datasets import disable_progress_bars

    disable_progress_bars()
    print(json.dumps(first_rows(what, where[0], list(where[1:])) if where else folder_facts(what)), flush=True)
    # Arrow's threads may still read ahead for a stream that was left, and abort a process that ends in the usual way:
    # https://github.com/huggingface/datasets/issues/7566
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
