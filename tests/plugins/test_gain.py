"""`verify: {gain: MODEL}`: how much the question helps to expect the answer, by the numbers of real servers."""

import asyncio
import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kun_method import verify
from kun_method.gain import gain_of, look
from scripted import Scripted, row
from servers.likely import Likely, pieces
from servers.loopback import loopback

from kun_builder import Completion, Drop
from kun_builder.engines import openai, tgi
from kun_builder.models.generator import open_models
from kun_builder.models.journal.journal import Journal
from kun_builder.run.rows import RowGenerate
from kun_builder.status import Status
from kun_builder.types import ModelSpec, Token

ENGINES = {engine.name: SimpleNamespace(value=engine) for kind in (openai, tgi) for engine in kind.kun_engines()}
QUESTION = "蝙蝠怎样根据回声判断方向？"
ANSWER = "蝙蝠从喉部发出声波，声波碰到物体会反射回来，蝙蝠根据回声判断方向。"
OTHER = "How do I brew green tea?"
TEXT = st.text(st.sampled_from("蝙蝠声波𠮷🦇 ab，。"), min_size=1, max_size=40).map(str.strip).filter(bool)


def asked(folder, server, work, engine="openai"):
    """What `work(generate)` gives with a real engine and journal at the server."""

    async def inner():
        async with loopback(server) as url:
            spec = ModelSpec(name="chat", engine=engine, endpoints=(url,), prompt="completion", revision="r1")
            async with open_models({"chat": spec}, ENGINES, Journal.open(folder), Status()) as generator:
                return await work(RowGenerate(generator, 0, [], {}))

    return asyncio.run(inner())


def mean(texts):
    return -math.fsum(piece.logprob for piece in texts) / len(texts)


@pytest.mark.parametrize("engine", ["openai", "tgi"])
@settings(max_examples=15, deadline=None)
@given(question=TEXT, answer=TEXT, begin=st.booleans())
def test_the_gain_is_what_the_likelihoods_say(tmp_path_factory, engine, question, answer, begin):
    """It is 1 less the ratio of the mean surprises with and without the question, over the tokens that both have."""

    async def work(generate):
        return await look(generate, "chat", (question, answer), 0, 1)

    found, gain = asked(tmp_path_factory.mktemp("journal"), Likely(begin=begin), work, engine)
    alone = pieces(answer, begin=begin)[1:]
    if not alone:
        assert (found[0], gain) == ("unmeasured_gain", None)
        return
    behind = pieces(f"{question}\n\n{answer}", begin=begin)[-len(alone) :]
    assert found is None
    assert gain == pytest.approx(max(0, 1 - mean(behind) / mean(alone)), abs=1e-4)


def test_a_question_that_belongs_to_the_answer_helps(tmp_path):
    """The gain of its own question is above that of another one, which does not help; asking again costs nothing."""
    server = Likely()

    async def work(generate):
        return [(await look(generate, "chat", (said, ANSWER), 0.01, 1)) for said in (QUESTION, OTHER)]

    (found, own), (misled, other) = asked(tmp_path, server, work)
    assert found is None
    assert misled == ("low_gain", 0)
    assert own > 0 == other
    reading = [body for body in server.asked if ANSWER in body.get("prompt", "")]
    assert len(reading) == 3  # the answer alone is read once
    assert asked(tmp_path, again := Likely(), work) == [(found, own), (misled, other)]
    assert not any(ANSWER in body.get("prompt", "") for body in again.asked)


def test_verify_measures_it_and_drops_by_it(tmp_path):
    """With `gain: MODEL` the row has its gain, and one beyond a limit is dropped with a reason of its own."""

    def verified(**options):
        async def work(generate):
            pair = row(ANSWER, instruction=QUESTION, output=ANSWER)
            return await verify.run(pair, generate, model=None, gain="chat", **options)

        return asked(tmp_path, Likely(), work)

    gain = verified()["gain"]
    assert 0 < gain < 1
    for reason, options in (("low_gain", {"least_gain": gain + 0.01}), ("high_gain", {"most_gain": gain - 0.01})):
        with pytest.raises(Drop) as caught:
            verified(**options)
        assert (caught.value.reason, caught.value.added["gain"]) == (reason, gain)


def test_without_the_option_nothing_is_asked():
    """The gain is null, and no request has the field."""
    generate = Scripted([Completion("好")])
    pair = row(ANSWER, instruction=QUESTION, output=ANSWER)
    assert asyncio.run(verify.run(pair, generate, model=None))["gain"] is None
    assert generate.asked == []


def test_a_server_that_stops_telling_lets_no_pair_through():
    """Without numbers nothing is known of the pair: it is dropped, and the reason says so."""
    generate = Scripted([Completion("是", prompt_logprobs=())])
    found, gain = asyncio.run(look(generate, "chat", (QUESTION, ANSWER), 0, 1))
    assert (found, gain) == (("unmeasured_gain", "0 and 0 tokens"), None)


def test_where_question_and_answer_grow_together_the_rest_counts():
    """The first two tokens of an answer may be others behind a question; with more, the readings do not fit."""
    alone = [Token(text, -2.0) for text in "一二三四"]
    behind = [Token("问", -9.0), Token("\n一", -9.0), Token("二", -1.0), Token("三", -1.0), Token("四", -1.0)]
    assert gain_of(alone, behind) == pytest.approx(0.5)
    assert gain_of(alone, [*behind[:-2], Token("山", -1.0), behind[-1]]) is None
    assert gain_of([Token("一", 0.0)], [Token("一", -1.0)]) is None
