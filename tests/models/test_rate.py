"""Limits per minute: reckoned in virtual time, and seen by a server."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left

import pytest
from served_models import ask_for, models
from servers.scripted_chat import chat

from kun_builder.models.generator import Asker
from kun_builder.models.rate import Rate, Sizes


class Clock:
    """Time that only `sleep` makes pass."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def sent(rate, clock, seconds, tokens=0.0, took=0):
    """Times at which requests go out that never have to wait for anything else."""
    times = []
    while True:
        while pause := rate.pause(tokens):
            clock.now += pause + 1e-9
        if clock.now > seconds:
            return times
        rate.take(tokens)
        rate.correct(tokens, took)
        times.append(clock.now)


def most_in_a_minute(times):
    """The greatest number within any 60 seconds."""
    return max(bisect_left(times, begin + 60) - number for number, begin in enumerate(times))


@pytest.mark.parametrize("limit", [1, 3, 60, 500])
def test_no_minute_has_more_requests_than_the_limit(limit):
    """In whatever minute of five one counts, and hardly fewer: at least 95 of 100 of what is allowed."""
    clock = Clock()
    times = sent(Rate({"requests_per_minute": limit}, clock=clock), clock, 300)
    assert most_in_a_minute(times) <= limit
    assert len(times) >= 0.95 * 5 * limit


def test_a_pause_is_not_made_up_for():
    """After an idle hour no more goes out at once than two seconds' worth."""
    clock = Clock()
    rate = Rate({"requests_per_minute": 600}, clock=clock)
    clock.now = 3600.0
    assert sum(one == 3600.0 for one in sent(rate, clock, 3601)) == 20


@pytest.mark.parametrize("took", [50, 200])
def test_what_an_answer_took_counts_not_what_was_guessed(took):
    """A guess of 100 tokens a request that is far off, above or below, still leads to the limit in tokens."""
    clock = Clock()
    times = sent(Rate({"tokens_per_minute": 60_000}, clock=clock), clock, 300, tokens=100, took=took)
    assert most_in_a_minute(times) * took <= 60_000 + took
    assert len(times) * took >= 0.95 * 5 * 60_000


def test_a_request_larger_than_a_burst_is_sent():
    """One request may take more than the bucket holds: it goes when the bucket is full, the next waits longer."""
    clock = Clock()
    times = sent(Rate({"tokens_per_minute": 6000}, clock=clock), clock, 300, tokens=1000, took=1000)
    assert 27 <= len(times) <= 31


def test_sharers_divide_the_limits():
    """Each of four processes takes a quarter."""
    clock = Clock()
    times = sent(Rate({"requests_per_minute": 400}, 4, clock), clock, 60)
    assert 95 <= len(times) <= 101


def test_sizes_are_learned_by_kind():
    """Before the first answer of its stage a request is taken for its characters and all it may generate."""
    sizes = Sizes()
    assert sizes.guess("polish", ask_for(1, max_new_tokens=100)) == len("第1篇") + 100
    sizes.learn("polish", 40)
    sizes.learn("polish", 60)
    assert 40 < sizes.guess("polish", ask_for(2)) < 60
    assert sizes.guess("score", ask_for(3, max_new_tokens=1)) == len("第3篇") + 1


async def arrivals(folder, number, seconds, **settings):
    """Seconds, counted from when the first could be sent, at which a server got each of `number` requests, and the
    generator. What is late on its way only comes when more could have been sent."""
    times = []

    def say(body):
        times.append(time.monotonic())
        return "答"

    async with chat(say) as server, models(folder, server, **settings) as generator:
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            await asyncio.gather(
                *(generator.ask("chat", ask_for(one, max_new_tokens=3), Asker()) for one in range(number))
            )
        return [one - began for one in times], generator


@pytest.mark.parametrize("limits", [{"requests_per_minute": 600}, {"tokens_per_minute": 6000}])
def test_a_server_gets_no_more_than_the_limit(tmp_path, limits):
    """Of 40 requests of ten tokens each, 20 come at once and the rest at ten a second; none is lost.

    Where tokens are limited, the first are guessed too small, and the difference is made up.
    """
    times, generator = asyncio.run(arrivals(tmp_path, 40, 30, limits=limits))
    assert len(times) == 40
    for seconds in (0.5, 1.0, 1.5):
        assert sum(one < seconds for one in times) <= 21 + 10 * seconds
    assert 1.7 < times[-1] < 10
    assert generator.report()["endpoints"]["chat"][0]["limits"] == limits


def test_waiting_for_limits_teaches_the_window_nothing(tmp_path):
    """While limits keep requests back, the window's limit stays where it was: they are not in flight."""
    _, generator = asyncio.run(arrivals(tmp_path, 60, 30, limits={"requests_per_minute": 1200}))
    (endpoint,) = generator.report()["endpoints"]["chat"]
    assert [limit for _, limit in endpoint["window"]][-1] <= 16


def test_answers_of_the_journal_cost_nothing(tmp_path):
    """What was answered before comes at once, whatever the limits."""

    async def main():
        async with chat(lambda body: "答") as server, models(tmp_path, server, revision="r") as generator:
            await asyncio.gather(*(generator.ask("chat", ask_for(one, max_new_tokens=3), Asker()) for one in range(50)))
        times, _ = await arrivals(tmp_path, 51, 50, revision="r", limits={"requests_per_minute": 1})
        assert len(times) == 1

    asyncio.run(main())


def test_what_was_not_sent_is_given_back(tmp_path):
    """Requests that are cancelled before they are sent leave the limit to others."""

    async def main():
        async with (
            chat(lambda body: "答") as server,
            models(tmp_path, server, limits={"requests_per_minute": 1}) as one,
        ):
            one._pools[0].spent = lambda: True
            waiting = [asyncio.create_task(one._pools[0].ask(ask_for(number), "")) for number in range(3)]
            async with asyncio.timeout(50):
                await asyncio.gather(*waiting, return_exceptions=True)
                one._pools[0].spent = lambda: False
                await one.ask("chat", ask_for(4), Asker())
            return len(server.asked)

    assert asyncio.run(main()) == 1
