"""Programs under measurement: `kun-build` and the bare loop, each a process of its own, against a simulator.

CPU is that of the whole process between the first request and the last answer, read from outside; memory is its peak.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
from bare_loop import text  # noqa: E402  # the folders above are no packages
from servers.llm_simulator import Simulator  # noqa: E402

from kun_builder.models.journal import records  # noqa: E402
from kun_builder.models.journal.journal import Journal  # noqa: E402

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """What came of one run. `cpu` is in milliseconds per request, `memory` in megabytes, times in seconds."""

    saturation: float
    rate: float
    cpu: float
    memory: float
    seconds: float
    code: int
    stats: dict[str, Any]


class Build:
    """A recipe with its input, its run folder and its journal, in one folder."""

    def __init__(self, folder: Path, rows: int, endpoints: Sequence[str], shard_rows: int = 2000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output, self._recipe, self._folder = folder / "run", folder / "recipe.yaml", folder
        with (folder / "input.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(f'{{"text": "{text(number)}"}}\n' for number in range(rows))
        urls = ", ".join(f'"{url}"' for url in endpoints)
        self._recipe.write_text(
            f"name: serving\n"
            f"models: {{chat: {{engine: openai, endpoints: [{urls}], model: simulated/model, revision: one}}}}\n"
            f"splits: {{rows: {{source: generic, path: {folder / 'input.jsonl'}}}}}\n"
            f"plugins: {{dirs: [{HERE / 'plugins'}]}}\n"
            f"stages: [ask, judge, rewrite, pair]\n"
            f"shard_rows: {shard_rows}\n"
            f"journal: {folder / 'journal'}\n",
            encoding="utf-8",
        )

    def start(self) -> subprocess.Popen[bytes]:
        """Start, or go on with, the build."""
        command = [str(Path(sys.executable).parent / "kun-build"), str(self._recipe), "--output", str(self.output)]
        log = (self._folder / "log").open("ab")
        return subprocess.Popen([*command, "--quiet"], stdout=log, stderr=log)

    def files(self) -> dict[str, bytes]:
        """The data of the finished dataset."""
        folder = self.output / "dataset"
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for part in ("data", "provenance")
            for path in sorted((folder / part).iterdir())
        }

    def on_disk(self) -> set[str]:
        """How the answers begin that the journal holds, read from its files."""
        journal = Journal.open(self._folder / "journal")
        logs = [records.scan(path) for path in journal.folder.glob("*.log")]
        answers = (journal.get(key.hex()) for log in logs for key, _ in log.entries)
        return {answer.text[:8] for answer in answers if answer}

    def log(self) -> str:
        """What the runs said."""
        return (self._folder / "log").read_text("utf-8")


def bare(url: str, rows: int, concurrency: int) -> subprocess.Popen[bytes]:
    """Start the bare loop."""
    return subprocess.Popen([sys.executable, str(HERE / "bare_loop.py"), url, str(rows), str(concurrency)])


def measure(process: subprocess.Popen[bytes], simulator: Simulator) -> Run:
    """Wait for the end of the process, reading its CPU time all the while."""
    began = time.monotonic()
    samples: list[tuple[float, float]] = []
    ended = threading.Event()
    reader = threading.Thread(target=_read_cpu, args=(process.pid, samples, ended))
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    ended.set()
    reader.join()
    stats = simulator.stats()
    inside = [(at, cpu) for at, cpu in samples if stats["first"] <= at <= stats["last"]]
    (begin, before), (end, after) = inside[0], inside[-1]
    cpu = (after - before) / max(end - begin, 1e-9) * stats["taken"]
    requests = max(1, stats["attempts"])
    return Run(
        stats["saturation"],
        requests / max(stats["taken"], 1e-9),
        1000 * cpu / requests,
        usage.ru_maxrss / 1024,
        time.monotonic() - began,
        process.returncode,
        stats,
    )


def _read_cpu(pid: int, samples: list[tuple[float, float]], ended: threading.Event) -> None:
    while not ended.wait(0.1):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        except FileNotFoundError:
            return
        samples.append((time.monotonic(), (int(fields[11]) + int(fields[12])) / _TICK))
