"""A whole build, killed again and again: nothing asked twice, nothing lost, the same dataset in the end."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest
from servers.llm_simulator import simulator
from simulated_builds import build_command, dataset, write_recipe

from kun_builder.models.journal import records
from kun_builder.models.journal.journal import Journal

ROWS = 400


def recipe(folder, url):
    """A recipe in shards of 100."""
    write_recipe(folder, url, rows=ROWS, shard_rows=100)


def build(folder):
    """The build as a process."""
    return subprocess.Popen(build_command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    """Wait for its end."""
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said


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
