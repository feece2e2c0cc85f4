"""Servers that are only slow: nothing that they work at is taken from them; those that hang are still told apart."""

from __future__ import annotations

import asyncio

import pytest
from served_models import ask_for, models
from servers.full_threads import full_threads

from kun_builder.models import member, watch
from kun_builder.models.generator import Asker
from kun_builder.status import Status


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """A step of the server's work takes longer than a healthy one needs to say so."""
    monkeypatch.setattr(member, "_HEALTH", 0.1)
    monkeypatch.setattr(watch, "_SILENCE", 0.4)
    monkeypatch.setattr(watch, "_LOOK_MOST", 0.1)


async def ask(generator, numbers):
    """One request each, all at once."""
    await asyncio.gather(*(generator.ask("chat", ask_for(n), Asker(order=n)) for n in numbers))


def report(generator):
    """What the first endpoint did."""
    return generator.report()["endpoints"]["chat"][0]


def test_a_server_that_tells_its_slots_is_not_filled_beyond_them(tmp_path):
    """llama.cpp has hardly more threads than slots: so it can always say that it is well, and nobody worries."""
    said = []

    async def main():
        async with (
            full_threads(step=0.3, tells=True) as server,
            models(tmp_path, server, status=Status(say=said.append)) as own,
        ):
            await ask(own, range(24))
            return server, report(own)

    server, figures = asyncio.run(main())
    assert server.most == 6
    assert set(server.asked.values()) == {1}
    assert figures["set_aside"] == figures["failed"] == 0
    assert not any("says nothing" in line or "does not answer" in line for line in said)


def test_a_slow_server_whose_threads_are_all_taken_is_asked_nothing_twice(tmp_path):
    """A server that says nothing while it works at what it was given is doubted: it keeps all of that, and its window
    does not grow."""
    said = []

    async def main():
        async with full_threads() as server, models(tmp_path, server, status=Status(say=said.append)) as own:
            await ask(own, range(24))
            server.step = 0.9
            await ask(own, range(24, 48))
            return server, report(own)

    server, figures = asyncio.run(main())
    assert len(server.asked) == 48
    assert set(server.asked.values()) == {1}
    assert figures["set_aside"] == figures["failed"] == 0
    assert server.most <= 32
    assert any("says nothing" in line for line in said)


@pytest.mark.parametrize("answers", [True, False], ids=["after-answers", "before-any-answer"])
def test_one_that_hangs_gives_up_its_work(tmp_path, answers):
    """One that never says anything again is set aside, and what it had is asked elsewhere: after some time where it has
    answered before, after the time that the recipe waits for a server where it never has."""

    async def main():
        servers = full_threads(), full_threads(step=0.01)
        async with servers[0] as bad, servers[1] as good, models(tmp_path, bad, good, revision="r", wait=1) as own:
            if answers:
                await ask(own, range(40))
            bad.hangs = True
            before = sum(bad.asked.values())
            async with asyncio.timeout(15):
                await ask(own, range(100, 140))
            return report(own), before, bad.asked

    figures, before, asked = asyncio.run(main())
    assert (before > 0) == answers
    assert figures["set_aside"] == 1
    assert sum(asked.values()) > before
