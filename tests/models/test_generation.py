"""Asking models: nothing twice, nothing lost, failures by their kind."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import fields
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from aiohttp import web
from served_models import ask_for, models, run
from servers.scripted_chat import chat

from kun_builder.errors import FatalError, ModelError, RejectedError, TransientError
from kun_builder.models import attempts, connect
from kun_builder.models.attempts import ATTEMPTS
from kun_builder.models.generator import Asker
from kun_builder.report import Tally, Usage
from kun_builder.status import Status


def test_the_same_request_is_asked_once(tmp_path):
    """Twenty rows that ask the same at the same time cost one request; so does a later run."""

    async def main():
        status = Status()
        async with chat(lambda body: "答") as server:
            async with models(tmp_path, server, status=status) as generator:
                answers = await asyncio.gather(*(generator.ask("chat", ask_for(1), Asker("label")) for _ in range(20)))
                assert {answer.text for answer in answers} == {"答"}
                assert sorted(answer.cached for answer in answers) == [False] + [True] * 19
            async with models(tmp_path, server, status=status) as generator:
                again = await generator.ask("chat", ask_for(1), Asker("label"))
                assert (again.text, again.cached, again.key) == ("答", True, answers[0].key)
            assert len(server.asked) == 1
        assert (status.requests, status.reused, status.in_flight) == (1, 20, 0)
        assert (status.prompt_tokens, status.completion_tokens) == (7, 3)

    run(main)


def test_when_the_one_who_asks_is_cancelled_the_next_asks(tmp_path):
    """Rows that wait for another row's request are not lost with it."""

    async def main():
        async with chat(lambda body: "答") as server, models(tmp_path, server) as generator:
            rows = [asyncio.create_task(generator.ask("chat", ask_for(1), Asker())) for _ in range(3)]
            await asyncio.sleep(0)
            rows[0].cancel()
            first, *others = await asyncio.gather(*rows, return_exceptions=True)
            assert isinstance(first, asyncio.CancelledError)
            assert [other.text for other in others] == ["答", "答"]

    run(main)


def test_an_answer_is_on_disk_before_its_row_goes_on(tmp_path, monkeypatch):
    """When the disk is slow, the row waits for it, and the endpoint is free for others meanwhile."""
    synced, asked, all_asked = [], [], threading.Event()

    def slow(fd):
        assert all_asked.wait(60)
        synced.append(time.monotonic())

    def say(body):
        asked.append(body)
        if len(asked) == 3:
            all_asked.set()
        return "答"

    monkeypatch.setattr("kun_builder.models.journal.commit.os.fdatasync", slow)

    async def main():
        async with chat(say) as server, models(tmp_path, server, concurrency=1) as generator:

            async def row(number):
                await generator.ask("chat", ask_for(number), Asker())
                return time.monotonic()

            ends = await asyncio.gather(row(1), row(2), row(3))
            assert min(ends) >= synced[0]
            assert len(synced) < 3  # one after the other they would take three syncs

    run(main)


@pytest.mark.parametrize("status", [429, 424, 500, 502, 503, 200])
def test_transient_failures_are_tried_again(tmp_path, status):
    """429, 424, 5xx and an answer that is none are asked again until there is an answer."""
    failures = []

    def say(body):
        if len(failures) < 2:
            failures.append(body)
            return web.Response(status=status, text="{", headers={"Retry-After": "0.05"})
        return "答"

    async def main():
        live = Status()
        async with chat(say) as server, models(tmp_path, server, status=live) as generator:
            assert (await generator.ask("chat", ask_for(1), Asker())).text == "答"
        assert (live.retries, live.requests) == (2, 1)

    run(main)


