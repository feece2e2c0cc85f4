"""The files of the journal: several writers, merging, pruning, full disks and what is no record."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from journals import asked, found, write

from kun_builder.errors import RunError
from kun_builder.models.journal import commit, journal
from kun_builder.models.journal.journal import Journal, question
from kun_builder.types import Completion, Request

WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from journals import asked
from kun_builder.models.journal.journal import Journal
async def main():
    log = Journal.open(Path(sys.argv[1]))
    for number in range(int(sys.argv[2]), 100000):
        question, completion = asked(number)
        await log.put(question, completion)
        print(question.key, flush=True)
asyncio.run(main())
"""


def writer(folder, start):
    """A process that writes generations until it is killed, and prints the keys of those that are on disk."""
    program = WRITER.format(tests=str(Path(__file__).parents[1]))
    command = [sys.executable, "-c", program, str(folder), str(start)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_writer_loses_nothing_that_it_had_put(tmp_path):
    """Two processes write at once and are killed: every key that either has reported is found by a third."""
    both = [writer(tmp_path, 0), writer(tmp_path, 50_000)]
    heads = [[process.stdout.readline() for _ in range(30)] for process in both]
    for process in both:
        process.send_signal(signal.SIGKILL)
    keys = [
        key.strip()
        for process, head in zip(both, heads, strict=True)
        for key in [*head, *process.communicate()[0].split()]
    ]
    log = Journal.open(tmp_path)
    assert all(log.get(key) for key in keys)
    assert log.stats().files == 2


def test_a_file_that_is_being_written_is_left_alone(tmp_path):
    """A reader that opens while another process writes neither indexes nor prunes that file."""
    process = writer(tmp_path, 0)
    process.stdout.readline()
    log = Journal.open(tmp_path)
    assert log.prune().files == 1
    assert not list(tmp_path.glob("*.idx"))
    process.kill()
    keys = process.communicate()[0].split()
    assert all(Journal.open(tmp_path).get(key) for key in keys)


def test_many_small_journals_are_merged(tmp_path, monkeypatch):
    """After many runs a key is looked for in few indexes, and is found whichever run wrote it."""
    keys = [key for run in range(20) for key in write(tmp_path, 3, start=3 * run)]
    assert len(list(tmp_path.glob("*.log"))) == 20
    assert len(list(tmp_path.glob("*.idx"))) < 10
    assert found(tmp_path, keys) == 60


def test_memory_does_not_grow_with_generations(tmp_path, monkeypatch):
    """A log is closed after a bounded number of records; what it holds is found through indexes, merged on the way."""
    monkeypatch.setattr(journal, "SEAL_AFTER", 50)

    async def main():
        log = Journal.open(tmp_path)
        pairs = [asked(number) for number in range(1030)]
        for start in range(0, len(pairs), 10):
            await asyncio.gather(*(log.put(*pair) for pair in pairs[start : start + 10]))
        assert all(log.get(pair[0].key) for pair in pairs)
        assert sum(len(writer.offsets) for writer in log._writers()) < 100
        assert len(log._indexes) < 10
        await log.close()
        return [pair[0].key for pair in pairs]

    keys = asyncio.run(main())
    assert found(tmp_path, keys) == 1030
    assert Journal.open(tmp_path).stats().generations == 1030


def test_since_ignores_what_is_older_and_the_newest_answer_counts(tmp_path):
    """A fresh run does not see older answers; later runs see the newest of several."""
    (key,) = write(tmp_path, 1)
    time.sleep(0.01)
    now = time.time()
    assert Journal.open(tmp_path, since=now).get(key) is None

    async def again():
        log = Journal.open(tmp_path, since=now)
        await log.put(asked(0)[0], Completion("newer"))
        await log.close()

    asyncio.run(again())
    assert Journal.open(tmp_path, since=now).get(key).text == "newer"
    assert Journal.open(tmp_path).get(key).text == "newer"


def test_prune_removes_by_age(tmp_path):
    """Files without an addition in the given time go, others stay, and what they hold is still found."""
    old, new = write(tmp_path, 3), write(tmp_path, 3, start=100)
    first = min(tmp_path.glob("*.log"))
    os.utime(first, (time.time() - 1000, time.time() - 1000))
    log = Journal.open(tmp_path)
    assert log.stats().generations == 6
    left = log.prune(older_than=500)
    assert (left.files, left.generations) == (1, 3)
    assert [log.get(key) is None for key in old + new] == [True] * 3 + [False] * 3
    assert log.prune().generations == 0


def test_a_full_disk_is_an_error_with_a_cure(tmp_path, monkeypatch):
    """When the disk takes no more, put raises RunError, and what was written before is still there."""

    async def main():
        log = Journal.open(tmp_path)
        await log.put(*asked(0))

        def full(fd, data, offset):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(commit.os, "pwrite", full)
            with pytest.raises(RunError, match="No space left") as caught:
                await log.put(*asked(1))
            assert "free some disk space" in caught.value.hint
        await log.put(*asked(2))
        await log.close()
        return [asked(number)[0].key for number in (0, 1, 2)]

    keys = asyncio.run(main())
    log = Journal.open(tmp_path)
    assert [log.get(key) is not None for key in keys] == [True, False, True]


def test_rows_go_on_a_few_per_turn(tmp_path):
    """However many answers one commit holds, each turn of the event loop lets only a few of their rows go on."""

    async def main():
        log = Journal.open(tmp_path)
        waiting = [log.put(*asked(number)) for number in range(60)]
        done = [0]
        while done[-1] < 60:
            await asyncio.sleep(0)
            done.append(sum(durable.done() for durable in waiting))
        await log.close()
        return done

    assert max(after - before for before, after in pairwise(asyncio.run(main()))) == 2


def test_a_cancelled_row_does_not_take_others_with_it(tmp_path):
    """Cancelling one that waits for the disk leaves the others waiting, and its own record written."""

    async def main():
        log = Journal.open(tmp_path)
        pairs = [asked(number) for number in range(3)]

        async def put(pair):
            await log.put(*pair)

        tasks = [asyncio.create_task(put(pair)) for pair in pairs]
        await asyncio.sleep(0)
        tasks[1].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [False, True, False]
        await log.close()
        return [pair[0].key for pair in pairs]

    assert found(tmp_path, asyncio.run(main())) == 3


def test_the_default_place_is_the_cache(tmp_path, monkeypatch):
    """KUN_CACHE says where generations are kept when nothing else does."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path))
    assert Journal.open().folder == tmp_path / "generations"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUN_CACHE", "~/x")
    assert Journal.open().folder == tmp_path / "x/generations"


@pytest.mark.parametrize(
    "answer",
    [
        ["答", "stop", 7, 10**19, 0, [], 0],
        ["答", "stop", -7, 3, 0, [], 0],
        ["答", "stop", True, 3, 0, []],
        [None, "stop", 7, 3, 0, []],
        ["答", "stop", 7, 3, 0, [["答", None, []]], 0],
        ["答", "stop", 7, 3],
        "answer",
        None,
    ],
)
def test_a_record_that_makes_no_sense_is_asked_again(tmp_path, answer):
    """A whole record of impossible numbers or another shape is as good as missing, and one line says so."""

    async def main():
        said = []
        key = question("m", "1", Request("茶"))
        journal = Journal.open(tmp_path, say=said.append)
        pack = journal._zip if answer is not None else bytes
        journal._zip = lambda record: pack(json.dumps((answer, 1.0)).encode() + b"\n" + key.packed)
        await journal.put(key, Completion("答"))
        assert journal.get(key.key) is None
        assert journal.get(key.key) is None
        assert journal.read(key.key) is None
        assert len(said) == 1
        assert "makes no sense" in said[0]
        await journal.close()

    asyncio.run(main())
