"""Whether `load_dataset` reads a finished run as its report says: asked of a process that has never seen the dataset.

`python -m kun_builder.result.loading DIR` is that process. It prints, as JSON, the rows and columns of each split in
each configuration of the dataset in DIR.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from kun_builder.errors import PublishError
from kun_builder.result.finished import BUILD_AGAIN, FinishedRun


def check_loads(run: FinishedRun) -> dict[str, dict[str, int]]:
    """Rows per configuration and split as `load_dataset` finds them in a fresh process; they equal the report's.

    Raises PublishError where they do not, where the columns are others, or where no row was kept.
    """
    expected = {name: split.kept for name, split in run.report.splits.items() if split.kept}
    if not expected:
        raise PublishError(
            "no row of the run was kept: there is nothing to publish", hint="see rejected/ for the reasons"
        )
    loaded = _load_in_a_fresh_process(run.folder.dataset)
    for config, splits in loaded.items():
        found = {name: split["rows"] for name, split in splits.items()}
        if found != expected:
            raise PublishError(f"load_dataset finds {found} rows in {config}, but the report says {expected}")
        columns = {tuple(split["columns"]) for split in splits.values()}
        if config == "default" and columns != {run.columns}:
            raise PublishError(f"the columns of the dataset are {columns}, not {run.columns}")
    return {config: {name: split["rows"] for name, split in splits.items()} for config, splits in loaded.items()}


def _load_in_a_fresh_process(dataset: Path) -> dict[str, dict[str, Any]]:
    """What `load` finds in a new process that is offline, has no token, and shares no cache with anybody."""
    env = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    with tempfile.TemporaryDirectory(prefix="kun-build-") as cache:
        env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": cache, "USE_TORCH": "0"}  # torch: seconds, for nothing here
        folder = _without_brackets(dataset, Path(cache))
        command = [sys.executable, "-m", __name__, str(folder.resolve())]
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=cache, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise PublishError(f"load_dataset cannot read {dataset}: {last[0]}", hint=BUILD_AGAIN)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def _without_brackets(dataset: Path, near: Path) -> Path:
    """The folder, or links to its files elsewhere if its path has a bracket, which is a pattern to `load_dataset`."""
    if "[" not in str(dataset.resolve()):
        return dataset
    return Path(shutil.copytree(dataset, near / "dataset", copy_function=_link))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy(source, target)


# --- in the fresh process


def load(folder: str) -> dict[str, dict[str, Any]]:
    """Load every configuration of the dataset in `folder`: the rows and columns of each of its splits."""
    from datasets import disable_progress_bars, get_dataset_config_names, load_dataset

    disable_progress_bars()
    found = {}
    for config in get_dataset_config_names(folder):
        loaded = load_dataset(folder, config)
        found[config] = {split: {"rows": len(rows), "columns": rows.column_names} for split, rows in loaded.items()}
    return found


def print_and_end(found: Any) -> NoReturn:
    """Print the value as JSON and end this process at once.

    Arrow's threads may still read ahead for a stream that was left, and abort a process that ends in the usual way:
    https://github.com/huggingface/datasets/issues/7566
    """
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    print_and_end(load(sys.argv[1]))
