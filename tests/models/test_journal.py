"""The journal: what is written is on disk, what is damaged costs only itself, what is known takes no memory."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from kun_builder.errors import RunError
from kun_builder.models.journal import commit, journal, records
from kun_builder.models.journal.journal import Journal, question
from kun_builder.types import Completion, Request, Token


def asked(number, **changes):
    """A question and an answer."""
    messages = ({"role": "system", "content": "你是编辑。" * 20}, {"role": "user", "content": f"第{number}篇"})
    tokens = (Token("好", -0.25, (("好", -0.25), ("差", -1.5))),)
    request = Request(messages, max_new_tokens=64, stop=("。",), choices=("好", "差"), **changes)
    return question("org/model", "abc", request), Completion(f"答案{number}" * 30, "stop", 10, 20, 5, tokens)


def write(folder, count, start=0):
    """A closed journal with so many generations; their keys."""

    async def main():
        log = Journal.open(folder)
        pairs = [asked(number) for number in range(start, start + count)]
        await asyncio.gather(*(log.put(*pair) for pair in pairs))
        await log.close()
        return [pair[0].key for pair in pairs]

    return asyncio.run(main())


def found(folder, keys, **options):
    """How many of the keys the journal finds, each with its right answer."""
    log = Journal.open(folder, **options)
    answers = [log.get(key) for key in keys]
    assert all(
        answer in (None, answered(number, key)) for number, (key, answer) in enumerate(zip(keys, answers, strict=True))
    )
    return sum(answer is not None for answer in answers)


def answered(number, key):
    """What the journal should say."""
    completion = asked(number)[1]
    return Completion(completion.text, "stop", 10, 20, 5, completion.tokens, key, True)


def damage_only(folder):
    """Forget the index, as if the writer had been killed."""
    for path in folder.glob("*.idx"):
        path.unlink()
    (log,) = folder.glob("*.log")
    return log


def test_an_answer_comes_back_as_it_was(tmp_path):
    """Every field of a completion and of its request survives; `cached` tells where it came from."""
    (key,) = write(tmp_path, 1)
    generation = Journal.open(tmp_path).read(key)
    assert generation.completion == answered(0, key)
    assert (generation.model, generation.revision) == ("org/model", "abc")
    assert question(generation.model, generation.revision, generation.request).key == key
    assert abs(generation.time - time.time()) < 60


def test_the_key_is_all_that_an_answer_depends_on():
    """Model, revision, prompt and sampling change the key; rules about flawed answers and the order of keys do not."""
    request = Request(({"role": "user", "content": "问"},), seed=1)
    key = question("m", "r", request).key
    same = Request(({"content": "问", "role": "user"},), seed=1, on_length="keep", on_empty="drop")
    assert question("m", "r", same).key == key
    others = [
        question("m2", "r", request),
        question("m", "r2", request),
        question("m", "r", Request("问", seed=1)),
        question("m", "r", Request(request.prompt, seed=2)),
        question("m", "r", Request(request.prompt, seed=1, choices=("好",))),
        question("m", "r", Request(request.prompt, seed=1, top_logprobs=1)),
    ]
    assert len({key, *(other.key for other in others)}) == 7


def test_put_resolves_when_the_record_is_on_disk(tmp_path):
    """Once the awaitable is done, a reader of the file finds the record, while the writer still has it open."""

    async def main():
        log = Journal.open(tmp_path)
        pair = asked(0)
        await log.put(*pair)
        (path,) = tmp_path.glob("*.log")
        scan = records.scan(path)
        assert [key.hex() for key, _ in scan.entries] == [pair[0].key]
        assert not scan.damage
        assert log.get(pair[0].key) == answered(0, pair[0].key)
        await log.close()

    asyncio.run(main())


def test_one_sync_serves_all_that_came_meanwhile(tmp_path, monkeypatch):
    """A hundred answers in one turn need one commit, not a hundred."""
    syncs = []
    monkeypatch.setattr(commit.os, "fdatasync", lambda fd: syncs.append(fd))
    write(tmp_path, 100)
    assert len(syncs) == 1


@settings(max_examples=40, deadline=None)
@given(cut=st.floats(0, 1))
def test_a_torn_tail_costs_the_torn_record_only(tmp_path_factory, cut):
    """However much of the file's end is missing, every record that is whole is found, and nothing else."""
    folder = tmp_path_factory.mktemp("torn")
    keys = write(folder, 12)
    log = damage_only(folder)
    ends = [offset for _, offset in records.scan(log).entries[1:]] + [log.stat().st_size]
    size = int(cut * log.stat().st_size)
    os.truncate(log, size)
    assert found(folder, keys) == sum(end <= size for end in ends)


@settings(max_examples=40, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), length=st.integers(1, 40))
def test_damage_anywhere_costs_only_the_damaged_records(tmp_path_factory, where, flip, length):
    """Whatever bytes are changed, wherever they are: all records without them are found, and no wrong answer ever."""
    folder = tmp_path_factory.mktemp("flipped")
    keys = write(folder, 12)
    log = damage_only(folder)
    data = bytearray(log.read_bytes())
    starts = [offset for _, offset in records.scan(log).entries] + [len(data)]
    begin = int(where * len(data))
    end = min(begin + length, len(data))
    for at in range(begin, end):
        data[at] ^= flip
    log.write_bytes(data)
    hit = sum(start < end and stop > begin for start, stop in pairwise(starts))
    said = []
    assert found(folder, keys, say=said.append) == 12 - hit
    assert len(said) == 1
    assert str(log) in said[0]
    assert "damaged" in said[0]


@settings(max_examples=30, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_index_is_made_anew(tmp_path_factory, where, flip):
    """With any byte of an index changed, it is made anew, and every answer is found."""
    folder = tmp_path_factory.mktemp("index")
    keys = write(folder, 12)
    (index,) = folder.glob("*.idx")
    data = bytearray(index.read_bytes())
    data[int(where * len(data))] ^= flip
    index.write_bytes(data)
    said = []
    assert found(folder, keys, say=said.append) == 12
    assert "damaged" in said[0]


def test_a_damaged_record_behind_a_good_index_is_asked_again(tmp_path):
    """A record that rots after it was indexed is not found, and the others are."""
    keys = write(tmp_path, 5)
    (log,) = tmp_path.glob("*.log")
    offset = records.scan(log).entries[2][1]
    data = bytearray(log.read_bytes())
    data[offset + 60] ^= 1
    log.write_bytes(data)
    assert found(tmp_path, keys) == 4


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_journal import asked
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
    program = WRITER.format(tests=str(Path(__file__).parent))
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
            assert "free the disk" in caught.value.hint
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

    assert max(after - before for before, after in pairwise(asyncio.run(main()))) == 8


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
