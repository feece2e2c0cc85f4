"""Servers of thinking models: what is noticed at the start, and what is asked of them."""

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web
from servers.loopback import loopback
from thoughts import ANSWER, CHAT, THOUGHT, ask, logprobs
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from kun_builder import ModelSpec, Request
from kun_builder.engines import openai, tgi
from kun_builder.errors import ModelError


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
