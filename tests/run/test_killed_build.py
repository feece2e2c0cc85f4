"""A whole build, killed again and again: nothing asked twice, nothing lost, the same dataset in the end."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers.llm_simulator import simulator

from kun_builder.models.journal import records
from kun_builder.models.journal.journal import Journal

ROOT = Path(__file__).parents[2]
ROWS = 400


def recipe(folder, url):
    """A recipe with three dependent requests a row, in shards of 100."""
    folder.mkdir()
    lines = (f'{{"text": "第{number}篇。{"文" * 200}"}}\n' for number in range(ROWS))
    (folder / "input.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "recipe.yaml").write_text(
        f'models: {{chat: {{endpoints: ["{url}"], model: simulated/model, revision: one}}}}\n'
        f"splits: {{rows: {{source: generic, path: {folder / 'input.jsonl'}}}}}\n"
        f"plugins: {{dirs: [{ROOT / 'benchmarks' / 'plugins'}]}}\n"
        f"stages: [ask, judge, rewrite, pair]\n"
        f"shard_rows: 100\n"
        f"journal: {folder / 'journal'}\n",
        encoding="utf-8",
    )


def build(folder):
    """The build as a process."""
    command = [Path(sys.executable).parent / "kun-build", folder / "recipe.yaml", "--output", folder / "run", "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    """Wait for its end."""
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said


def dataset(folder):
    """Bytes of the finished data."""
    parts = (folder / "run" / "dataset" / part for part in ("data", "provenance"))
    return {path.name: path.read_bytes() for part in parts for path in sorted(part.iterdir())}


def on_disk(folder):
    """How the answers begin that the journal holds, read from its files."""
    journal = Journal.open(folder / "journal")
    logs = [records.scan(path) for path in journal.folder.glob("*.log")]
    return {journal.get(key.hex()).text[:8] for log in logs for key, _ in log.entries}


@pytest.mark.slow
def test_a_build_killed_at_random_moments_is_as_if_it_never_was(tmp_path):
    """After each kill -9 the build goes on; an answer that was on disk is never asked for again, nor is one that the
    server had given well before the kill."""
    luck = random.Random(4)
    with simulator(slots=64, speed=20) as server:
        recipe(tmp_path / "whole", server.url)
        finish(build(tmp_path / "whole"))
    kills, known = [], []
    with simulator(slots=32, speed=6) as server:
        recipe(tmp_path / "killed", server.url)
        for _ in range(2):
            process, before = build(tmp_path / "killed"), server.counts()["attempts"]
            while server.counts()["attempts"] == before:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.02)
            time.sleep(luck.uniform(0.2, 1.0))
            kills.append(time.monotonic())
            process.send_signal(signal.SIGKILL)
            process.communicate()
            known.append((time.monotonic(), on_disk(tmp_path / "killed")))
        finish(build(tmp_path / "killed"))
        counts, repeated = server.counts(), server.repeated()
    assert counts["different"] == 3 * ROWS
    assert [len(found) > 30 for _, found in known] == [True, True]
    for at, begins in repeated:
        assert begins not in next((found for kill, found in known if kill > at), set())
    # Answers of the last moment had not all been read, and after a kill the server goes on answering for a moment.
    assert all(any(-0.5 < kill - at < 0.5 for kill in kills) for at, _ in repeated)
    assert dataset(tmp_path / "killed") == dataset(tmp_path / "whole")
