"""Reads a dataset folder as any user would, in a process that has never seen it: `python -m kun_builder.readback DIR`.

Prints JSON: rows and columns per configuration and split.
"""

from __future__ import annotations

import json
import sys


def main(folder: str) -> None:
    """Load every configuration of the dataset in `folder`."""
    from datasets import disable_progress_bars, get_dataset_config_names, load_dataset

    disable_progress_bars()
    found = {}
    for config in get_dataset_config_names(folder):
        loaded = load_dataset(folder, config)
        found[config] = {split: {"rows": len(rows), "columns": rows.column_names} for split, rows in loaded.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
