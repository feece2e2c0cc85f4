"""Reading and cleaning at size: the times of whole `kun-build` runs, phase by phase, and the memory of all processes.

    python benchmarks/cleaning_at_size.py CORPUS_FOLDER [--rows 100000] [--more 250000 1000000] [--tokenizer NAME]

CORPUS_FOLDER holds JSONL files with `text`. Documents are put together of their sentences, about 600 characters each,
with 5 % exact copies, 10 % near copies (2 % of the characters changed) and 2 % that are short. In turn, on the same
file: `datasets`, a plain loop over orjson, and kun-build read, cut by length in characters and write, on one core;
then comes kun-build's default cleaning on all cores. All times are those of a whole process, start included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import yaml

SIZE = 600
BIN = Path(sys.executable).parent

LOOP = """
import sys, orjson
with open(sys.argv[1], "rb") as lines, open(sys.argv[2], "wb") as kept:
    for line in lines:
        if 16 <= len(orjson.loads(line)["text"]) <= 700:
            kept.write(line)
"""
DATASETS = """
import sys
from datasets import Dataset
rows = Dataset.from_json(sys.argv[1], cache_dir=sys.argv[2] + ".cache")
rows = rows.filter(lambda batch: [16 <= len(text) <= 700 for text in batch["text"]], batched=True)
rows.to_parquet(sys.argv[2])
"""


@dataclass
class Measured:
    """A process that has ended: seconds, CPU seconds and bytes of it and of all that it started, and its phases."""

    seconds: float
    cpu: float
    memory: int
    phases: dict[str, float] = field(default_factory=dict)


def sentences(folder: Path) -> list[str]:
    """Of all texts, each with its end."""
    texts = [
        json.loads(line)["text"] for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")
    ]
    return [found for text in texts for found in re.findall(r"[^。！？\n]{4,120}[。！？\n]", text)]


def documents(pool: list[str], count: int, path: Path) -> None:
    """Write `count` documents to `path`."""
    source, kept = random.Random(count), list[str]()
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            kind, text = source.random(), ""
            if kind < 0.15 and kept:
                characters = list(source.choice(kept))
                for at in source.sample(range(len(characters)), len(characters) // 50 if kind < 0.10 else 0):
                    characters[at] = source.choice(pool)[0]
                text = "".join(characters)
            else:
                goal = 12 if kind > 0.98 else source.randint(SIZE - 200, SIZE + 100)
                while len(text) < goal:
                    text += source.choice(pool)
                if len(kept) < 20_000 and kind <= 0.98:
                    kept.append(text)
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def measure(command: list[str], cores: int | None = None) -> Measured:
    """Run `command`, on so many cores if given."""
    began, before = time.perf_counter(), os.times()
    prefix = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))] if cores else []
    process = subprocess.Popen([*prefix, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = [0]
    threading.Thread(target=watch_memory, args=(process.pid, peak), daemon=True).start()
    told = process.communicate()[1]
    if process.returncode:
        raise SystemExit(told)
    seconds, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Measured(seconds, cpu, peak[0])


def watch_memory(pid: int, peak: list[int]) -> None:
    """Have the most bytes of a process and its children so far in `peak`, what they share counted once."""
    while True:
        try:
            first = psutil.Process(pid)
            family = [first, *first.children(recursive=True)]
            peak[0] = max(peak[0], sum(process.memory_full_info().pss for process in family))
        except psutil.Error:
            if not psutil.pid_exists(pid):
                return
        time.sleep(0.2)


def build(path: Path, stages: list[object], cores: int | None = None) -> Measured:
    """Run a recipe of these stages over the file."""
    with TemporaryDirectory(dir=path.parent) as folder:
        recipe = Path(folder, "recipe.yaml")
        splits = {"texts": {"source": "skypile", "path": str(path)}}
        recipe.write_text(yaml.safe_dump({"name": "bench", "splits": splits, "stages": stages}))
        found = measure([str(BIN / "kun-build"), str(recipe), "--output", f"{folder}/run"], cores)
        found.phases = json.loads(Path(folder, "run/report.json").read_text())["phases"]
    return found


def line(name: str, rows: int, found: Measured) -> None:
    """Print a row of the table."""
    speed = f"{rows / found.seconds:9,.0f} documents/s {found.seconds:7.1f} s {found.cpu:7.1f} CPU s"
    print(f"{name:44} {speed} {found.memory / 2**20:6,.0f} MB", flush=True)
    for phase, seconds in found.phases.items():
        print(f"    {phase:56} {seconds:7.1f} s")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--more", type=int, nargs="*", default=[])
    parser.add_argument("--tokenizer", default="characters", help="as `length` takes it")
    given = parser.parse_args()
    cleaning = ["normalize", "language", {"length": {"tokenizer": given.tokenizer}}, "perplexity", "dedup"]
    pool = sentences(given.corpus)
    with TemporaryDirectory() as folder:
        path = Path(folder, "documents.jsonl")
        documents(pool, given.rows, path)
        print(f"{given.rows:,} documents, {path.stat().st_size / 1e6:.0f} MB; {os.cpu_count()} cores")
        for name, code in (("a loop over orjson, one core", LOOP), ("datasets, one core", DATASETS)):
            line(name, given.rows, measure([sys.executable, "-c", code, str(path), f"{folder}/kept"], 1))
        characters = [{"length": {"tokenizer": "characters", "max_tokens": 700}}]
        line("kun-build, length in characters, one core", given.rows, build(path, characters, 1))
        times = {given.rows: build(path, cleaning)}
        line("kun-build, default cleaning", given.rows, times[given.rows])
        for rows in given.more:
            documents(pool, rows, path)
            times[rows] = build(path, cleaning)
            line(f"kun-build, default cleaning, {rows:,}", rows, times[rows])
        if len(given.more) > 1:
            first, last = given.more[0], given.more[-1]
            print(f"{last:,} take {times[last].seconds / times[first].seconds:.2f} times as long as {first:,}")


if __name__ == "__main__":
    main()
