"""A server of ours is started when the first request comes, if an earlier start has told who would answer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from kun_builder import Completion, ModelInfo, Request
from kun_builder.engines.late import LateEndpoint

INFO = ModelInfo("tiny", "abc", 1024, logprobs=False, license="mit")


class Started:
    """An endpoint that knows whether it runs."""

    url = "http://127.0.0.1:1"

    def __init__(self):
        self.starts = self.stops = self.asked_who = 0

    @asynccontextmanager
    async def __call__(self):
        self.starts += 1
        await asyncio.sleep(0.01)
        try:
            yield self
        finally:
            self.stops += 1

    async def info(self):
        self.asked_who += 1
        return INFO

    async def healthy(self):
        return False

    async def queued(self):
        return 3

    async def complete(self, request):
        assert self.asked_who, "an endpoint learns how its server wants to be asked by `info`"
        return Completion("是")

    async def count_tokens(self, text):
        return len(text)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KUN_CACHE", str(tmp_path))


def used(work, settings="weights"):
    """What `work(endpoint)` gives, and the server behind it."""
    server = Started()

    async def main():
        async with LateEndpoint("tiny", settings, server) as endpoint:
            return await work(endpoint), endpoint.url

    return *asyncio.run(main()), server


async def who(endpoint):
    return await endpoint.info(), await endpoint.healthy(), await endpoint.queued()


def test_the_first_time_it_starts_at_once():
    """Nobody knows yet who it is."""
    told, url, server = used(who)
    assert (told, url) == ((INFO, False, 3), server.url)
    assert (server.starts, server.stops) == (1, 1)


def test_without_a_request_it_does_not_start_again():
    """Who it is comes from the note of the first start; it counts as healthy, for it would start."""
    used(who)
    told, url, server = used(who)
    assert (told, url, server.starts) == ((INFO, True, None), "the embedded tiny", 0)


def test_requests_that_come_together_start_it_once():
    """All of them wait for the one start."""
    used(who)

    async def work(endpoint):
        await endpoint.info()
        answers = await asyncio.gather(*(endpoint.complete(Request("?")) for _ in range(5)))
        return [answer.text for answer in answers], await endpoint.queued(), await endpoint.count_tokens("茶叶")

    told, url, server = used(work)
    assert (told, url) == ((["是"] * 5, 3, 2), server.url)
    assert (server.starts, server.stops, server.asked_who) == (1, 1, 1)


@pytest.mark.parametrize("how", ["other", "damaged"])
def test_other_settings_or_a_damaged_note_start_it_at_once(how, tmp_path):
    """A note is of these settings alone, and is not trusted when it makes no sense."""
    used(who)
    if how == "damaged":
        (note,) = tmp_path.glob("embedded/*.json")
        note.write_text("[1]")
    assert used(who, "weights" if how == "damaged" else "others")[2].starts == 1
