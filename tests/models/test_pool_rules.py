"""What a pool does with places, answers and failures, rule by rule: servers here answer when they are told."""

from __future__ import annotations

import asyncio

import pytest
from served_models import until
from told_servers import Server, ask, pool, turns

from kun_builder.errors import RejectedError, TransientError
from kun_builder.models.budget import Spent
from kun_builder.models.member import FIRST_PROBE


def test_servers_that_tell_their_queue_are_found_at_the_start():
    """Each is asked once, but for one that is absent: it may take its time to come."""

    async def main():
        tells, silent, absent = Server("a", queue=0), Server("b"), Server("c", queue=0)
        own = pool(tells, silent, absent, absent={absent.url})
        async with own:
            assert [server.looks for server in (tells, silent, absent)] == [1, 1, 0]
            assert [one.window.limit for one in own.members] == [32, 8, 8]
            assert [one.aside for one in own.members] == [False, False, True]
            assert own.limit == 32 + 8

    asyncio.run(main())


@pytest.mark.parametrize(("running", "grows"), [(128, True), (0, False)])
def test_a_server_that_works_for_others_is_asked_for_a_share(running, grows):
    """A long queue is no reason to keep back where the server tells that most of its work is that of others."""

    async def main():
        async with pool(Server(queue=160, running=running)) as own:
            tasks = [ask(own, number) for number in range(100)]
            await until(lambda: (own.limit > 32) if grows else (own.limit < 8))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_an_answer_makes_up_for_failures():
    """Failures in a row are counted, and the third is a reason to look; an answer ends the row, and proves it again."""

    async def main():
        server = Server()
        async with pool(server, concurrency=9) as own:
            (one,) = own.members
            own._watchers[one].cancel()  # nobody else looks here
            one.proven, one.probe = False, 30.0
            for failures in (1, 2, 3):
                task = ask(own)
                await turns()
                one.news.clear()
                server.fail(TransientError("gone", status=500))
                with pytest.raises(TransientError):
                    await task
                assert (one.failures, one.failed, one.news.is_set()) == (failures, failures, failures == 3)
            task = ask(own)
            await turns()
            one.heard = 0.0
            server.answer()
            assert (await task).text == "答"
            assert (one.failures, one.failed, one.answered, one.proven, one.probe) == (0, 3, 1, True, FIRST_PROBE)
            assert one.heard > 0
            assert one.window.in_flight == 0

    asyncio.run(main())


def test_a_refusal_of_the_request_is_a_sign_of_life():
    """A server that says no to one request is not failing; it is counted, and ends a row of failures."""

    async def main():
        server = Server()
        async with pool(server) as own:
            (one,) = own.members
            one.failures = 2
            task = ask(own)
            await turns()
            server.fail(RejectedError("too long", status=413))
            with pytest.raises(RejectedError):
                await task
            assert (one.failures, one.failed, one.answered) == (0, 1, 0)

    asyncio.run(main())


@pytest.mark.parametrize(("status", "refused"), [(429, True), (503, True), (500, False), (502, False)])
def test_the_window_hears_which_failures_were_refusals(status, refused):
    """429 and 503 are too much at once, other failures are not."""

    async def main():
        server = Server()
        async with pool(server) as own:
            (one,), heard = own.members, []
            failed = one.window.failed
            one.window.failed = lambda **facts: heard.append(facts["refused"]) or failed(**facts)
            task = ask(own)
            await turns()
            server.fail(TransientError("no", status=status))
            with pytest.raises(TransientError):
                await task
            assert heard == [refused]

    asyncio.run(main())


def test_the_pace_follows_slowly():
    """The first answer sets the seconds for a token, each later one moves them by a twentieth of the difference."""

    async def main():
        server = Server()
        async with pool(server) as own:
            (one,), paces = own.members, iter([2.0, 4.0])
            one.window.answered = lambda *facts: next(paces)
            for pace in (2.0, 2.1):
                task = ask(own)
                await turns()
                server.answer()
                await task
                assert one.pace == pytest.approx(pace)

    asyncio.run(main())


