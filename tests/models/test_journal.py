"""The journal: what is written is on disk, what is damaged costs only itself, what is known takes no memory."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import answered, asked, found, write

from kun_builder.models.journal import commit, records
from kun_builder.models.journal.journal import Journal, question
from kun_builder.types import Request, Token


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
        question("m", "r", Request(request.prompt, seed=1, prompt_logprobs=True)),
        question("m", "r", Request(request.prompt, seed=1, schema={})),
        question("m", "r", Request(request.prompt, seed=1, schema={}, prompt_logprobs=True)),
    ]
    assert len({key, *(other.key for other in others)}) == 10


@pytest.mark.parametrize(
    ("request_", "key"),
    [
        (Request("问", seed=1), "e6fddc1eca31d746e7bde742fc8cafb6"),
        (Request(({"role": "user", "content": "问"},), 1, top_logprobs=5), "dd92e2503caa101a1f46603ed55a8bc4"),
        (Request("问", schema={"type": "string"}), "c9edca8f44572cb46217feb23e151c44"),
    ],
)
def test_keys_are_those_of_earlier_versions(request_, key):
    """What was answered before there was a field `prompt_logprobs` is found again."""
    assert question("m", "r", request_).key == key


def test_the_tokens_of_a_prompt_come_back(tmp_path):
    """A generation that tells of its prompt keeps what it tells, with the request that asked for it."""

    async def main():
        pair = asked(0, prompt_logprobs=True)
        told = replace(pair[1], prompt_logprobs=(Token("茶", -0.5), Token("叶", -7.25)))
        log = Journal.open(tmp_path)
        await log.put(pair[0], told)
        await log.close()
        return pair[0].key, told

    key, told = asyncio.run(main())
    found = Journal.open(tmp_path).read(key)
    assert found.completion == replace(told, key=key, cached=True)
    assert found.request.prompt_logprobs


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


def test_what_is_put_is_written_at_once(tmp_path):
    """Before anything else happens, the record is in the file: a kill that comes then costs nothing."""

    async def main():
        log = Journal.open(tmp_path)
        pair = asked(0)
        durable = log.put(*pair)
        (path,) = tmp_path.glob("*.log")
        assert [key.hex() for key, _ in records.scan(path).entries] == [pair[0].key]
        await durable
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


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(("first", "last"), [(0, 3), (4, 9), (9, 12), (0, 12)])
def test_zeros_that_a_dead_machine_left_cost_what_they_cover_and_it_is_said_once(tmp_path, indexed, first, last):
    """Records before and after are found. Where an index knows how many there were, the lost ones are counted."""
    keys = write(tmp_path, 12) + write(tmp_path, 6, start=12)
    log, _ = sorted(tmp_path.glob("*.log"))
    starts = [offset for _, offset in records.scan(log).entries] + [log.stat().st_size]
    with log.open("r+b") as file:
        file.seek(starts[first] + 1)
        file.write(bytes(starts[last] - starts[first] - 1))
    if not indexed:
        log.with_suffix(".idx").unlink()
    said = []
    assert found(tmp_path, keys, say=said.append) == 18 - (last - first)
    assert len(said) == 1
    assert str(log) in said[0]
    assert f"of 12 answers {last - first} are lost" in said[0] if indexed else "damaged" in said[0]
