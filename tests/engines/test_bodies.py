"""Bodies of answers in the forms that servers and gateways send: read, named, or given up in time."""

import asyncio
import contextlib
import gzip
import json
import zlib

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from servers.loopback import loopback

from kun_builder import ModelSpec, Request
from kun_builder.engines import openai
from kun_builder.engines.answers import count, openai_answer
from kun_builder.engines.bodies import generation_limit, parse_body
from kun_builder.errors import FatalError, RejectedError, TransientError

ANSWER = "茶叶要放在阴凉干燥的地方。"
GOOD = {"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}], "usage": {"completion_tokens": 9}}
CHAT = ({"role": "system", "content": "你是编辑。"}, {"role": "user", "content": "茶叶怎么保存？"})


def served(reply, request=None, **options):
    """What a client gets of a server that answers each POST by `reply(request, body)`."""

    async def handle(http):
        if http.method == "GET":
            return web.json_response({"data": [{"id": "tiny", "max_model_len": 2048}]})
        return await reply(http, await http.json())

    async def inner():
        async with (
            loopback(handle) as url,
            openai.connect(ModelSpec(name="m", endpoints=(url,)), **options) as (endpoint,),
        ):
            await endpoint.info()
            return await endpoint.complete(request or Request(CHAT, max_new_tokens=16))

    return asyncio.run(inner())


def sent(payload, **headers):
    async def reply(http, body):
        return web.Response(body=payload, content_type="application/json", headers=headers)

    return reply


@pytest.mark.parametrize(
    "payload",
    [
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        b"\n  \n" + json.dumps(GOOD).encode(),
        json.dumps({**GOOD, "x": float("nan")}).encode(),
        json.dumps(GOOD, ensure_ascii=False).encode("utf-16"),
        json.dumps(GOOD).encode(),
        f"data: {json.dumps(GOOD)}\n\ndata: [DONE]\n\n".encode(),
        b": keep-alive\n\n"
        + b"".join(f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n".encode() for piece in ANSWER)
        + b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n',
    ],
    ids=["bom", "white space", "nan", "utf-16", "plain", "one event", "events"],
)
def test_an_answer_is_read_in_every_form(payload):
    """A byte order mark, white space, NaN and event streams hold the same answer."""
    assert served(sent(payload)).text == ANSWER


def test_half_an_emoji_is_left_out():
    """What the limit of tokens cut in two cannot be written to any file."""
    body = json.dumps({"choices": [{"message": {"content": ANSWER + "\ud83d"}}]}).encode()
    assert openai_answer(parse_body(body), "http://x").text == ANSWER


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_read_as_json(value):
    """Whatever JSON is sent, the same value is read."""
    assert parse_body(b"\xef\xbb\xbf" + json.dumps(value).encode()) == value


def test_an_endless_answer_is_given_up_at_its_limit():
    """No more is read than so many tokens can be; the row pays for it, once."""
    seen = 0

    async def reply(http, body):
        nonlocal seen
        if body["messages"][-1]["content"] == "Say yes.":
            return web.json_response(GOOD)
        response = web.StreamResponse()
        await response.prepare(http)
        try:
            while seen < 1 << 28:
                await response.write(b"x" * (1 << 16))
                seen += 1 << 16
        except ConnectionError:
            pass
        return response

    with pytest.raises(RejectedError, match="more than the"):
        served(reply)
    assert seen < 4 * generation_limit(16, 0) + (1 << 24)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_answer_that_nobody_asked_for_is_read(encoding, pack):
    """A gateway that compresses in spite of `Accept-Encoding: identity` costs nothing."""
    body = json.dumps({"choices": [{"message": {"content": "是"}, "finish_reason": "stop"}]}).encode()
    assert served(sent(pack(body), **{"Content-Encoding": encoding})).text == "是"


def test_a_compressed_answer_has_the_limit_of_any_other():
    """A few kilobytes that would become gigabytes are given up at the limit; an unknown encoding is named."""
    bomb = gzip.compress(b"0" * (1 << 26))
    with pytest.raises(FatalError, match="more than the"):
        served(sent(bomb, **{"Content-Encoding": "gzip"}))
    with pytest.raises(TransientError, match="incorrect header"):
        served(sent(b"{}", **{"Content-Encoding": "gzip"}))
    with pytest.raises(FatalError, match="'br'"):
        served(sent(b"{}", **{"Content-Encoding": "br"}))


def test_an_error_with_status_200_says_the_servers_words_once():
    """The row is rejected with what the server said; an overload is tried again."""
    with pytest.raises(RejectedError, match="Provider says no"):
        openai_answer({"error": {"message": "Provider says no", "code": 400}}, "http://x")
    with pytest.raises(TransientError, match="overloaded"):
        openai_answer({"error": {"message": "overloaded", "code": 503}}, "http://x")
    with pytest.raises(TransientError, match="try later"):
        openai_answer({"error": {"message": "try later", "type": "overloaded_error"}}, "http://x")
    with pytest.raises(TransientError, match="try later"):
        openai_answer({"error": {"message": "try later", "code": "rate_limit_exceeded"}}, "http://x")
    with pytest.raises(RejectedError):
        openai_answer({"choices": None}, "http://x")
    with pytest.raises(RejectedError, match=r"key \*\*\*"):
        openai_answer({"error": "key s3cret"}, "http://x", shown=lambda said: said.replace("s3cret", "***"))


@pytest.mark.parametrize(
    "shape", [[], "none", {"content": [1]}, {"content": [{"token": "好", "top_logprobs": "x"}]}, 7]
)
@pytest.mark.parametrize("beside", ["logprobs", "usage"])
def test_what_stands_beside_an_answer_does_not_spoil_it(beside, shape):
    """Log-probabilities and usage in an unforeseen shape are as good as missing; the answer is read."""
    body = {"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}]}
    (body if beside == "usage" else body["choices"][0])[beside] = shape
    answer = openai_answer(body, "http://x")
    assert (answer.text, answer.tokens, answer.completion_tokens) == (ANSWER, (), 0)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "message", "logprobs", "content"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    )
)
def test_a_stream_of_any_events_is_read_or_no_json(event):
    """Events of whatever shape become one answer, or are named as what is not JSON; never a crash."""
    with contextlib.suppress(ValueError):
        parse_body(f"data: {json.dumps(event)}\n\ndata: {json.dumps(event)}\n\n".encode())


def test_log_probabilities_of_a_stream_are_put_together():
    """Each event has those of its own token."""
    pieces = [
        {"token": token, "logprob": -0.5, "top_logprobs": [{"token": token, "logprob": -0.5}]} for token in "好的"
    ]
    events = [{"choices": [{"delta": {"content": one["token"]}, "logprobs": {"content": [one]}}]} for one in pieces]
    answer = openai_answer(parse_body("\n".join(f"data: {json.dumps(event)}" for event in events).encode()), "http://x")
    assert [token.text for token in answer.tokens] == ["好", "的"]


def test_bytes_that_the_limit_has_cut_in_two_are_left_out():
    """A replacement character at the end of a truncated answer is half of a character, not a fault of the server."""
    body = {"choices": [{"message": {"content": "茶\ufffd"}, "finish_reason": "length"}]}
    assert openai_answer(body, "http://x").text == "茶"
    body["choices"][0]["finish_reason"] = "stop"
    assert openai_answer(body, "http://x").text == "茶\ufffd"


def test_a_list_of_parts_is_one_text():
    """Parts of text are put together; those of reasoning are left out."""
    parts = [
        {"type": "thinking", "text": "想"},
        {"type": "text", "text": "茶叶"},
        {"type": "output_text", "text": "放好"},
        "。",
    ]
    assert openai_answer({"choices": [{"message": {"content": parts}}]}, "http://x").text == "茶叶放好。"


@pytest.mark.parametrize(
    ("word", "finish"),
    [("stop", "stop"), ("eos_token", "stop"), ("end_turn", "stop"), (None, "stop"), ("STOP", "stop"),
     ("length", "length"), ("MAX_TOKENS", "length"), ("content_filter", "content_filter"), ("error", "error"),
     ("", "stop"), ("null", "stop"), ("FinishReason.STOP", "stop"), (151645, "stop"), ({"type": "stop"}, "stop"),
     ({"type": "length", "length": 9}, "length"), ("model_context_window_exceeded", "length")],
)  # fmt: skip
def test_only_a_proper_end_is_one(word, finish):
    """The many words for stop and length are one each; every other end keeps its name."""
    assert (
        openai_answer({"choices": [{"message": {"content": "半句"}, "finish_reason": word}]}, "http://x").finish_reason
        == finish
    )


def test_a_refusal_is_an_end_of_its_own():
    """Its words are in the finish reason."""
    body = {"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]}
    assert openai_answer(body, "http://x").finish_reason == "refusal: no"


@pytest.mark.parametrize("value", [10**19, -5, "many", 1.5, True, None, float("inf"), "9" * 400])
def test_numbers_that_cannot_be_are_none(value):
    """They reach neither report nor journal."""
    assert count(value) == 0
    usage = {"prompt_tokens": value, "completion_tokens": value, "prompt_tokens_details": {"cached_tokens": value}}
    answer = openai_answer({**GOOD, "usage": usage}, "http://x")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_prompt_tokens) == (0, 0, 0)


@pytest.mark.parametrize("value", [None, float("nan"), float("-inf"), 3.0, "x"])
def test_a_log_probability_that_is_none_is_left_out(value):
    """The other alternatives stay."""
    top = [{"token": "好", "logprob": -0.1}, {"token": "差", "logprob": value}]
    logprobs = {"content": [{"token": "好", "logprob": value, "top_logprobs": top}]}
    body = {"choices": [{"message": {"content": "好"}, "logprobs": logprobs}]}
    assert openai_answer(body, "http://x").tokens[0].top == (("好", -0.1),)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_template_without_a_system_role_gets_its_text_in_the_users_turn(status):
    """Found at the start with what the stages send, so that no row pays for it."""
    asked = []

    async def reply(http, body):
        asked.append(body["messages"])
        if any(message["role"] == "system" for message in body["messages"]):
            return web.json_response({"message": "System role not supported"}, status=status)
        return web.json_response(GOOD)

    assert served(reply).text == ANSWER
    assert asked[-1] == [{"role": "user", "content": "你是编辑。\n\n茶叶怎么保存？"}]


def test_a_server_that_knows_only_the_newer_name_of_the_limit_is_asked_by_it():
    """`max_completion_tokens` instead of `max_tokens`, from the first row on."""
    asked = []

    async def reply(http, body):
        asked.append(body)
        if "max_tokens" in body:
            return web.json_response({"error": {"message": "Unsupported parameter: 'max_tokens'"}}, status=400)
        return web.json_response(GOOD)

    assert served(reply).text == ANSWER
    assert asked[-1]["max_completion_tokens"] == 16


@pytest.mark.parametrize("reason", [None, "", 2])
def test_an_end_that_is_not_told_shows_in_the_tokens(reason):
    """An answer with all the tokens that it may have was cut off, if the server does not say how it ended."""
    body = {"choices": [{"message": {"content": "半句"}, "finish_reason": reason}], "usage": {"completion_tokens": 64}}
    assert openai_answer(body, "http://x", most=64).finish_reason == "length"
    assert openai_answer(body, "http://x", most=65).finish_reason == "stop"
    assert openai_answer(body, "http://x").finish_reason == "stop"


@pytest.mark.parametrize("word", ["abort", "network_error", "insufficient_system_resource"])
def test_a_request_that_the_server_gave_up_is_tried_again(word):
    """Half an answer of a server that broke down is none."""
    with pytest.raises(TransientError, match=word):
        openai_answer({"choices": [{"message": {"content": "半句"}, "finish_reason": word}]}, "http://x")


def test_an_error_beside_half_an_answer_counts():
    """A gateway that loses its server half-way has sent status 200 already; an answer with a proper end is one."""
    choice = {"message": {"content": "半句"}, "finish_reason": None, "error": {"code": 502, "message": "upstream"}}
    with pytest.raises(TransientError, match="upstream"):
        openai_answer({"choices": [choice]}, "http://x")
    assert openai_answer({"choices": [{**choice, "finish_reason": "stop"}]}, "http://x").text == "半句"


def test_a_message_that_a_filter_took_away_is_an_unfinished_answer():
    """It is not asked for again as if the server had answered in another shape, and costs its row."""
    answer = openai_answer({"choices": [{"message": None, "finish_reason": "content_filter"}]}, "http://x")
    assert (answer.text, answer.finish_reason) == ("", "content_filter")
    with pytest.raises(TransientError, match="unknown shape"):
        openai_answer({"choices": [{"message": None, "finish_reason": "stop"}]}, "http://x")


@pytest.mark.parametrize(
    "error",
    [{"code": 402, "message": "no"}, {"code": 401, "message": "no"}, {"type": "insufficient_quota", "message": "no"},
     {"code": "Arrearage", "message": "no"}],
)  # fmt: skip
def test_an_error_of_the_account_ends_the_run(error):
    """Every further request would fail too, so that no row is lost to it; the cure names the key."""
    with pytest.raises(FatalError, match="no") as caught:
        openai_answer({"error": error}, "http://x")
    assert "api_key" in caught.value.hint
