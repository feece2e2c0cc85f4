"""Answers that are cut off, empty or none at all."""

from __future__ import annotations

import pytest
from aiohttp import web
from served_models import ask_for, models, run
from servers.scripted_chat import chat

from kun_builder.errors import Drop
from kun_builder.models.generator import Asker


def truncated(body):
    """An answer that is cut off below 100 tokens."""
    reason = "length" if body["max_tokens"] < 100 else "stop"
    return {"message": {"content": f"{body['max_tokens']}"}, "finish_reason": reason}


def test_truncated_answers_follow_the_rule(tmp_path):
    """`retry` asks once more with twice the tokens and then drops, `drop` drops, `keep` keeps; all are counted but
    those whose single token was meant to be the answer."""

    async def main():
        async with chat(truncated) as server, models(tmp_path, server) as generator:
            assert (await generator.ask("chat", ask_for(1, max_new_tokens=60), Asker("a"))).text == "120"
            with pytest.raises(Drop, match="truncated"):
                await generator.ask("chat", ask_for(4, max_new_tokens=30), Asker("a"))
            with pytest.raises(Drop, match="truncated"):
                await generator.ask("chat", ask_for(2, max_new_tokens=40, on_length="drop"), Asker("a"))
            kept = await generator.ask("chat", ask_for(3, max_new_tokens=50, on_length="keep"), Asker("a"))
            assert (kept.text, kept.finish_reason) == ("50", "length")
            assert [body["max_tokens"] for body in server.asked] == [60, 120, 30, 60, 40, 50]
            assert generator.usage["a", "chat"].truncated == 4
            await generator.ask("chat", ask_for(5, max_new_tokens=1, on_length="keep"), Asker("one token"))
            assert generator.usage["one token", "chat"].truncated == 0

    run(main)


def test_a_retry_that_does_not_fit_is_a_drop(tmp_path):
    """Where the server refuses twice the tokens, the row is dropped as truncated, not quarantined."""

    def say(body):
        return web.Response(status=400) if body["max_tokens"] > 100 else truncated(body)

    async def main():
        async with chat(say) as server, models(tmp_path, server) as generator:
            with pytest.raises(Drop, match="truncated"):
                await generator.ask("chat", ask_for(1, max_new_tokens=60), Asker())

    run(main)


def test_empty_answers_follow_the_rule(tmp_path):
    """An empty answer is asked again with another seed, and not greedily, since the same would come back."""

    async def main():
        async with (
            chat(lambda body: "答" if body.get("seed") else "  ") as server,
            models(tmp_path, server) as generator,
        ):
            assert (await generator.ask("chat", ask_for(1), Asker("a"))).text == "答"
            assert server.asked[1]["seed"] == 1
            assert server.asked[1]["temperature"] > 0
            with pytest.raises(Drop, match="empty"):
                await generator.ask("chat", ask_for(1, on_empty="drop"), Asker("a"))
            assert (await generator.ask("chat", ask_for(1, on_empty="keep"), Asker("a"))).text.strip() == ""
            assert len(server.asked) == 2
            assert generator.usage["a", "chat"].empty == 3

    run(main)


@pytest.mark.parametrize(
    ("text", "finish", "reason"), [("半句", "content_filter", "unfinished"), ("\ufffd", "stop", "garbled")]
)
def test_a_second_answer_is_looked_at_as_the_first(tmp_path, text, finish, reason):
    """What comes instead of an empty answer must be whole, too."""

    def say(body):
        return {
            "message": {"content": text if body.get("seed") else ""},
            "finish_reason": finish if body.get("seed") else "stop",
        }

    async def main():
        async with chat(say) as server, models(tmp_path, server) as generator:
            with pytest.raises(Drop, match=reason):
                await generator.ask("chat", ask_for(1), Asker())
            assert len(server.asked) == 2

    run(main)


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [("第二步要按照顺序去", "content_filter", "unfinished"), ("茶叶\ufffd放好。", "stop", "garbled")],
)
def test_an_answer_that_is_none_is_dropped_with_its_own_reason(tmp_path, text, finish, reason):
    """Half a sentence that a filter ended, or bytes that were no text, never go on; asked again, they cost nothing."""

    def say(body):
        choice = {"message": {"content": text}, "finish_reason": finish}
        return web.json_response({"choices": [choice], "usage": {}})

    async def main():
        async with chat(say) as server, models(tmp_path, server) as generator:
            for _ in range(2):
                with pytest.raises(Drop) as caught:
                    await generator.ask("chat", ask_for(1), Asker("polish"))
                assert caught.value.reason == reason
            assert len(server.asked) == 1

    run(main)
