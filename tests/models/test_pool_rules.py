"""What a pool does with each answer, failure and silence, rule by rule: servers here answer when they are told."""

from __future__ import annotations

import asyncio

import pytest
from serving import ask_for

from kun_builder.errors import RejectedError, RunError, TransientError
from kun_builder.models.budget import Spent
from kun_builder.models.member import FIRST_PROBE
from kun_builder.models.pool import Pool
from kun_builder.status import Status
from kun_builder.types import Completion


class Server:
    """An endpoint. Each request waits for `answer` or `fail`, in the order in which they came."""

    def __init__(self, name="a", queue=None):
        self.url, self._queue = f"http://{name}", queue
        self.waiting = []
        self.looks = 0

    async def complete(self, request):
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return await future

    async def queued(self):
        self.looks += 1
        return self._queue

    async def healthy(self):
        return True

    async def count_tokens(self, text):
        return len(text)

    def answer(self):
        self.waiting.pop(0).set_result(Completion("答", prompt_tokens=5, completion_tokens=10))

    def fail(self, error):
        self.waiting.pop(0).set_exception(error)


async def turns(count=20):
    """Let everything happen that happens without waiting."""
    for _ in range(count):
        await asyncio.sleep(0)


def pool(*servers, said=None, **settings):
    return Pool("chat", servers, Status(say=(said if said is not None else []).append), **settings)


def ask(own, number=1, **where):
    return asyncio.create_task(own.ask(ask_for(number), "label", **where))


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
            own.set_aside(one)
            own.set_aside(one)
            waits = "model `chat`: http://first does not answer; waiting up to 0.2 s for it"
            assert said == [waits]
            waiting, loop = [ask(own, number) for number in range(3)], asyncio.get_running_loop()
            began = loop.time()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert loop.time() - began > 0.15
            assert [str(error) for error in found] == [
                "model `chat`: no endpoint has answered for 0.2 s: http://first"
            ] * 3
            assert all(isinstance(error, RunError) and "goes on" in error.hint for error in found)
            with pytest.raises(RunError):
                await ask(own)
            second = Server("second")
            await own.add(second)
            task = ask(own)
            await turns()
            second.answer()
            await task

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
            await turns()
            server.answer()
            await waiting
            assert own._deadline is None
            later = ask(own)
            await asyncio.sleep(0.15)
            server.answer()
            await later

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
