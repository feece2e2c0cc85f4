"""540,000 rows in three splits: the dataset folder written, verified and pushed, beside a bare `to_parquet` and commit.

    python benchmarks/publishing.py [--rows 180000]

Rows are random Chinese characters, which compress like nothing in earnest does. The Hub is the tests' own, on
loopback: what is measured is our work and the disk, not a network. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

SPLITS = ("wudao", "wanjuan", "skypile")
SHARD, CHARACTERS = 20_000, 200
TOKEN = "hf_benchmark"  # of a server on this machine that lives as long as this process


def texts(rng: np.random.Generator, rows: int, length: int) -> list[str]:
    """Random texts of common Chinese characters."""
    block = rng.integers(0x4E00, 0x7000, rows * length, dtype=np.uint32).tobytes().decode("utf-32-le")
    return [block[at : at + length] for at in range(0, rows * length, length)]


def tables(split: str, rows: int) -> Iterator[pa.Table]:
    """The rows of a split as finished shards hold them."""
    rng = np.random.default_rng(len(split))
    for start in range(0, rows, SHARD):
        count = min(SHARD, rows - start)
        numbers = range(start, start + count)
        yield pa.table(
            {
                "id": [f"{split}/part-000.jsonl:{number}" for number in numbers],
                "split": [split] * count,
                "file": ["part-000.jsonl"] * count,
                "position": pa.array(numbers, pa.int64()),
                "text": texts(rng, count, CHARACTERS),
                "perplexity": rng.lognormal(6, 0.5, count),
                "instruction": texts(rng, count, 20),
                "score": rng.uniform(0.5, 1, count),
                "output": texts(rng, count, CHARACTERS),
                "_outcome": pa.nulls(count, pa.string()),
            }
        )


def make_shards(folder: Path, rows: int) -> None:
    """Write the shards of all splits."""
    for split in SPLITS:
        for number, table in enumerate(tables(split, rows)):
            path = folder / f"{split}-{number:05d}.arrow"
            path.parent.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)


def publish_ours(folder: Path) -> dict[str, Any]:
    """Write the run folder from shards, verify it and push it."""
    from kun_builder.hub.push import Target, publish
    from kun_builder.hub.retry import Retry
    from kun_builder.result.finished import open_finished
    from kun_builder.result.loading import check_loads

    clock = {"start": time.perf_counter()}
    write_run(folder)
    clock["write"] = time.perf_counter()
    run = open_finished(folder / "run")
    check_loads(run)
    clock["verify"] = time.perf_counter()
    done = publish(run, Target(repo="bench/ours", token=TOKEN), retry=Retry())
    clock["push"] = time.perf_counter()
    seconds = {after: round(clock[after] - clock[before], 1) for before, after in pairwise(clock)}
    return {"seconds": seconds, "rows": dict(done.rows), "verified": done.verified}


def write_run(folder: Path) -> None:
    """What the end of a build does: dataset, report and lock file."""
    from kun_builder.report import RunReport, SplitReport, StepCounts
    from kun_builder.run.folder import DatasetWriter, RunFolder
    from kun_builder.run.shards import Shard

    run = RunFolder(folder / "run")
    writer = DatasetWriter(run, "parquet")
    splits = {}
    for split in SPLITS:
        paths = sorted((folder / "shards").glob(f"{split}-*.arrow"))
        sizes = [pa.ipc.open_stream(pa.memory_map(str(path))).read_all().num_rows for path in paths]
        shards = [Shard(split, at, path, "", sizes[at]) for at, path in enumerate(paths)]
        rows = writer.write_split(split, shards, {}, withheld=False)
        step = StepCounts(label="read", stage="read", rows_in=rows, rows_out=rows)
        facts = {"source": split, "license": "cc0-1.0", "redistributable": True}
        splits[split] = SplitReport(**facts, read=rows, kept=rows, stages=(step,))
    writer.finish()
    (run.path / "recipe.lock.yaml").write_text("publish: {license: cc0-1.0}\n")
    facts = {"name": "bench", "version": "0", "status": "complete", "signature": "bench", "created": "2026-01-01"}
    more = {"seconds": 1.0, "seed": 0, "limit": None, "format": "parquet", "models": {}, "steps": ()}
    RunReport(**facts, **more, splits=splits).write(run.report_path)


def publish_bare(folder: Path) -> dict[str, Any]:
    """The same rows by `Dataset.to_parquet` and one `create_commit`, nothing checked."""
    from datasets import Dataset, concatenate_datasets
    from huggingface_hub import CommitOperationAdd, HfApi

    start = time.perf_counter()
    operations = []
    for split in SPLITS:
        parts = [Dataset.from_file(str(path)) for path in sorted((folder / "shards").glob(f"{split}-*.arrow"))]
        rows = concatenate_datasets(parts).remove_columns("_outcome")
        for config, part in (("data", rows.select_columns(["instruction", "output"])), ("provenance", rows)):
            path = folder / "bare" / config / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            part.to_parquet(path)
            operations.append(CommitOperationAdd(f"{config}/{split}.parquet", path))
    written = time.perf_counter()
    api = HfApi(token=TOKEN)
    api.create_repo("bench/bare", repo_type="dataset")
    api.create_commit("bench/bare", operations, commit_message="all", repo_type="dataset")
    return {"seconds": {"write": round(written - start, 1), "push": round(time.perf_counter() - written, 1)}}


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """Both ways, each in a process of its own; peak memory in megabytes, of the largest process."""
    from servers.hub import HubServer

    make_shards(folder / "shards", rows)
    results: dict[str, Any] = {"rows": rows * len(SPLITS)}
    with HubServer(folder / "hub", {TOKEN: {"bench"}}) as hub:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "hf")}
        env |= {"USE_TORCH": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        for way in ("ours", "bare"):
            command = [sys.executable, __file__, "--child", way, str(folder)]
            done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=folder, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-3000:])
            results[way] = json.loads(done.stdout.splitlines()[-1])
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=180_000, help="rows of each split")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        way, folder = given.child
        result = {"ours": publish_ours, "bare": publish_bare}[way](Path(folder))
        usage = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(json.dumps({**result, "peak_mb": round(max(usage) / 1024)}))
        return
    with tempfile.TemporaryDirectory(prefix="kun-bench-") as folder:
        print(json.dumps(measure(given.rows, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
