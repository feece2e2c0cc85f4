"""One endpoint of a pool: the choice between several, and what is kept of each."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from kun_builder.models import member as module
from kun_builder.models.member import Member, choose

REASONS = ("aside", "leaving", "doubted")


def member(url="http://a", *, concurrency=4, limits=None, **facts):
    """An endpoint with room for so many requests; `facts` are its server's own."""
    return Member(SimpleNamespace(url=url, **facts), concurrency, 1, limits or {})


def members(paces, at_work):
    """Two endpoints that have taken so long for a token, each with so many requests in flight."""
    made = [member("http://a"), member("http://b")]
    for one, pace, requests in zip(made, paces, at_work, strict=True):
        one.pace = pace
        for _ in range(requests):
            one.window.start()
    return made


@pytest.mark.parametrize(
    ("paces", "at_work", "chosen"),
    [
        ((2.0, 1.0), (0, 0), 1),
        ((2.0, 1.0), (0, 1), 0),  # both would answer at the same time: the first
        ((2.0, 1.0), (0, 2), 0),
        ((1.0, 1.0), (2, 1), 1),
        ((0.0, 3.0), (1, 0), 1),  # one that has not answered yet is taken to be as fast as the fastest
        ((0.0, 3.0), (0, 1), 0),
        ((0.0, 0.0), (1, 0), 1),
        ((0.0, 0.0), (0, 0), 0),
        ((1.0, 1.0), (4, 3), 1),  # the first is full
    ],
)
def test_the_one_that_answers_soonest(paces, at_work, chosen):
    """Work in flight, with the request itself, weighs as much as the endpoint takes for a token."""
    made = members(paces, at_work)
    assert choose(made, "", 10) == (made[chosen], 0.0)


def test_one_that_failed_is_taken_only_where_there_is_no_other():
    """However busy the other is, it gets the request, as long as it has room."""
    made = members((1.0, 50.0), (0, 3))
    assert choose(made, "http://a", 10)[0] is made[1]
    made[1].window.start()
    assert choose(made, "http://a", 10)[0] is made[0]


@pytest.mark.parametrize("reason", REASONS)
def test_one_that_is_not_available_gets_nothing(reason):
    """Set aside, leaving or doubted: each alone is enough."""
    one = member()
    assert one.available
    setattr(one, reason, True)
    assert not one.available
    assert choose([one], "", 10) == (None, 0.0)


def test_limits_tell_when_the_first_of_them_lets_one_go():
    """Where only limits per minute are in the way, the shortest wait is told, and the window hears that it is no limit
    of its own."""
    made = [member(url, limits={"requests_per_minute": limit}) for url, limit in (("http://a", 6), ("http://b", 60))]
    for one in made:
        for _ in range(2):
            one.rate.take(10)
    heard = []
    made[0].window.held_back = lambda: heard.append("a")
    found, pause = choose(made, "", 10)
    assert found is None
    assert 0.5 < pause < 1.5  # of 60 a minute, not of 6
    assert heard == ["a"]
    assert choose([*made, member("http://c")], "", 10)[1] > 0.5
    full = member("http://d", concurrency=1, limits={"requests_per_minute": 6})
    full.window.start()
    assert choose([full], "", 10) == (None, 0.0)


def test_the_slowest_answer_is_forgotten_slowly():
    """Each answer is counted; the slowest one holds until others have been faster for long."""
    one = member()
    for took in (10.0, 1.0, 9.95):
        one.note_answer(took)
    assert (one.answered, one.slowest) == (3, 9.95)
    one.note_answer(1.0)
    assert one.slowest == pytest.approx(9.95 * 0.99)


def test_one_that_is_back_begins_anew():
    """Failures are forgotten, and its silence begins now. It may have other slots than before, which count unless the
    recipe says how many."""
    said, fixed = member(concurrency=0, in_flight=4), member(in_flight=4)
    for one in (said, fixed):
        one.aside, one.failures, one.heard = True, 7, 0.0
        assert one.window.limit == 4
        one.endpoint.in_flight = 6
        one.note_return()
        assert (one.aside, one.failures) == (False, 0)
        assert time.monotonic() - one.heard < 5
    assert (said.window.limit, fixed.window.limit) == (6, 4)
    said.endpoint.in_flight = 0  # it does not tell any more
    said.note_return()
    assert said.window.limit == 6


def test_a_server_that_does_not_tell_its_health_in_time(monkeypatch):
    """A word is a word; silence is neither health nor illness, and no count of what waits."""
    monkeypatch.setattr(module, "_HEALTH", 0.01)

    async def never():
        await asyncio.Event().wait()

    async def yes():
        return True

    async def main():
        silent, well = member(healthy=never, queued=never), member(healthy=yes, queued=yes)
        with pytest.raises(TimeoutError):
            await silent.waiting()
        return await silent.healthy(), await well.healthy(), await well.waiting()

    assert asyncio.run(main()) == (None, True, True)


def test_the_report_has_its_figures():
    """Address, answers, failures, times set aside, the limit over time up to now, and the limits of the recipe."""
    one = member(limits={"requests_per_minute": 60})
    one.note_answer(1.0)
    one.failed, one.set_aside = 2, 3
    report = one.report()
    assert (report.url, report.answered, report.failed, report.set_aside) == ("http://a", 1, 2, 3)
    assert [limit for _, limit in report.window] == [4, 4]
    assert report.limits == {"requests_per_minute": 60}
