"""Ray with 2 workers against the local executor with 2 processes, in turn: the table of docs/clusters.md.

    python benchmarks/clusters.py [--rows 20000] [--rounds 3]

Speed is that of the segments themselves: starting a cluster takes its own time, which is told apart. Batches are
`normalize` and `language` on documents of 600 characters, in shards of 1,000. Rows are three dependent requests each
(`plugins/three_requests.py`) to a simulator that answers at 20 times the pace of one server; the local executor runs
them in one process. The overhead per shard is what the same batches take longer in shards of 50 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from servers.llm_simulator import simulator

from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.run.executors import batches
from kun_builder.run.runner import build
from kun_builder.status import Status

PLUGINS = Path(__file__).parent / "plugins"
EXECUTORS = ("local", "ray")


def corpus(path: Path, rows: int) -> None:
    """Documents of 600 characters, no two alike."""
    luck = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            text = "".join(chr(0x4E00 + luck.randrange(3000)) for _ in range(590))
            file.write(json.dumps({"text": f"第{number}篇。{text}"}, ensure_ascii=False) + "\n")


def run(folder: Path, executor: str, rows: int, shard: int, stages: str, url: str = "") -> tuple[float, float]:
    """Seconds of the segments, and of all the rest: reading, writing, starting."""
    folder.mkdir()
    corpus(folder / "in.jsonl", rows)
    models = f"models: {{chat: {{endpoints: ['{url}'], model: simulated/model, revision: one}}}}\n" if url else ""
    (folder / "recipe.yaml").write_text(
        f"{models}executor: {executor}\nray: {{actors: 2, cpus: 2}}\nshard_rows: {shard}\nstages: [{stages}]\n"
        f"plugins: {{dirs: [{PLUGINS}]}}\njournal: journal\nsplits: {{x: {{source: generic, path: in.jsonl}}}}\n",
        encoding="utf-8",
    )
    registry, began = load_plugins([PLUGINS]), time.monotonic()
    report = build(load_recipe(folder / "recipe.yaml", registry, output=folder / "run"), registry, status=Status())
    report.check()
    segments = sum(seconds for name, seconds in report.phases.items() if name != "read")  # at work at the same time
    return segments, time.monotonic() - began - segments


def compared(
    what: str, folder: Path, rows: int, shard: int, stages: str, *, rounds: int, asks: bool = False
) -> dict[str, float]:
    """Both executors in turn, their medians printed as a line of the table."""
    took: dict[str, list[float]] = {name: [] for name in EXECUTORS}
    rest: dict[str, list[float]] = {name: [] for name in EXECUTORS}
    for turn in range(rounds):
        for name in EXECUTORS:
            with simulator(slots=256, speed=20) as server:
                place = folder / f"{stages[:4]}-{shard}-{name}-{turn}"
                segment, other = run(place, name, rows, shard, stages, server.url if asks else "")
            took[name].append(segment)
            rest[name].append(other)
    median = {name: statistics.median(seconds) for name, seconds in took.items()}
    start = statistics.median(rest["ray"]) - statistics.median(rest["local"])
    print(
        f"| {what} | {rows / median['local']:,.0f} rows/s | {rows / median['ray']:,.0f} rows/s | "
        f"{median['local'] / median['ray']:.2f} | {start:.1f} s |",
        flush=True,
    )
    return median


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rows, rounds = given.rows, given.rounds
    batches.SMALL = 0
    print("| | local | Ray | ratio | Ray's start |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["KUN_CACHE"] = str(folder / "cache")
        large = compared("batches, shards of 1,000", folder, rows, 1000, "normalize, language", rounds=rounds)
        small = compared("batches, shards of 50", folder, rows, 50, "normalize, language", rounds=rounds)
        compared(
            "rows, three requests each", folder, rows // 10, 100, "ask, judge, rewrite, pair", rounds=rounds, asks=True
        )
    shards = rows / 50 - rows / 1000
    for executor in EXECUTORS:
        each = 1000 * (small[executor] - large[executor]) / shards
        print(f"overhead per shard, {executor}: {each:.1f} ms of two workers' time")


if __name__ == "__main__":
    main()
