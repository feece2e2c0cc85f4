"""Reasoning models, as servers really answer for them: what was thought never reaches a row."""

import asyncio
import logging
from dataclasses import replace

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from servers.loopback import loopback
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from kun_builder import ModelSpec, Request
from kun_builder.engines import openai, tgi
from kun_builder.engines.answers import openai_answer, tgi_answer
from kun_builder.engines.reasoning import split_reasoning
from kun_builder.errors import ModelError

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


def logprobs(*texts):
    return {"content": [{"token": t, "logprob": -0.1, "top_logprobs": [{"token": t, "logprob": -0.1}]} for t in texts]}


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


def test_more_room_to_think_asks_again():
    """What was cut off with less room is not found in the journal by a recipe that gives more."""
    variants = {ask(Thinker(), thinking_tokens=tokens)[1].variant for tokens in (2048, 4096, 0)}
    assert len(variants) == 3
    assert "" in variants


class Served:
    """A server that answers each chat by `said(body)`, a choice; it takes every field and overlooks most."""

    def __init__(self, said, refused=lambda body: 0):
        self.said, self.refused, self.bodies = said, refused, []

    async def __call__(self, request):
        if request.method == "GET":
            return web.json_response({"data": [{"id": "m", "max_model_len": 4096}]})
        body = await request.json()
        self.bodies.append(body)
        if status := self.refused(body):
            return web.json_response({"error": {"message": "not this"}}, status=status)
        return web.json_response({"choices": [self.said(body)]})


def cut(text, body, **message):
    """A choice with as many characters of `text` as the request allows tokens."""
    whole = len(text) <= body["max_tokens"]
    return {
        "message": {"content": text[: body["max_tokens"]], **message},
        "finish_reason": "stop" if whole else "length",
    }


def right(body):
    return "Yes." if "Say yes." in body["messages"][-1]["content"] else ANSWER


def test_thinking_whose_opening_tag_the_template_wrote_is_noticed(caplog):
    """The short questions of the start show that only the end tag comes; what is cut off before it is no answer."""
    thought = "好的，" + "我先想一想。" * 30
    server = Served(lambda body: cut(f"{thought}</think>{right(body)}", body))
    answer, about = ask(server)
    assert answer.text == ANSWER
    assert about.context_length == 2048
    assert "thinks before it answers" in caplog.text
    short, _ = ask(server, thinking_tokens=0)
    assert (short.text, short.finish_reason) == ("", "length")


def test_room_that_the_context_does_not_have_is_halved(caplog):
    """A server whose real context is smaller than it says refuses the room, not the rows: they get less."""
    server = Served(
        lambda body: cut(f"<think>{THOUGHT}</think>{right(body)}", body), lambda body: 400 * (body["max_tokens"] > 700)
    )
    answer, _ = ask(server)
    assert answer.text == ANSWER
    assert server.bodies[-1]["max_tokens"] == 10 + 512


def test_thinking_that_shows_late_gets_room_at_once():
    """A model that answers the start without a thought, and thinks about a row, is asked again with room."""
    easy = lambda body: "Say yes." in body["messages"][-1]["content"]  # noqa: E731
    server = Served(lambda body: cut("Yes." if easy(body) else f"<think>{THOUGHT}</think>{ANSWER}", body))
    answer, about = ask(server)
    assert answer.text == ANSWER
    assert about.context_length == 4096
    assert [body["max_tokens"] for body in server.bodies[-2:]] == [10, 2058]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_parser_that_takes_every_answer_for_reasoning_is_seen_through(field):
    """A model that does not think, behind a parser for one that does: yes is no thought, and the rows have answers."""
    server = Served(lambda body: {"message": {"content": None, field: right(body)}, "finish_reason": "stop"})
    answer, about = ask(server)
    assert (answer.text, answer.finish_reason) == (ANSWER, "stop")
    assert about.context_length == 4096
    assert server.bodies[-1]["max_tokens"] == 10


@pytest.mark.parametrize("thinks", [True, False])
def test_log_probabilities_behind_reasoning_are_noticed(thinks):
    """The start looks at those of an answer, not of the thoughts before it or of what a parser took for thoughts."""

    def said(body):
        if thinks and body["max_tokens"] < 100:
            return {"message": {"content": None, "reasoning_content": THOUGHT}, "finish_reason": "length"}
        texts = [THOUGHT, "</think>", right(body)] if thinks else [right(body)]
        message = {"content": right(body) if thinks else None, "reasoning_content": THOUGHT if thinks else right(body)}
        return {"message": message, "finish_reason": "stop", "logprobs": logprobs(*texts)}

    answer, about = ask(Served(said))
    assert about.logprobs
    assert [token.text for token in answer.tokens] == [answer.text] == [ANSWER]