def test_a_broken_connection_is_tried_again(tmp_path):
    """A server that hangs up in the middle is asked again."""

    async def main():
        hung_up = []

        async def handle(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/v1/models" in head or b"/health" in head:
                body = b'{"data": [{"id": "m", "owned_by": "test"}]}'
            else:
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                asked = await reader.readexactly(length)
                if b"Say yes." not in asked and len(hung_up) < 2:
                    hung_up.append(asked)
                    writer.close()
                    return
                body = b'{"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}'
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, models(tmp_path, SimpleNamespace(url=url)) as generator:
            assert (await generator.ask("chat", ask_for(1), Asker())).text == "ok"
        assert len(hung_up) == 2

    run(main)


def test_a_retry_waits_outside_of_its_slot(tmp_path, monkeypatch):
    """With one request at a time, a row that was told to wait, however long, does not keep the next one waiting."""
    told = []

    def say(body):
        if "第1篇" in body["messages"][0]["content"]:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return "答"

    async def main():
        async with chat(say) as server, models(tmp_path, server, concurrency=1) as generator:
            window = generator._pools[0].members[0].window
            monkeypatch.setattr(
                "kun_builder.models.generator.pause", lambda *asked: told.append((*asked, window.in_flight)) or 3600.0
            )
            first = asyncio.create_task(generator.ask("chat", ask_for(1), Asker(order=1)))
            await asyncio.sleep(0)
            async with asyncio.timeout(60):
                await generator.ask("chat", ask_for(2), Asker(order=2))
            assert not first.done()
            assert [body["messages"] for body in server.asked] == [list(ask_for(number).prompt) for number in (1, 2)]
            first.cancel()

    run(main)
    assert told == [(1, 1.0, 0)]
    assert all(1.0 <= attempts.pause(failed, 1.0) <= 1.5 for failed in range(ATTEMPTS))  # Retry-After is kept


def test_the_budget_is_the_rows_own_and_tells_every_attempt(tmp_path):
    """A row whose requests fail too often, over all stages, is given up; the error tells all statuses and endpoints."""

    def say(body):
        return web.Response(status=429, headers={"Retry-After": "0.01"})

    async def main():
        async with chat(say) as server, models(tmp_path, server) as generator:
            asker = Asker(failures=["503 from http://elsewhere"] * 4)
            with pytest.raises(RejectedError) as caught:
                await generator.ask("chat", ask_for(1), asker)
            assert len(server.asked) == ATTEMPTS - 4
            assert f"429 from {server.url} (6 times)" in str(caught.value)
            assert "503 from http://elsewhere (4 times)" in str(caught.value)

    run(main)


@pytest.mark.parametrize(
    ("status", "error"), [(400, RejectedError), (422, RejectedError), (401, FatalError), (404, FatalError)]
)
def test_other_refusals_are_not_tried_again(tmp_path, status, error):
    """400 and 422 cost the row, 401 and 404 the run; all who wait for the same request learn of it."""

    async def main():
        async with chat(lambda body: web.Response(status=status)) as server, models(tmp_path, server) as generator:
            rows = [generator.ask("chat", ask_for(1), Asker()) for _ in range(3)]
            errors = await asyncio.gather(*rows, return_exceptions=True)
            assert all(isinstance(one, error) for one in errors)
            assert len(server.asked) <= 2  # the engine may ask once more to find out whether a field is to blame

    run(main)


@pytest.mark.parametrize("status", [403, 451])
def test_a_forbidden_text_costs_its_row_and_a_forbidden_key_the_run(tmp_path, status):
    """A firewall that forbids one text among others that are answered ends no run; as soon as nothing else comes, or
    before anything did, it is the key that is refused."""
    closed = [True]

    def say(body):
        forbidden = closed[0] or "13" in str(body["messages"])
        return web.json_response({"error": "no"}, status=status) if forbidden else "答"

    async def main():
        async with chat(say) as server, models(tmp_path, server) as generator:
            with pytest.raises(FatalError, match=str(status)):
                await generator.ask("chat", ask_for(1), Asker())
            closed[0] = False
            for number in (2, 13, 3, 13, 4):
                answer = generator.ask("chat", ask_for(number), Asker())
                if number == 13:
                    with pytest.raises(RejectedError, match=str(status)):
                        await answer
                else:
                    assert (await answer).text == "答"
            closed[0] = True
            errors = [
                await asyncio.gather(generator.ask("chat", ask_for(n), Asker()), return_exceptions=True)
                for n in range(5, 15)
            ]
            assert [type(error) for (error,) in errors] == 8 * [RejectedError] + 2 * [FatalError]

    run(main)


def test_usage_is_counted_by_stage_and_model(tmp_path):
    """Requests, reused answers and tokens, of which cached ones, are counted where they arose."""

    async def main():
        async with chat(lambda body: "答") as server, models(tmp_path, server, names=("one", "two")) as generator:
            for model, stage, number in [("one", "a", 1), ("one", "b", 2), ("two", "b", 2), ("two", "b", 3)]:
                await generator.ask(model, ask_for(number), Asker(stage))
            report = {(one["stage"], one["model"]): one for one in generator.report()["usage"]}
            assert (
                report["a", "one"]["requests"] == report["b", "one"]["requests"] == report["b", "two"]["requests"] == 1
            )
            assert report["b", "two"]["reused"] == 1  # both names are the same model
            tokens = ("prompt_tokens", "cached_prompt_tokens", "completion_tokens")
            assert [report["b", "two"][name] for name in tokens] == [7, 2, 3]

    run(main)


def test_models_of_the_same_connection_share_it(tmp_path):
    """Two names for the same endpoints have one window between them; another setting makes it another model."""

    async def main():
        async with chat(lambda body: "答") as server, models(tmp_path, server, names=("one", "two")) as generator:
            assert generator._models["one"] is generator._models["two"]

    run(main)


def test_endpoints_of_a_name_must_agree(tmp_path):
    """Endpoints that serve different models are named with what they serve."""

    async def main():
        async with chat(lambda body: "a", "org/one") as one, chat(lambda body: "b", "org/two") as two:
            with pytest.raises(ModelError) as caught:
                async with models(tmp_path, one, two):
                    pass
            for part in (one.url, "org/one", two.url, "org/two"):
                assert part in str(caught.value)

    run(main)


def test_nobody_there_is_said_soon(tmp_path, monkeypatch):
    """A model that no server answers for is an error with its addresses, after seconds, not after `wait`."""
    monkeypatch.setattr(connect, "_ABSENT", 0.2)

    async def main():
        began = time.monotonic()
        with pytest.raises(ModelError, match=r"127\.0\.0\.1:9"):
            async with models(tmp_path, SimpleNamespace(url="http://127.0.0.1:9")):
                pass
        assert time.monotonic() - began < 5

    run(main)


def test_a_server_that_is_starting_is_waited_for(tmp_path):
    """A server that answers 503 while it loads is waited for, with a message."""

    async def main():
        said = []
        async with chat(lambda body: "答") as server:
            server.loading = 2
            async with models(tmp_path, server, status=Status(say=said.append)) as generator:
                assert generator.info("chat").id == "org/model"
        assert "503" in said[0]

    run(main)


def test_other_kinds_of_endpoints(tmp_path):
    """An address that begins with an engine's name is connected by that engine; an unknown one is named."""

    async def main():
        async with chat(lambda body: "答") as one, chat(lambda body: "答") as two:
            mixed = [SimpleNamespace(url=one.url), SimpleNamespace(url=f"openai+{two.url}")]
            async with models(tmp_path, *mixed) as generator:
                await asyncio.gather(*(generator.ask("chat", ask_for(number), Asker()) for number in range(16)))
                assert one.asked
                assert two.asked
            with pytest.raises(ModelError, match="no engine `nobody`"):
                async with models(tmp_path, SimpleNamespace(url=f"nobody+{one.url}")):
                    pass

    run(main)


def test_capacity_follows_the_windows(tmp_path):
    """Half as many rows again as requests fit into the windows are worth keeping under way, and growth is told."""

    async def main():
        async with chat(lambda body: "答") as server, models(tmp_path, server, concurrency=300) as generator:
            assert generator.capacity == 450
        async with chat(lambda body: "答") as server, models(tmp_path, server) as generator:
            assert generator.capacity == 64
            told = []
            generator.on_growth = lambda: told.append(generator.capacity)
            generator._pools[0].members[0].window._set(100)
            assert told == [150]

    run(main)


def test_a_pause_beyond_all_patience_ends_the_run_with_the_servers_words(tmp_path):
    """A quota of the day is not waited for in silence: the error says until when, and what the server said."""

    def say(body):
        error = {"error": {"message": "quota of today is used up"}}
        return web.json_response(error, status=429, headers={"Retry-After": "86400"})

    async def main():
        async with chat(say) as server, models(tmp_path, server) as generator:
            with pytest.raises(FatalError, match=r"come back in 1 day.*quota of today") as caught:
                await generator.ask("chat", ask_for(1), Asker())
            assert "goes on where it stopped" in caught.value.hint
            assert len(server.asked) == 1

    run(main)


def test_a_count_of_rows_fits_the_report():
    """Every figure that rows count has its place in the report's usage."""
    reported = {one.name for one in fields(Usage)} - {"stage", "model", "cost", "reasoning_cost"}
    assert {one.name for one in fields(Tally)} == reported


def test_counting_tokens_waits_no_longer_than_the_recipe_allows(tmp_path):
    """A tokenizer route that asks to come back tomorrow ends the run with the time, and does not stall it."""

    async def main():
        async with chat(lambda body: "答") as server, models(tmp_path, server, wait=60) as generator:
            pool = generator._models["chat"].pool
            late = TransientError("quota", status=429, endpoint=server.url, retry_after=86400)
            pool.members[0].endpoint.count_tokens = AsyncMock(side_effect=late)
            with pytest.raises(FatalError, match="1 day"):
                await generator.count_tokens("chat", "茶")

    run(main)
