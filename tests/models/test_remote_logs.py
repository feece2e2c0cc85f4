"""A journal behind an address: what one machine has paid for, others find."""

from __future__ import annotations

import asyncio
import re
import uuid

import pytest
from journals import asked, found, write

from kun_builder.errors import SourceError
from kun_builder.models.journal import records
from kun_builder.models.journal.journal import Journal
from kun_builder.models.journal.remote_logs import RemoteLogs
from kun_builder.readers.remote_store import Store


@pytest.fixture
def machine(s3, tmp_path):
    """A function: the journal of a machine with this name, as it is when a run begins there."""
    address = f"{s3.put(f'journal-{uuid.uuid4().hex[:8]}', {})}/journal"

    def begin(name):
        logs = RemoteLogs(Store(address), tmp_path / name / "journal")
        logs.bring()
        return logs

    return begin


def test_another_machine_finds_the_answers(machine):
    """Also those that are added later, by several machines, each of which brings only what it lacks."""
    first = machine("first")
    keys = write(first.folder, 40)
    first.push()
    second = machine("second")
    assert found(second.folder, keys) == 40
    keys += write(second.folder, 20, start=40)
    second.push()
    keys += write(first.folder, 20, start=60)
    first.push()
    third = machine("third")
    assert found(third.folder, keys) == 80
    before = {path.name for path in third.folder.glob("*.log")}
    assert {path.name for path in machine("third").folder.glob("*.log")} == before
    assert found(machine("first").folder, keys) == 80
    assert len(list(first.folder.glob("*.log"))) == 3  # its own two come from nowhere


def test_a_growing_log_goes_in_pieces(machine):
    """Each piece begins where the one before has ended, with whole records; what did not grow is not sent again."""
    logs = machine("first")

    async def main():
        journal, keys = Journal.open(logs.folder), []
        for number in range(30):
            question, answer = asked(number)
            await journal.put(question, answer)
            keys.append(question.key)
            if number % 10 == 9:
                logs.push()
                logs.push()
        (log,) = logs.folder.glob("*.log")
        records_of = records.scan(log)
        with log.open("r+b") as file:  # torn: a record that is being written
            file.seek(records_of.entries[-1][1] + 60)
            file.write(b"\0" * 20)
        return keys

    keys = asyncio.run(main())
    sizes = logs.store.sizes()
    starts = [int(re.search(r"-(\d{12})\.log", name)[1]) for name in sizes]
    assert len(starts) == 3
    assert [start + size for start, size in zip(starts, sizes.values(), strict=True)][:-1] == starts[1:]
    assert found(machine("second").folder, keys) == 30


def test_a_torn_record_waits_for_the_next_piece(machine):
    """What a process has half written is no part of a piece."""
    logs = machine("first")
    write(logs.folder, 3)
    (log,) = logs.folder.glob("*.log")
    whole = log.read_bytes()
    log.write_bytes(whole[:-10] + b"\0" * 5000)
    logs.push()
    log.write_bytes(whole + b"\0" * 5000)
    logs.push()
    assert sum(logs.store.sizes().values()) == len(whole)
    assert len(logs.store.sizes()) == 2
    assert found(machine("second").folder, [asked(number)[0].key for number in range(3)]) == 3


def test_two_processes_of_a_machine_leave_no_hole(machine):
    """Both push the logs of their common folder, one after the other; each knows how far the other came."""
    one, other = machine("first"), machine("first")
    keys = write(one.folder, 5)
    one.push()
    other.push()
    keys += write(one.folder, 5, start=5)
    other.push()
    one.push()
    assert len(one.store.sizes()) == 2
    assert found(machine("second").folder, keys) == 10


def pieces(logs, count, start=0):
    """So many pieces of one log of a machine, with an answer each; the keys of these."""

    async def main():
        journal, keys = Journal.open(logs.folder), []
        for number in range(start, start + count):
            question, answer = asked(number)
            await journal.put(question, answer)
            keys.append(question.key)
            logs.push()
        await journal.close()
        return keys

    return asyncio.run(main())


def test_many_pieces_are_put_together(machine):
    """A machine that has brought them puts one object in their place; their owner and later machines miss nothing."""
    first = machine("first")
    keys = pieces(first, 30)
    second = machine("second")
    assert len(second.store.sizes()) == 30
    second.push()
    (name,) = second.store.sizes()
    assert re.search(r"-0{12}-\d{12}\.log$", name)
    assert found(machine("third").folder, keys) == found(machine("second").folder, keys) == 30
    again = machine("first")
    again.push()
    assert len(again.store.sizes()) == 1  # nothing is sent twice
    keys += write(again.folder, 5, start=30)
    again.push()
    assert found(machine("second").folder, keys) == found(machine("fourth").folder, keys) == 35


def test_pieces_that_are_put_together_while_others_bring_them(machine, monkeypatch):
    """Two machines do it at once, the second after the log has grown; a third had listed the pieces before both."""
    first = machine("first")
    keys = pieces(first, 20)
    second, third = machine("second"), RemoteLogs(first.store, first.folder.parents[1] / "third/journal")
    keys += pieces(first, 20, start=20)  # another log
    fourth = machine("fourth")
    sizes, listed = third.store.sizes, []

    def stale():
        listed.append(sizes())
        if len(listed) == 1:
            monkeypatch.setattr(third.store, "sizes", sizes)
            for other in (fourth, second, fourth):
                other.push()
            monkeypatch.setattr(third.store, "sizes", stale)
        return listed[-1]

    monkeypatch.setattr(third.store, "sizes", stale)
    third.bring()
    assert [len(one) for one in listed] == [40, 2]
    assert found(third.folder, keys) == found(machine("fifth").folder, keys) == 40


def test_what_overlaps_or_is_missing_costs_nothing_else(machine):
    """Objects left by a machine that died while it deleted, and old ones that a person has deleted."""
    first = machine("first")
    keys = pieces(first, 24)
    kept = {name: first.store.read(name) for name in first.store.sizes()}
    machine("second").push()
    for name in list(kept)[5:]:
        first.store.put(name, kept[name])
    assert found(machine("third").folder, keys) == 24
    machine("fourth").push()
    (joined,) = first.store.sizes()
    first.store.delete([joined])
    for name in [*kept][:8] + [*kept][10:]:
        first.store.put(name, kept[name])
    fifth = machine("fifth")
    assert found(fifth.folder, keys) == 22
    fifth.push()
    assert found(machine("sixth").folder, keys) == 22


def test_who_may_not_delete_has_the_answers_nevertheless(machine, monkeypatch):
    """Putting together is tried once, and its failure is nobody's concern."""
    keys = pieces(machine("first"), 20)
    second = machine("second")

    def refused(names):
        raise SourceError("403")

    monkeypatch.setattr(second.store, "delete", refused)
    second.push()
    second.push()
    assert len(second.store.sizes()) == 21
    assert found(machine("third").folder, keys) == 20
