"""Reasoning models, as servers really answer for them: what was thought never reaches a row."""

import logging

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from thoughts import ANSWER, THOUGHT, ask, logprobs

from kun_builder.engines.answers import openai_answer, tgi_answer
from kun_builder.engines.reasoning import split_reasoning


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
        f"<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>{ANSWER}<|END_RESPONSE|>",
        f"<think>{THOUGHT}</think>\n<answer>\n{ANSWER}\n</answer>",
        f"<reasoning>{THOUGHT}</reasoning>{ANSWER}",
        f"<thought>{THOUGHT}</thought>{ANSWER}",
        f"<|channel>thought\n{THOUGHT}<channel|>{ANSWER}",
        f"Here is my thought process: {THOUGHT} Here is my response: {ANSWER}",
        f"好的。<think>{THOUGHT}</think>{ANSWER}",
        f"<think>{THOUGHT}</think>{THOUGHT}</think>{ANSWER}",
        f"<think>{THOUGHT}</think>\n<think>{THOUGHT}</think>\n{ANSWER}",
        f"analysis{THOUGHT}assistantfinal{ANSWER}",
        f"analysis{THOUGHT}assistantcommentary{THOUGHT}assistantfinal{ANSWER}",
        f"{ANSWER}\n<think>{THOUGHT}",
        ANSWER,
    ],
)
def test_the_answer_stands_behind_the_thinking(text):
    """In every form that model families write, with both tags, the end tag only, or channels."""
    assert split_reasoning(text)[0] == ANSWER
    assert THOUGHT not in openai_answer({"choices": [{"message": {"content": text}}]}, "http://x").text


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{THOUGHT}",
        f"<|channel|>analysis<|message|>{THOUGHT}",
        f"analysis{THOUGHT}",
        f"<think>a</think><think>{THOUGHT}",
        f"<reasoning>{THOUGHT}",
    ],
)
def test_thinking_that_does_not_end_is_no_answer(text):
    """What was cut off while it thought leaves nothing."""
    assert split_reasoning(text)[0] == ""


@pytest.mark.parametrize(
    "text",
    [
        "<job><reason>停电</reason></job>\n第二行。",
        "analysis of variance compares means.",
        "先写 <thought>想法</thought> 这个标签，再关上。",
        "Here is my response: yes.",
    ],
)
def test_words_that_may_be_anybodys_are_no_thinking(text):
    """Tags of a document, and words that only look like the head of a channel, stay in the answer."""
    assert split_reasoning(text) == (text, "")


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


@pytest.mark.parametrize(
    ("message", "texts", "kept"),
    [
        (
            {"content": "差", "reasoning_content": "好的，想。"},
            ["<think>", "好", "的，想。", "</think>", "\n\n", "差"],
            ["差"],
        ),
        ({"content": "差", "reasoning_content": "好的，想。"}, ["好", "的，想。"], []),
        ({"content": "差", "reasoning_content": "好的，想。"}, ["差"], ["差"]),
        ({"content": None, "reasoning_content": "好的"}, ["好"], []),
        ({"content": "<think>好的，想。</think>差"}, ["<think>", "好", "的，想。", "</think>", "差"], ["差"]),
    ],
)
def test_log_probabilities_are_those_of_the_answer(message, texts, kept):
    """Servers give those of the thoughts too, where the 好 of 好的 is no verdict: they are left out."""
    choice = {"message": message, "finish_reason": "stop", "logprobs": logprobs(*texts)}
    assert [token.text for token in openai_answer({"choices": [choice]}, "http://x").tokens] == kept
    if "<think>" in texts:
        tokens = [{"text": text, "logprob": -0.1} for text in texts]
        details = {
            "finish_reason": "eos_token",
            "generated_tokens": 6,
            "tokens": tokens,
            "top_tokens": [[t] for t in tokens],
        }
        answer = tgi_answer({"generated_text": "".join(texts), "details": details}, {}, "http://x")
        assert [token.text for token in answer.tokens] == kept


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


def test_more_room_to_think_asks_again():
    """What was cut off with less room is not found in the journal by a recipe that gives more."""
    variants = {ask(Thinker(), thinking_tokens=tokens)[1].variant for tokens in (2048, 4096, 0)}
    assert len(variants) == 3
    assert "" in variants
