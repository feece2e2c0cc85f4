"""How likely a prompt is: asked of vLLM and TGI in their words, told token by token, and known beforehand."""

import asyncio
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.likely import Likely, pieces, rendered
from servers.loopback import loopback
from servers.openapi import Api

from kun_builder import ModelSpec, Request
from kun_builder.engines import openai, tgi
from kun_builder.engines.prompt_tokens import of_openai, of_tgi
from kun_builder.testing import check_engine

ENGINES = {"openai": openai, "tgi": tgi}
CHAT = ({"role": "system", "content": "你是编辑。"}, {"role": "user", "content": "茶叶怎么保存？"})
DESCRIPTION = Path(__file__).resolve().parents[3] / "shared/facts/tgi-openapi.json"
TEXT = st.text(st.sampled_from("茶叶保存𠮷🍵ab \n，。？"), min_size=1, max_size=60)


def told(server, engine, *prompts):
    """Who answers, and the tokens of each prompt."""

    async def inner():
        async with loopback(server) as url:
            spec = ModelSpec(name="m", engine=engine, endpoints=(url,), prompt="completion")
            async with ENGINES[engine].connect(spec) as (endpoint,):
                info = await endpoint.info()
                asked = [Request(prompt, 1, prompt_logprobs=True) for prompt in prompts]
                return info, [(await endpoint.complete(one)).prompt_logprobs for one in asked]

    return asyncio.run(inner())


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=15, deadline=None)
@given(text=TEXT, begin=st.booleans())
def test_the_numbers_add_up(engine, text, begin):
    """All tokens but the first come, in order, and their sum is the likelihood of the text behind its first token."""
    info, (tokens,) = told(Likely(begin=begin), engine, text)
    assert info.prompt_logprobs
    wanted = pieces(text, begin=begin)[1:]
    assert [token.text for token in tokens] == [piece.text for piece in wanted]
    assert sum(token.logprob for token in tokens) == pytest.approx(math.fsum(piece.logprob for piece in wanted))


def test_a_chat_is_read_at_the_top_of_the_answer():
    """vLLM tells of a chat beside the choices, template included."""
    _, (tokens,) = told(Likely(), "openai", CHAT)
    assert "".join(token.text for token in tokens) == rendered(CHAT)[1:]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_long_prompt_is_no_answer_that_is_too_long(engine):
    """The limit of what is read grows with the prompt, for each of its tokens takes a hundred bytes of the answer."""
    long = "茶叶要放在阴凉干燥的地方。" * 2_000
    _, (tokens,) = told(Likely(), engine, long)
    assert len(tokens) == len(long) - 1


def test_nothing_is_told_that_was_not_asked():
    """Without the field, neither server is asked for anything new, and the answer has no tokens of the prompt."""

    async def inner(server, engine):
        async with (
            loopback(server) as url,
            ENGINES[engine].connect(ModelSpec(name="m", engine=engine, endpoints=(url,))) as (endpoint,),
        ):
            return await endpoint.complete(Request("茶叶", 4))

    for engine in ENGINES:
        assert asyncio.run(inner(server := Likely(), engine)).prompt_logprobs == ()
        assert "prompt_logprobs" not in server.asked[0]
        assert not server.asked[0].get("parameters", {}).get("decoder_input_details")


@pytest.mark.parametrize(
    ("engine", "server"),
    [
        ("tgi", Likely(prefill=False)),
        ("openai", Likely(owner="llamacpp")),
        ("openai", Likely(owner="sglang")),
        ("openai", Likely(spoil=lambda answer: {**answer, "choices": [{"text": "是", "finish_reason": "stop"}]})),
    ],
    ids=["TGI without the flag", "llama.cpp", "SGLang", "a vLLM that overlooks the field"],
)
def test_who_cannot_says_so(engine, server):
    """A server without log-probabilities of prompts is known at the start."""
    assert not told(server, engine)[0].prompt_logprobs


def test_only_vllm_is_asked_whether_it_can():
    """Other servers of OpenAI's protocol, of which some would refuse the field, are not asked."""
    told(server := Likely(owner="llamacpp"), "openai")
    assert not any("prompt_logprobs" in body for body in server.asked)


def test_a_model_that_thinks_gets_no_room_for_it():
    """It is the prompt that counts: one token is asked for, not the thousands that a thought may take."""
    told(server := Likely(says="<think>我想一想"), "openai", "茶叶")
    assert server.asked[-1]["prompt_logprobs"] == 0
    assert server.asked[-1]["max_tokens"] == 1


GOOD = {"logprob": -1.0, "decoded_token": "茶", "text": "茶"}


@pytest.mark.parametrize("bad", [None, 7, {}, *({**GOOD, "logprob": p} for p in ("x", None, 1.0, -math.inf, math.nan))])
def test_all_or_none(bad):
    """With a hole, or with what is no log-probability, no token is told: a mean over the rest is another number."""
    for others in ([GOOD], []):
        vllm = [None, *({"1": one} for one in others), bad and {"1": bad}]
        assert of_openai({"choices": [{"text": "是", "prompt_logprobs": vllm}]}) == ()
        assert of_tgi({"prefill": [{**GOOD, "logprob": None}, *others, bad]}) == ()


@pytest.mark.parametrize("given", ["none", 7, {"1": GOOD}, [], [None], None, [None, {"1": GOOD, "2": GOOD}]])
def test_another_shape_is_none(given):
    """The answer is good even where the list of tokens is no list, or tells of several tokens in one place."""
    assert of_openai({"choices": [{"text": "是", "prompt_logprobs": given}]}) == ()
    assert of_tgi({"prefill": given if given != [None, {"1": GOOD, "2": GOOD}] else None}) == ()


def test_tgis_words_are_those_of_its_description():
    """What is asked and answered here fits TGI's own description of its protocol."""
    if not DESCRIPTION.exists():
        pytest.skip("TGI's OpenAPI description is not at hand")
    told(server := Likely(), "tgi", "茶叶")
    api = Api(DESCRIPTION)
    api.check("GenerateRequest", server.asked[-1])
    api.check("GenerateResponse", server.generated(server.asked[-1]))


@pytest.mark.parametrize("name", ENGINES)
def test_the_kit_holds_an_engine_to_what_it_claims(name):
    """Both engines pass the kit at a server that tells of prompts."""
    server = Likely()

    def reply(path, body):
        if body is None:
            return {"model_id": "m", "max_total_tokens": 99, "data": [{"id": "m", "owned_by": "vllm"}]}
        usage = {"prompt_tokens": 3, "completion_tokens": 1}
        if path == "/generate":
            return server.generated(body), {"x-prompt-tokens": "3"}
        if path == "/tokenize":
            return {"tokens": [1]}
        return {**server.completed(body)[1], "usage": usage}

    (engine,) = ENGINES[name].kun_engines()
    assert check_engine(engine, reply).prompt_logprobs == ()
