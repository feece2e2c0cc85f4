"""Near-duplicates: speed on one core, copies found and rows dropped wrongly, memory and time at size.

    python benchmarks/duplicates.py CORPUS_FOLDER [--rows 1000000]

CORPUS_FOLDER holds JSONL files with `text`. Documents of 600 characters are put together of sentences drawn from it.
One in ten is a copy of an earlier document with up to 3 % of its characters replaced, one in twenty a copy with other
spacing and punctuation. Speed and verdicts are of 100,000 documents in this process; memory and time are of whole runs
of `kun-build` with `stages: [dedup]`, over a quarter of the rows and over all. Memory is summed up over all processes,
shared pages shared out (PSS), and of it what is private: pages of files that are mapped can be taken back at any time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from datasets import Dataset
from kun_clean import dedup, shingles, similarity

from kun_builder.run.workspace import Resources, workspace

SIZE, SHARD, ONE_CORE = 600, 2000, 100_000
KUN_BUILD = Path(sys.executable).with_name("kun-build")
Planted = tuple[int, int]
"""An earlier row and its copy."""


def sentences(folder: Path) -> list[str]:
    """All sentences of the corpus that are neither crumbs nor pages."""
    rows = (json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8"))
    found = (part for row in rows for part in re.findall(r"[^。！？\n]+[。！？\n]?", row["text"]))
    return [part for part in found if 8 <= len(part) <= 80]


def documents(pool: list[str], count: int, planted: list[Planted]) -> Iterator[str]:
    """`count` documents; copies are noted in `planted`. The first ones are the same whatever the count."""
    source = random.Random(0)
    alphabet = sorted({character for part in pool[:3000] for character in part if character.isalnum()})
    recent: list[str] = []
    for row in range(count):
        chance = source.random()
        if chance < 0.15 and recent:
            back = source.randrange(1, len(recent) + 1)
            planted.append((row - back, row))
            text = changed(recent[-back], alphabet, source) if chance < 0.1 else respaced(recent[-back])
        else:
            text = ""
            while len(text) < SIZE:
                text += source.choice(pool)
            text = text[:SIZE]
        recent.append(text)
        if len(recent) > 50_000:
            del recent[:25_000]
        yield text


def respaced(text: str) -> str:
    """The same words with other spacing and punctuation."""
    return text.replace("，", ", ").replace("。", " .\n")


def changed(text: str, alphabet: list[str], source: random.Random) -> str:
    """`text` with up to 3 % of its characters replaced."""
    characters = list(text)
    for at in source.sample(range(len(text)), round(len(text) * source.uniform(0.002, 0.03))):
        characters[at] = source.choice(alphabet)
    return "".join(characters)


# --- one core, and whether it is right --------------------------------------------------------------------------------


def one_core(pool: list[str]) -> None:
    """Speed of both halves of the stage in this process, and its verdicts against exact similarity."""
    planted: list[Planted] = []
    texts = list(documents(pool, ONE_CORE, planted))
    table = pa.table({"id": [str(row) for row in range(len(texts))], "split": ["web"] * len(texts), "text": texts})
    dedup.measure(table.slice(0, 20))  # tables of characters are made once
    start = time.process_time()
    shards = [dedup.measure(table.slice(at, SHARD)) for at in range(0, len(table), SHARD)]
    sketched = time.process_time()
    with tempfile.TemporaryDirectory() as folder, workspace(Path(folder) / "work", 1, Resources()) as work:
        drops = dedup.run(Dataset(pa.concat_tables(shards)), work)
    end = time.process_time()
    print(f"| sketches, documents per CPU second | {len(texts) / (sketched - start):,.0f} |")
    print(f"| search and exact comparison, documents per CPU second | {len(texts) / (end - sketched):,.0f} |")
    print(f"| both | {len(texts) / (end - start):,.0f} |")
    judge(texts, {row: int(str(kept)) for row, _, kept in drops}, planted)


def judge(texts: list[str], dropped: dict[int, int], planted: list[Planted]) -> None:
    """Copies at the threshold or above whose original stays, and how many of them were found; and what was dropped for
    less. A check of the exact similarity itself by Python's sets."""
    ones, others = np.array(planted).T
    exact = similarity.jaccard(texts, ones, others, 5)
    wanted = [copy for (one, copy), value in zip(planted, exact, strict=True) if value >= 0.8 and one not in dropped]
    found = sum(copy in dropped for copy in wanted)
    print(
        f"| copies with a similarity of 0.8 or more found | {found:,} of {len(wanted):,} ({found / len(wanted):.2%}) |"
    )
    pairs = np.array([(kept, row) for row, kept in dropped.items()])
    values = similarity.jaccard(texts, pairs[:, 0], pairs[:, 1], 5)
    wrong = int(np.sum(values < 0.8))
    print(f"| rows dropped for one that is less similar | {wrong} of {len(pairs):,} |")
    for one, row in random.Random(1).sample(pairs.tolist(), 200):
        first, second = (sets_of(texts[one]), sets_of(texts[row]))
        assert len(first & second) / len(first | second) >= 0.8, (one, row)


