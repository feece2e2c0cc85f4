"""A whole build, killed again and again: nothing asked twice, nothing lost, the same dataset in the end."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from itertools import pairwise

import pytest
from servers.llm_simulator import simulator
from simulated_builds import answers_in, build_command, dataset, on_disk, write_recipe

ROWS = 400
AT_ONCE = 32
UNDER_WAY = 64
"""Rows that are under way with so many requests at once. Each has one answer at most that is not on disk yet."""


def recipe(folder, url):
    """A recipe in shards of 100."""
    write_recipe(folder, url, rows=ROWS, shard_rows=100, model=f", concurrency: {AT_ONCE}")


def build(folder):
    """The build as a process."""
    return subprocess.Popen(build_command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    """Wait for its end."""
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said


@pytest.mark.slow
def test_a_build_killed_at_random_moments_is_as_if_it_never_was(tmp_path):
    """After each kill -9 the build goes on; an answer that was on disk is never asked for again, nor is any but those
    that the server gave last before the kill."""
    luck = random.Random(4)
    with simulator(slots=64, speed=20) as server:
        recipe(tmp_path / "whole", server.url)
        finish(build(tmp_path / "whole"))
    kills, known = [], []  # after each kill: how many answers had been given, and those on disk
    with simulator(slots=32, speed=6) as server:
        recipe(tmp_path / "killed", server.url)
        for _ in range(2):
            process, end = build(tmp_path / "killed"), server.counts()["answered"] + luck.randrange(100, 400)
            while server.counts()["answered"] < end or len(answers_in(tmp_path / "killed/journal")) <= 30:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            while server.counts()["in_flight"]:  # for a moment it goes on answering, to nobody
                time.sleep(0.02)
            kills.append(server.counts()["answered"])
            known.append(on_disk(tmp_path / "killed"))
        finish(build(tmp_path / "killed"))
        counts, repeated = server.counts(), server.repeated()
    assert counts["different"] == 3 * ROWS
    assert 30 < len(known[0]) < len(known[1]) < 3 * ROWS
    lost = [[one for one in repeated if begin < one.number <= kill] for begin, kill in pairwise([0, *kills])]
    assert sum(map(len, lost)) == len(repeated)
    for kill, found, again in zip(kills, known, lost, strict=True):
        assert not [one for one in again if one.begins in found]
        assert len(again) <= UNDER_WAY
        assert all(kill - one.number < 2 * UNDER_WAY for one in again)  # twice, since they are not read in order
    assert dataset(tmp_path / "killed") == dataset(tmp_path / "whole")
