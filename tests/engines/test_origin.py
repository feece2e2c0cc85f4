"""Whose answers are whose: two servers that call their models the same, and one whose state changes."""

import asyncio

import pytest
from aiohttp import web
from served_models import ask_for, models
from servers.loopback import loopback
from servers.scripted_chat import chat

from kun_builder.models.generator import Asker
from kun_builder.status import Status

USAGE = {"prompt_tokens": 1, "completion_tokens": 1}


def run(work):
    return asyncio.run(work)


async def told(folder, *servers, said=None, **settings):
    """What a model at `servers` answers to the same request."""
    status = Status()
    if said is not None:
        status.say = said.append
    async with models(folder, *servers, status=status, **settings) as generator:
        return (await generator.ask("chat", ask_for(1), Asker())).text


def test_an_answer_of_one_server_is_not_served_for_another(tmp_path):
    """Without a revision the address is part of the key, and that is said with its cure; the same server is reused."""

    async def work():
        said = []
        async with chat(lambda body: "甲") as one, chat(lambda body: "乙") as other:
            texts = [await told(tmp_path, server, said=said) for server in (one, other, one)]
            return texts, len(one.asked), len(other.asked), said

    texts, first, second, said = run(work())
    assert texts == ["甲", "乙", "甲"]
    assert (first, second) == (1, 1)
    assert any("revision:" in line for line in said)


def test_a_revision_of_the_users_own_keeps_answers_across_addresses(tmp_path):
    """`revision:` in the recipe says that it is the same model, wherever it is served; another one is another model."""

    async def work():
        said = []
        async with chat(lambda body: "甲") as one, chat(lambda body: "乙") as other:
            texts = [await told(tmp_path, server, revision="r1", said=said) for server in (one, other)]
            return [*texts, await told(tmp_path, other, revision="r2")], said

    texts, said = run(work())
    assert texts == ["甲", "甲", "乙"]
    assert not said


def test_a_second_endpoint_of_a_model_keeps_what_the_first_has_answered(tmp_path):
    """Endpoints of one model are declared to be the same: what any of them has answered is not asked again."""

    async def work():
        async with chat(lambda body: "甲") as one, chat(lambda body: "乙") as other:
            await told(tmp_path, one)
            return [await told(tmp_path, *servers) for servers in ((one, other), (other, one))]

    assert run(work()) == ["甲", "甲"]


@pytest.mark.parametrize(("later", "said"), [("fp_2", ["was fp_1 and is fp_2 now"]), ("fp_1", [])])
def test_a_server_that_has_changed_since_the_last_run_is_named(tmp_path, later, said):
    """Its fingerprint is remembered beside the answers, and another one is said, without asking anything anew."""
    now = {"fingerprint": "fp_1"}

    async def handler(request):
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m"}]})
        choice = {"message": {"content": "好"}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": USAGE, "system_fingerprint": now["fingerprint"]})

    async def work():
        lines = []
        async with loopback(handler) as url:
            server = type("Server", (), {"url": url})
            await told(tmp_path, server)
            now["fingerprint"] = later
            await told(tmp_path, server, said=lines)
        return [line for line in lines if "fp_" in line]

    lines = run(work())
    assert len(lines) == len(said)
    assert all(what in line for what, line in zip(said, lines, strict=True))


def test_a_server_that_changes_during_a_run_is_named_once(tmp_path, caplog):
    """A fingerprint that alternates is worth one warning, not one for each answer."""
    served = iter(range(100))

    async def handler(request):
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m"}]})
        choice = {"message": {"content": "好"}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": USAGE, "system_fingerprint": f"fp_{next(served) % 2}"})

    async def work():
        async with loopback(handler) as url, models(tmp_path, type("S", (), {"url": url})) as generator:
            for number in range(6):
                await generator.ask("chat", ask_for(number), Asker())

    run(work())
    assert sum("fp_1" in record.getMessage() for record in caplog.records) == 1