def test_a_first_request_after_a_pause_wakes_the_watch():
    """Silence counts from the request that ended the pause, and only from that one."""

    async def main():
        server = Server()
        async with pool(server) as own:
            (one,) = own.members
            own._watchers[one].cancel()
            one.heard = 0.0
            first = ask(own)
            await turns()
            assert one.news.is_set()
            assert one.heard > 0
            one.news.clear()
            one.heard = 0.0
            second = ask(own)
            await turns()
            assert (one.news.is_set(), one.heard) == (False, 0.0)
            for _ in range(2):
                server.answer()
            await asyncio.gather(first, second)

    asyncio.run(main())


def test_a_budget_that_is_spent_sends_nothing():
    """The request ends as one that was not sent, and its place is free for another."""

    async def main():
        server = Server()
        async with pool(server, concurrency=1) as own:
            own.spent = lambda: True
            with pytest.raises(Spent):
                await ask(own)
            assert (server.waiting, own.members[0].window.in_flight) == ([], 0)
            own.spent = lambda: False
            task = ask(own)
            await turns()
            server.answer()
            await task

    asyncio.run(main())


def test_tokens_are_counted_by_the_first_that_can():
    """One that is set aside is asked last; where none can, the failure of the last one is raised."""

    async def main():
        servers = [Server(name) for name in "abc"]

        def broken(name):
            async def count_tokens(text):
                raise TransientError(f"{name} is broken")

            return count_tokens

        async with pool(*servers) as own:
            own.members[0].aside = True
            servers[1].count_tokens, servers[0].count_tokens = broken("b"), broken("a")
            assert await own.count_tokens("三个字") == 3
            servers[2].count_tokens = broken("c")
            with pytest.raises(TransientError, match="a is broken"):
                await own.count_tokens("三个字")

    asyncio.run(main())


@pytest.mark.parametrize("how", ["answered", "failed", "cancelled"])
def test_a_place_that_is_free_is_handed_on(how):
    """However a request ends, the one that waits goes out."""

    async def main():
        server = Server()
        async with pool(server, concurrency=1) as own:
            first, second = ask(own, 1), ask(own, 2)
            await turns()
            (sent,) = server.waiting
            if how == "answered":
                server.answer()
            elif how == "failed":
                server.fail(TransientError("no", status=500))
            else:
                first.cancel()
                server.waiting.remove(sent)
            await turns()
            assert first.done()
            server.answer()
            assert (await second).text == "答"
            await asyncio.gather(first, return_exceptions=True)

    asyncio.run(main())


def test_a_place_given_to_one_that_is_just_cancelled_is_not_lost():
    """Between the moment in which a request gets its place and the one in which it goes out, it may be cancelled."""

    async def main():
        server = Server()
        async with pool(server, concurrency=1) as own:
            first, second = ask(own, 1), ask(own, 2)
            await turns()
            place = own._queue[0][2]
            server.answer()
            while not place.done():  # noqa: ASYNC110  # each turn of the loop is looked at
                await asyncio.sleep(0)
            second.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert second.cancelled()
            assert (server.waiting, own.members[0].window.in_flight) == ([], 0)

    asyncio.run(main())


@pytest.mark.parametrize("linger", [0.0, 0.05])
def test_a_place_is_kept_for_the_row_that_was_answered(linger):
    """A server that wants it gets a row's next request before one that has waited meanwhile; others get that first."""

    async def main():
        server = Server()
        server.linger = linger
        async with pool(server, concurrency=1) as own:
            first, later = ask(own, order=1), ask(own, order=2)
            await turns()
            server.answer()
            await first
            again = ask(own, order=1)
            await until(lambda: server.waiting)
            server.answer()
            answered, _ = await asyncio.wait([again, later], return_when=asyncio.FIRST_COMPLETED)
            assert answered == {again if linger else later}
            await until(lambda: server.waiting)
            server.answer()
            await asyncio.gather(again, later)

    asyncio.run(main())