def test_a_server_that_overlooks_all_switches_is_told_in_the_users_words():
    """Fields that are taken without effect are not believed; `/no_think` at the end of the turn is tried too."""

    def said(body):
        off = body["messages"][-1]["content"].endswith("/no_think")
        return cut(right(body) if off else f"<think>{THOUGHT}</think>{right(body)}", body)

    server = Served(said)
    answer, _ = ask(server, thinking="off")
    assert answer.text == ANSWER[:10]
    assert server.bodies[-1]["messages"][-1]["content"] == "茶叶怎么保存？\n/no_think"
    assert not server.bodies[-1].keys() & {"chat_template_kwargs", "think", "reasoning_effort", "enable_thinking"}


@pytest.mark.parametrize(("option", "field"), [(False, False), ("off", False), (True, True), ("on", True)])
def test_a_bare_off_in_yaml_is_off(option, field):
    """YAML reads `thinking: off` as false, and `on` as true; both mean what they say."""
    server = Served(lambda body: cut(right(body), body))
    ask(server, thinking=option)
    assert server.bodies[-1]["chat_template_kwargs"]["enable_thinking"] is field


def test_a_server_that_refuses_all_switches_is_asked_without():
    """`thinking: off` for a model that has none to switch costs a few questions, and no row."""
    known = {"model", "messages", "max_tokens", "temperature", "top_p", "seed", "logprobs", "top_logprobs"}
    server = Served(lambda body: cut(right(body), body), lambda body: 422 if body.keys() - known else 0)
    answer, _ = ask(server, thinking="off")
    assert answer.text == ANSWER[:10]


def test_a_model_that_cannot_be_stopped_from_thinking_is_said(caplog):
    """Its thoughts are no answers even though `thinking` is off."""
    server = Served(lambda body: {"message": {"content": None, "reasoning": THOUGHT}, "finish_reason": "stop"})
    answer, _ = ask(server, thinking="off")
    assert answer.text == ""
    assert "although `thinking` is off" in caplog.text


@pytest.mark.parametrize("field", ["seed", "top_p", "logprobs", "temperature"])
@pytest.mark.parametrize("status", [400, 500])
def test_a_field_that_breaks_the_server_is_found_at_the_start(field, status):
    """The start sends all that stages send; what is answered with 400, or even 500, is left out from then on."""
    server = Served(lambda body: cut(right(body), body), lambda body: status if field in body else 0)

    async def work(url):
        async with openai.connect(ModelSpec(name="m", endpoints=(url,))) as (endpoint,):
            await endpoint.info()
            before = len(server.bodies)
            await endpoint.complete(Request(CHAT, 20, temperature=0.5, top_p=0.9, seed=3, top_logprobs=2))
            return len(server.bodies) - before

    async def inner():
        async with loopback(server) as url:
            return await work(url)

    assert asyncio.run(inner()) == 1
    assert field not in server.bodies[-1]


@pytest.mark.parametrize("field", ["messages", "model", "prompt"])
def test_further_fields_cannot_replace_the_question(field):
    """`extra_body` with a field that every request has of its own is an error that names it."""
    with pytest.raises(ModelError, match=field):
        ask(Served(lambda body: cut(right(body), body)), extra_body={field: "x"})


QWEN = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
)


@pytest.mark.parametrize("thinking", ["auto", "off"])
def test_tgi_has_room_for_thinking_that_its_template_begins(tmp_path, thinking):
    """Behind TGI the chat template is written out here: an opening tag at its end is seen, `off` closes it, and a
    template without a system role gets the system's text in the user's turn."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    fast.chat_template = QWEN
    fast.save_pretrained(tmp_path / "model")
    asked = []

    async def handle(request):
        if request.path == "/info":
            return web.json_response({"model_id": "org/m", "model_sha": "1", "max_total_tokens": 4096})
        body = await request.json()
        asked.append(body)
        most = body["parameters"]["max_new_tokens"]
        text = ANSWER if body["inputs"].endswith("</think>\n\n") else f"{THOUGHT * 9}</think>{ANSWER}"
        details = {"finish_reason": "eos_token" if len(text) <= most else "length", "generated_tokens": 5, "tokens": []}
        return web.json_response({"generated_text": text[:most], "details": details})

    async def inner():
        spec = ModelSpec(name="m", engine="tgi", tokenizer=str(tmp_path / "model"))
        async with loopback(handle) as url, tgi.connect(replace(spec, endpoints=(url,)), thinking=thinking) as (one,):
            about = await one.info()
            messages = ({"role": "system", "content": "你是编辑。"}, *CHAT)
            return about, await one.complete(Request(messages, max_new_tokens=20))

    about, answer = asyncio.run(inner())
    assert answer.text == ANSWER
    assert "user\n你是编辑。\n\n茶叶怎么保存？" in asked[-1]["inputs"]
    room = {"auto": 2048, "off": 0}[thinking]
    assert asked[-1]["parameters"]["max_new_tokens"] == 20 + room
    assert about.context_length == 4096 - room
