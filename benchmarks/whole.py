"""The full size of COIG-Kun: texts of three corpora, cleaned, labelled, scored and polished, against a simulator.

    python benchmarks/whole.py CORPUS_FOLDER [--rows 540000]

CORPUS_FOLDER holds JSONL files with `text`, of whose sentences the documents are put together
(`cleaning_at_size.py`), in splits that have the shares of the published ones. The run is `kun-build` with stages of
`preset: kun`; `score` lets every row pass, since the simulator (`tests/servers`), which serves at the pace of a fleet,
judges by chance. Memory is that of all processes of the run, looked at all the time; CPU is the client's while it asks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from cleaning_at_size import BIN, documents, sentences, watch_memory
from clients import Run, measure
from servers.llm_simulator import simulator

SHARES = {"wudao": 139_852, "wanjuan": 328_294, "skypile": 71_560}
FLEET = 10.0
ASKED = ({"label": {"outline": False}}, {"score": {"threshold": 0}}, {"polish": {"whole": False}})
CLEANED = ("normalize", {"length": {"tokenizer": "characters", "max_tokens": 700}}, "language", "perplexity", "dedup")


def recipe(folder: Path, pool: list[str], rows: int, endpoint: str) -> Path:
    """Write the corpora and a recipe for them."""
    splits = {}
    for name, share in SHARES.items():
        documents(pool, rows * share // sum(SHARES.values()), folder / f"{name}.jsonl")
        splits[name] = {"source": "generic", "path": str(folder / f"{name}.jsonl")}
    chat = {"engine": "openai", "endpoints": [endpoint], "model": "simulated/model", "revision": "one"}
    content = {"name": "whole", "models": {"chat": chat}, "splits": splits, "stages": [*CLEANED, *ASKED]}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**content, "journal": str(folder / "journal")}), "utf-8")
    return path


def table(run: Run, report: dict[str, object], seconds: float, memory: int) -> None:
    """Print the figures."""
    for name, split in report["splits"].items():  # type: ignore[attr-defined]
        funnel = ", ".join(f"{step['label']} {step['rows_out']:,}" for step in split["stages"])
        print(f"{name}: {split['read']:,} read, {split['kept']:,} kept ({funnel})")
    print(f"phases in seconds: {report['phases']}")
    print(f"{seconds:,.0f} s in all; peak memory of all processes {memory / 2**20:,.0f} MB")
    print(
        f"{run.stats['attempts']:,} requests, {run.rate:,.0f}/s; saturation {run.saturation:.3f}; "
        f"{run.cpu:.2f} ms of CPU each while asking; {run.stats['most_in_flight']} at once at most"
    )


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rows", type=int, default=540_000)
    given = parser.parse_args()
    with TemporaryDirectory() as place, simulator(speed=FLEET, asking="出题") as server:
        folder, peak = Path(place), [0]
        path = recipe(folder, sentences(given.corpus), given.rows, server.url)
        began = time.monotonic()
        process = subprocess.Popen([BIN / "kun-build", path, "--output", folder / "run", "--quiet"])
        threading.Thread(target=watch_memory, args=(process.pid, peak), daemon=True).start()
        run = measure(process, server)
        if run.code:
            raise SystemExit(run.code)
        report = json.loads((folder / "run/report.json").read_text("utf-8"))
        table(run, report, time.monotonic() - began, peak[0])


if __name__ == "__main__":
    main()
