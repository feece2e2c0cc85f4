"""Several endpoints behind one name: real processes, killed, stopped and revived."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack
from itertools import pairwise

import pytest
from aiohttp import web
from served_models import ask_for, models, until
from servers.llm_server import Faults
from servers.llm_simulator import simulator
from servers.scripted_chat import chat

from kun_builder.errors import RunError
from kun_builder.models import member, watch
from kun_builder.models.generator import Asker
from kun_builder.models.pool import Pool
from kun_builder.status import Status
from kun_builder.testing.fakes import Script
from kun_builder.types import ModelInfo

STAGES = (("label", 40), ("score", 12), ("polish", 100))


async def rows(generator, numbers):
    """Send rows through three dependent requests each, as many at once as is worth it."""
    places = asyncio.Semaphore(generator.capacity)
    generator.on_growth = lambda: [places.release() for _ in range(50)]

    async def row(number):
        async with places:
            asker = Asker(order=number)
            for asker.stage, tokens in STAGES:
                await generator.ask("chat", ask_for(f"{number}{asker.stage}", max_new_tokens=tokens), asker)

    await asyncio.gather(*(row(number) for number in numbers))


def answered(server, count):
    """Wait until the server has answered so many."""
    while server.counts()["answered"] < count:
        time.sleep(0.05)


def endpoints(generator):
    """What the endpoints did, by number."""
    return generator.report()["endpoints"]["chat"]


def test_a_fast_endpoint_gets_more_work(tmp_path):
    """Of two endpoints, the one that is four times as fast answers the greater part."""

    async def main(slow, fast):
        async with models(tmp_path, slow, fast) as generator:
            await rows(generator, range(200))
            return [one["answered"] for one in endpoints(generator)]

    with simulator(slots=8, speed=1) as slow, simulator(slots=8, speed=4) as fast:
        first, second = asyncio.run(main(slow, fast))
    assert first + second == 600
    assert 2.5 * first < second


@pytest.mark.slow
def test_a_killed_endpoint_loses_no_row_and_is_used_again(tmp_path):
    """One of three endpoints is killed and revived: all rows end, the others go on, and it works again afterwards."""
    said = []

    async def main(servers):
        async with models(tmp_path, *servers, status=Status(say=said.append), revision="r") as generator:
            work = asyncio.create_task(rows(generator, range(900)))
            await asyncio.to_thread(answered, servers[1], 300)
            await asyncio.to_thread(servers[1].kill)
            others = servers[0], servers[2]
            before = sum(server.counts()["attempts"] for server in others)
            await until(lambda: sum(server.counts()["attempts"] for server in others) - before > 300)  # they go on
            await until(lambda: [one["set_aside"] for one in endpoints(generator)] == [0, 1, 0])
            assert not work.done()
            await asyncio.to_thread(servers[1].revive)
            await work
            return endpoints(generator)

    with ExitStack() as stack:
        servers = [stack.enter_context(simulator(slots=16, speed=5)) for _ in range(3)]
        reports = asyncio.run(main(servers))
        assert servers[1].counts()["answered"] > 0
    assert sum(one["answered"] for one in reports) == 2700
    assert [one["set_aside"] for one in reports] == [0, 1, 0]
    assert [servers[1].url in line for line in said] == [True, True]
    assert "take over" in said[0]
    assert "is back" in said[1]


@pytest.mark.parametrize("concurrency", [0, 16])
def test_an_endpoint_that_hangs_is_set_aside(tmp_path, monkeypatch, concurrency):
    """A process that is stopped, with its connections open, is set aside too, and its work is asked elsewhere.

    With a fixed number of requests at once nobody asks for the server's queue, and its silence alone tells.
    """
    monkeypatch.setattr(watch, "_SILENCE", 0.3)
    monkeypatch.setattr(member, "_HEALTH", 0.2)

    async def main(servers):
        async with models(tmp_path, *servers, concurrency=concurrency) as generator:
            work = asyncio.create_task(rows(generator, range(300)))
            await asyncio.to_thread(answered, servers[0], 50)
            os.kill(servers[0].process.pid, signal.SIGSTOP)
            await asyncio.wait_for(work, 30)
            return endpoints(generator)

    with simulator(slots=16, speed=10) as one, simulator(slots=16, speed=10) as two:
        reports = asyncio.run(main([one, two]))
    assert reports[0]["set_aside"] == 1
    assert sum(report["answered"] for report in reports) == 900


@pytest.mark.slow
def test_when_none_is_left_the_run_waits_and_goes_on(tmp_path):
    """With its only endpoint gone the run says that it waits, and goes on when it is back."""
    said = []

    async def main(server):
        async with models(tmp_path, server, status=Status(say=said.append), revision="r", wait=60) as generator:
            work = asyncio.create_task(rows(generator, range(400)))
            await asyncio.to_thread(answered, server, 100)
            await asyncio.to_thread(server.kill)
            await until(lambda: said)
            await asyncio.sleep(0.5)
            assert not work.done()
            await asyncio.to_thread(server.revive)
            await work

    with simulator(slots=16, speed=10) as server:
        asyncio.run(main(server))
    assert "waiting up to 60 s" in said[0]
    assert "is back" in said[1]


@pytest.mark.slow
def test_when_none_comes_back_the_run_stops_resumable(tmp_path):
    """After the time that the recipe allows, RunError names model and addresses; the journal has what was answered."""

    async def main(server):
        async with models(tmp_path, server, wait=1) as generator:
            work = asyncio.create_task(rows(generator, range(400)))
            await asyncio.to_thread(answered, server, 150)
            await asyncio.to_thread(server.kill)
            began = time.monotonic()
            with pytest.raises(RunError) as caught:
                await work
            assert time.monotonic() - began < 10
            assert server.url in str(caught.value)
            assert "goes on" in caught.value.hint
            return endpoints(generator)[0]["answered"]

    async def again(server):
        async with models(tmp_path, server) as generator:
            await rows(generator, range(400))

    with simulator(slots=16, speed=10) as server:
        known = asyncio.run(main(server))
        server.revive()
        asyncio.run(again(server))
        assert known > 50
        assert server.counts()["answered"] == 1200 - known


def test_an_endpoint_that_fails_but_calls_itself_healthy_is_set_aside(tmp_path):
    """A server whose every generation fails is set aside although its health route says that all is well."""

    async def main():
        broken = chat(lambda body: web.Response(status=500))
        async with broken as bad, chat(lambda body: "答") as good, models(tmp_path, bad, good) as generator:
            await asyncio.gather(*(generator.ask("chat", ask_for(number), Asker()) for number in range(200)))
            assert endpoints(generator)[0]["set_aside"] >= 1
            assert endpoints(generator)[1]["answered"] == 200
            assert len(bad.asked) < 60

    asyncio.run(main())


def test_an_endpoint_that_comes_back_as_another_model_stays_out(tmp_path):
    """Behind a known address there must be the known model: another one is not taken back, and that is said."""
    said = []

    async def main():
        servers, status = (chat(lambda body: "答"), chat(lambda body: "答")), Status(say=said.append)
        async with servers[0] as one, servers[1] as two, models(tmp_path, one, two, status=status) as generator:
            one._model = "org/other"
            generator._pools[0].set_aside(generator._pools[0].members[0])
            generator._pools[0].members[0].news.set()  # its watcher, which calls `set_aside` otherwise, looks
            await until(lambda: any("org/other" in line and "not taken back" in line for line in said))
            await generator.ask("chat", ask_for(1), Asker())
            assert endpoints(generator)[0]["answered"] == 0

    asyncio.run(main())


def test_what_fails_is_asked_elsewhere(tmp_path):
    """A request that one endpoint could not answer goes to another one next, though the first has more room."""

    async def main():
        broken = chat(lambda body: web.Response(status=500))
        async with broken as bad, chat(lambda body: "答") as good, models(tmp_path, bad, good) as generator:
            for number in range(2):  # a third failure would be a reason to set it aside
                await generator.ask("chat", ask_for(number), Asker())
            return bad.asked, good.asked

    bad, good = asyncio.run(main())
    assert [body["messages"] for body in bad] == [body["messages"] for body in good] != []


def test_the_only_endpoint_that_is_left_is_asked_again(tmp_path):
    """Where there is no other, a request is sent to the endpoint that failed it."""
    said = [web.Response(status=500), "答"]

    async def main():
        async with chat(lambda body: said.pop(0)) as server, models(tmp_path, server) as generator:
            return (await generator.ask("chat", ask_for(1), Asker())).text

    assert asyncio.run(main()) == "答"


def test_earlier_rows_go_first(tmp_path):
    """Where requests wait for a place, those of rows that started earlier are sent first."""

    async def main():
        async with chat(lambda body: "答") as server, models(tmp_path, server, concurrency=1) as generator:
            asks = [generator.ask("chat", ask_for(order), Asker(order=order)) for order in (0, 5, 3, 4, 1, 2)]
            await asyncio.gather(*asks)
            return [body["messages"][0]["content"] for body in server.asked]

    assert asyncio.run(main()) == [f"第{order}篇" for order in range(6)]


def test_requests_are_sent_a_few_per_turn():
    """However many places become free, each turn of the event loop sends only a few requests: answers that come are
    read between them."""

    async def main():
        own = Pool("chat", [Script("答", 60, ModelInfo("m"))], Status(), concurrency=10)
        async with own:
            tasks = [asyncio.create_task(own.ask(ask_for(number), "label")) for number in range(100)]
            await asyncio.sleep(0)
            window, seen = own.members[0].window, [own.members[0].window.in_flight]
            window.fix(100)
            while seen[-1] < 100:
                await asyncio.sleep(0)
                seen.append(window.in_flight)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return seen

    seen = asyncio.run(main())
    assert seen[0] == 10
    assert max(after - before for before, after in pairwise(seen)) == 2


def test_a_cancelled_request_gives_its_place_back(tmp_path):
    """However many requests are cancelled, waiting or under way, no place is lost."""

    async def main(server):
        async with models(tmp_path, server, concurrency=4) as generator:
            for begin in range(0, 60, 20):
                tasks = [asyncio.create_task(generator.ask("chat", ask_for(begin + n), Asker())) for n in range(20)]
                await asyncio.sleep(0.01 * (begin // 20))
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            assert generator._pools[0].members[0].window.in_flight == 0
            await asyncio.gather(*(generator.ask("chat", ask_for(n), Asker()) for n in range(8)))

    with simulator(speed=50) as server:
        asyncio.run(main(server))


def test_the_window_finds_a_real_server(tmp_path):
    """Against a server of 32 slots over HTTP, the limit settles at twice the slots."""

    async def main(server):
        async with models(tmp_path, server) as generator:
            await rows(generator, range(150))
            return [limit for _, limit in endpoints(generator)[0]["window"]]

    with simulator(slots=32, speed=2) as server:
        limits = asyncio.run(main(server))
    assert limits[0] == 8
    assert 40 <= limits[-1] <= 160


def test_faults_cost_time_and_nothing_else(tmp_path):
    """With one request in ten failing in some way, every row ends, and every answer is asked for once."""

    async def main(server):
        async with models(tmp_path, server) as generator:
            await rows(generator, range(300))

    faults = Faults(http_429=0.03, http_503=0.02, disconnect=0.02, garbage=0.02, slow=0.01, retry_after=0.05)
    with simulator(slots=32, speed=20, faults=faults) as server:
        asyncio.run(main(server))
        counts = server.counts()
    assert counts["different"] == 900
    assert counts["repeated"] == 0
    assert set(counts["faults"]) == {"http_429", "http_503", "disconnect", "garbage", "slow"}
