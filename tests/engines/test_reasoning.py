"""Reasoning models, as servers really answer for them: what was thought never reaches a row."""

import asyncio
import logging

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from servers.loopback import loopback

from kun_builder import ModelSpec, Request
from kun_builder.engines import openai
from kun_builder.engines.answers import openai_answer
from kun_builder.engines.reasoning import split_reasoning

THOUGHT = "用户问茶叶，我先想一想。"
ANSWER = "茶叶要放在阴凉干燥的地方。"
CHAT = ({"role": "user", "content": "茶叶怎么保存？"},)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}",
        f"{THOUGHT}\n</think>\n{ANSWER}",
        f"<think>\n\n</think>\n\n{ANSWER}",
        f"<thinking>{THOUGHT}</thinking>{ANSWER}",
        f"[THINK]{THOUGHT}[/THINK]{ANSWER}",
        f"<seed:think>{THOUGHT}</seed:think>{ANSWER}",
        f"◁think▷{THOUGHT}◁/think▷{ANSWER}",
        f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|>\n<|begin_of_solution|>{ANSWER}<|end_of_solution|>",
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
        ANSWER,
    ],
)
def test_the_answer_stands_behind_the_thinking(text):
    """In every form that model families write, with both tags, the end tag only, or channels."""
    assert split_reasoning(text)[0] == ANSWER
    assert THOUGHT not in openai_answer({"choices": [{"message": {"content": text}}]}, "http://x").text


@pytest.mark.parametrize("text", [f"<think>\n{THOUGHT}", f"<|channel|>analysis<|message|>{THOUGHT}"])
def test_thinking_that_does_not_end_is_no_answer(text):
    """What was cut off while it thought leaves nothing."""
    assert split_reasoning(text)[0] == ""


@given(st.text(), st.text())
def test_nothing_is_lost_or_doubled_without_tags(thought, answer):
    """A text without a tag is the answer whole; between tags, the two parts are told apart."""
    plain = (thought + answer).replace("<", "").replace("[", "").replace("◁", "")
    assert split_reasoning(plain) == (plain, "")
    clean = [part.replace("<", "").replace("[", "").replace("◁", "") for part in (thought, answer)]
    assert split_reasoning(f"<think>{clean[0]}</think>{clean[1]}") == (clean[1].strip(), clean[0].strip())


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_beside_the_answer_is_counted_apart(field):
    """In a field of its own it is counted by what the server tells, and estimated where it does not."""
    message = {"content": ANSWER, field: THOUGHT}
    usage = {"prompt_tokens": 9, "completion_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 25}}
    told = openai_answer({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}, "http://x")
    assert (told.text, told.completion_tokens, told.reasoning_tokens) == (ANSWER, 40, 25)
    del usage["completion_tokens_details"]
    guessed = openai_answer({"choices": [{"message": message}], "usage": usage}, "http://x")
    assert 0 < guessed.reasoning_tokens < 40


def test_an_answer_taken_for_reasoning_counts_only_where_thinking_is_off():
    """With thinking on it may be a thought; it is not published by guess."""
    body = {"choices": [{"message": {"content": None, "reasoning_content": ANSWER}, "finish_reason": "stop"}]}
    assert openai_answer(body, "http://x").finish_reason == "reasoning without an answer"
    assert openai_answer(body, "http://x", reasoning_is_answer=True).text == ANSWER


class Thinker:
    """A server whose model thinks, unless it is told in the way of its template not to."""

    def __init__(self, switch="chat_template_kwargs"):
        self.switch, self.bodies = switch, []

    async def __call__(self, request):
        if request.method == "GET":
            return web.json_response({"data": [{"id": "thinker", "max_model_len": 4096}]})
        body = await request.json()
        self.bodies.append(body)
        if body.keys() & {"chat_template_kwargs", "reasoning_effort", "think"} - {self.switch}:
            return web.json_response({"error": {"message": "unknown field"}}, status=400)
        off = self.switch in body
        room = body["max_tokens"] >= 20
        text = (
            ANSWER
            if off
            else f"<think>{THOUGHT}</think>{ANSWER}"
            if room
            else f"<think>{THOUGHT}"[: body["max_tokens"]]
        )
        first = {"token": "茶" if off else "<think>", "logprob": -0.01, "top_logprobs": []}
        choice = {"message": {"content": text}, "finish_reason": "stop" if off or room else "length"}
        return web.json_response({"choices": [{**choice, "logprobs": {"content": [first]}}]})


def ask(server, **options):
    """The answer to a question with room for ten tokens, and who was met."""

    async def inner():
        async with (
            loopback(server) as url,
            openai.connect(ModelSpec(name="m", endpoints=(url,)), **options) as (endpoint,),
        ):
            about = await endpoint.info()
            return await endpoint.complete(Request(CHAT, max_new_tokens=10)), about

    return asyncio.run(inner())


def test_a_thinking_model_is_noticed_and_gets_room(caplog):
    """The start says in a line that the model thinks; its answers get room for it, and come without it."""
    server = Thinker()
    with caplog.at_level(logging.WARNING):
        answer, about = ask(server)
    assert answer.text == ANSWER
    assert about.variant == ""
    assert server.bodies[-1]["max_tokens"] == 10 + 2048
    assert any("thinks before it answers" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("switch", ["chat_template_kwargs", "reasoning_effort", "think"])
def test_thinking_is_switched_off_in_the_way_that_the_server_takes(switch):
    """The forms are tried one after the other at the start; the answers are kept apart from those with thinking."""
    server = Thinker(switch)
    answer, about = ask(server, thinking="off")
    assert answer.text == ANSWER
    assert switch in server.bodies[-1]
    assert server.bodies[-1]["max_tokens"] == 10
    assert about.variant


def test_further_fields_go_along_and_are_part_of_who_answers():
    """`extra_body` is in every request; another one is another variant of the model."""
    server = Thinker()
    _, about = ask(server, extra_body={"top_k": 20})
    assert all(body["top_k"] == 20 for body in server.bodies)
    assert about.variant != ask(Thinker(), extra_body={"top_k": 40})[1].variant != ""