def sets_of(text: str) -> set[tuple[int, ...]]:
    """The shingles of a text as Python has them."""
    values = shingles.units([text])[0].tolist()
    return {tuple(values[at : at + 5]) for at in range(max(1, len(values) - 4))}


# --- at size ----------------------------------------------------------------------------------------------------------


def at_size(folder: Path, pool: list[str], rows: int, memory: str) -> dict[str, float]:
    """A whole run over so many rows; its phases in seconds, and peaks of memory in bytes."""
    planted: list[Planted] = []
    with (folder / "web.jsonl").open("w", encoding="utf-8") as file:
        for text in documents(pool, rows, planted):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: size\nmemory: {memory}\nsplits: {{web: {{source: generic, path: web.jsonl}}}}\nstages: [dedup]\n",
        "utf-8",
    )
    began = time.monotonic()
    with subprocess.Popen([KUN_BUILD, recipe, "--output", folder / "run"], stdout=subprocess.DEVNULL) as process:
        peaks = watched(process, folder / "run")
    assert process.returncode == 0
    report = json.loads((folder / "run/report.json").read_text("utf-8"))
    spent = {"rows": rows, "seconds": time.monotonic() - began, **peaks, **report["phases"]}
    kept = sum(split["kept"] for split in report["splits"].values())
    return {**spent, "dropped": rows - kept, "planted": len(planted)}


def watched(process: subprocess.Popen[bytes], run: Path) -> dict[str, float]:
    """Peaks of memory of a process and its children until it ends: of the whole run, and of the search for copies."""
    peaks = {"peak": 0.0, "peak_search": 0.0, "peak_search_private": 0.0, "disk": 0.0}
    while process.poll() is None:
        shared, private = memory_of(process.pid)
        work = list(run.glob("shards/dedup/*.work"))
        peaks["peak"] = max(peaks["peak"], shared)
        if work:
            peaks["peak_search"] = max(peaks["peak_search"], shared)
            peaks["peak_search_private"] = max(peaks["peak_search_private"], private)
            peaks["disk"] = max(peaks["disk"], size_of(work[0]))
        time.sleep(0.2)
    return peaks


def size_of(folder: Path) -> int:
    """Bytes of the files of a folder, some of which may go away meanwhile."""
    found = 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


def memory_of(pid: int) -> tuple[int, int]:
    """PSS, and anonymous memory, of a process and all its children."""
    shared = private = 0
    try:
        for one in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            said = Path(f"/proc/{one.pid}/smaps_rollup").read_text("ascii")
            shared += int(re.search(r"^Pss: +(\d+)", said, re.M)[1])
            private += int(re.search(r"^Pss_Anon: +(\d+)", said, re.M)[1])
    except (psutil.NoSuchProcess, OSError, TypeError):  # it has ended meanwhile
        return 0, 0
    return shared << 10, private << 10


def main() -> None:
    """Print all figures as rows of a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory", default="1GB", help="`memory` of the recipe")
    given = parser.parse_args()
    pool = sentences(given.corpus)
    print("| figure | measured |\n|---|---|")
    one_core(pool)
    runs = []
    for rows in (given.rows // 4, given.rows) if given.rows else ():
        with tempfile.TemporaryDirectory() as folder:
            runs.append(at_size(Path(folder), pool, rows, given.memory))
        one = runs[-1]
        print(
            f"| {rows:,} documents: whole run, of it sketches and search, in seconds | {one['seconds']:.0f}, ", end=""
        )
        print(f"{one['dedup-measure']:.0f} and {one['dedup']:.0f} ({os.cpu_count()} cores) |")
        print("| their peak memory: whole run; search; of it private | ", end="")
        print(", ".join(f"{one[name] / 1e9:.2f} GB" for name in ("peak", "peak_search", "peak_search_private")), "|")
        print(f"| their files of buckets, at most | {one['disk'] / 1e6:.0f} MB |")
        print(f"| their rows dropped, copies planted | {one['dropped']:,}, {one['planted']:,} |", flush=True)
    if runs:
        few, many = (one["dedup-measure"] + one["dedup"] for one in runs)
        print(f"| time for four times the documents | {many / few:.2f} times |")


if __name__ == "__main__":
    main()
