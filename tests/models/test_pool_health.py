"""What a pool does with endpoints that say nothing, go, come back or leave: servers here answer when they are told."""

from __future__ import annotations

import asyncio

import pytest
from told_servers import Server, ask, pool, turns

from kun_builder.errors import RunError, TransientError


def test_one_that_says_nothing_is_doubted_once():
    """It keeps its requests and gets no more, which is said once; when it talks, waiting requests go out."""

    async def main():
        server, said, changes = Server(), [], []
        async with pool(server, said=said, concurrency=2) as own:
            (one,) = own.members
            tasks = [ask(own)]
            await turns()
            own.on_change = lambda: changes.append(own.limit)
            own.doubt(one, True)
            own.doubt(one, True)
            assert said == ["model `chat`: http://a says nothing; it gets no more than its 1 requests"]
            assert changes == [0]
            tasks.append(ask(own))
            await turns()
            assert len(server.waiting) == 1
            server.answer()  # a word
            await turns()
            assert len(server.waiting) == 1
            assert changes == [0, 2]
            server.answer()
            await asyncio.gather(*tasks)

    asyncio.run(main())


def test_what_one_worked_on_fails_for_a_retry_when_it_is_set_aside():
    """Its requests end as failures that are tried again; cancelling one from outside stays a cancelling."""

    async def main():
        gone, other, said = Server("gone"), Server("other"), []
        async with pool(gone, other, said=said) as own:
            one = own.members[0]
            own._watchers[one].cancel()
            lost, cancelled = ask(own, avoid=other.url), ask(own, avoid=other.url)
            await turns()
            cancelled.cancel()
            await turns()
            assert cancelled.cancelled()
            one.proven = True
            own.set_aside(one)
            with pytest.raises(TransientError, match="http://gone was set aside meanwhile") as caught:
                await lost
            assert caught.value.endpoint == gone.url
            assert (one.aside, one.proven, one.doubted, one.set_aside) == (True, False, False, 1)
            assert said == ["model `chat`: http://gone does not answer; the other 1 take over until it is back"]
            assert (one.window.in_flight, one.tasks, one.lost) == (0, set(), set())
            assert own._deadline is None
            assert own._status.in_flight == 0

    asyncio.run(main())


def test_when_none_is_left_requests_wait_and_then_end():
    """All that wait get the error after the time, and so does what comes later, until an endpoint is there again."""

    async def main():
        first, said = Server("first"), []
        async with pool(first, said=said, wait=0.2) as own:
            (one,) = own.members
            own._watchers[one].cancel()
            waits = "model `chat`: http://first does not answer; waiting up to 0.2 s for it"
            for _ in range(2):  # it is said once
                own.set_aside(one)
                assert said == [waits]
            waiting, loop = [ask(own, number) for number in range(3)], asyncio.get_running_loop()
            began = loop.time()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert loop.time() - began > 0.15
            assert [str(error) for error in found] == [
                "model `chat`: no endpoint has answered for 0.2 s: http://first"
            ] * 3
            assert all(isinstance(error, RunError) and error.hint.startswith("start a server, then") for error in found)
            with pytest.raises(RunError):
                await ask(own)
            second = Server("second")
            await own.add(second)
            task = ask(own)
            await turns()
            second.answer()
            await task

    asyncio.run(main())


def test_what_a_server_says_to_every_request_is_told():
    """One that refuses all is there and says why, such as a limit of the day: its words end the waiting."""

    async def main():
        said = []
        async with pool(Server("first"), said=said, wait=0.1) as own:
            (one,) = own.members
            own._watchers[one].cancel()
            own._start(one)
            own._failed(one, TransientError("http://first answered 429: 50 a day", status=429), 0.0)
            own.set_aside(one)
            assert said == ["model `chat`: http://first answers 429 to every request; waiting up to 0.1 s for it"]
            last = "http://first; the last time: http://first answered 429: 50 a day"
            with pytest.raises(RunError, match=last) as caught:
                await ask(own, 1)
            assert caught.value.hint.startswith("wait until the server takes requests again")

    asyncio.run(main())


def test_an_answer_ends_the_waiting():
    """Where none is left but one answers after all, nothing ends; an endpoint that is back gets what waits."""

    async def main():
        server, said = Server(), []
        async with pool(server, said=said, wait=0.1) as own:
            (one,) = own.members
            own._watchers[one].cancel()
            own.set_aside(one)
            waiting = ask(own)
            await turns()
            assert await own.take_back(one)
            assert said[-1] == "model `chat`: http://a is back"
            await asyncio.sleep(0.15)  # it is there, and may take its time
            deadline = own._deadline
            server.answer()
            await waiting
            assert deadline.cancelled()  # it must not end the waiting of a later outage
            assert own._deadline is None
            later = ask(own)
            await asyncio.sleep(0.15)
            server.answer()
            await later

    asyncio.run(main())


def test_one_that_leaves_ends_its_work_first():
    """It gets nothing more, what it works on is answered, and its figures stay in the report."""

    async def main():
        leaving, staying = Server("leaving"), Server("staying")
        async with pool(leaving, staying) as own:
            one = own.members[0]
            task = ask(own, avoid=staying.url)
            await turns()
            going = asyncio.create_task(own.remove(one))
            await turns()
            other = ask(own, avoid=staying.url)
            await turns()
            assert (len(leaving.waiting), len(staying.waiting), going.done()) == (1, 1, False)
            leaving.answer()
            staying.answer()
            await asyncio.gather(task, other, going)
            assert [member.url for member in own.members] == [staying.url]
            assert own._deadline is None
            assert [(report.url, report.answered) for report in own.report()] == [(leaving.url, 1), (staying.url, 1)]

    asyncio.run(main())


def test_one_that_serves_something_else_stays_out():
    """Before an endpoint is taken back it is looked at; what is wrong is said, and it gets nothing."""

    async def check(endpoint):
        raise RunError(f"{endpoint.url} serves org/other")

    async def main():
        server, said = Server(), []
        async with pool(server, said=said, check=check) as own:
            (one,) = own.members
            own._watchers[one].cancel()
            own.set_aside(one)
            assert not await own.take_back(one)
            assert one.aside
            assert said[-1] == "http://a serves org/other: not taken back"

    asyncio.run(main())


def test_a_pool_that_is_closed_leaves_nothing_behind():
    """Whatever it waited for, no timer of it goes on."""

    async def main():
        server = Server()
        async with pool(server) as own:
            (one,) = own.members
            own.set_aside(one)
            deadline, watcher = own._deadline, own._watchers[one]
        assert deadline.cancelled()
        assert watcher.cancelled()

    asyncio.run(main())
