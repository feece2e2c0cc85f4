"""Stage `score`: one number in 0..1 for an instruction, from one token."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_method import score
from kun_method.verdict import from_logprobs
from scripted import Scripted, row, verdict

from kun_builder import Completion, Drop
from kun_builder.types import Token


def token(**top):
    ranked = sorted(((text, math.log(p)) for text, p in top.items()), key=lambda pair: -pair[1])
    return Completion(ranked[0][0], finish_reason="length", tokens=(Token(*ranked[0], top=tuple(ranked)),))


def run(generate, **options):
    return asyncio.run(score.run(row(instruction="怎样泡茶？"), generate, **options))


def test_the_score_compares_two_probabilities():
    """The score is p(good) / (p(good) + p(bad)), whatever else is probable; only one token is asked for."""
    generate = Scripted([token(好=0.6, 差=0.2, 是=0.1)])
    assert run(generate)["score"] == pytest.approx(0.75)
    _, prompt, parameters = generate.asked[0]
    assert parameters["max_new_tokens"] == 1
    assert parameters["top_logprobs"] >= 2
    assert "怎样泡茶？" in prompt[-1]["content"]


def test_variants_of_a_word_count_for_it():
    """Tokens that begin with the word, with or without white space and brackets before it, are added up."""
    completion = token(**{"好": 0.3, " 好": 0.1, "好的": 0.1, "【差": 0.1, "▁差": 0.1, "不好": 0.2})
    assert from_logprobs(completion, "好", "差") == pytest.approx(0.5 / 0.7)


def test_a_missing_word_is_bounded_by_the_least_probable_one_reported():
    """The score stays a little below 1 (above 0), since the missing word is not impossible."""
    assert from_logprobs(token(好=0.9, 是=0.05), "好", "差") == pytest.approx(0.9 / 0.95)
    assert from_logprobs(token(差=0.9, 是=0.05), "好", "差") == pytest.approx(0.05 / 0.95)


def test_below_the_threshold_a_row_is_dropped_with_its_score():
    """The value of the drop is the score, and the row keeps it."""
    generate = Scripted([token(好=0.2, 差=0.6)])
    with pytest.raises(Drop) as caught:
        run(generate)
    assert verdict(caught.value) == ("low_score", "0.25")
    assert caught.value.added == {"score": pytest.approx(0.25)}
    assert run(Scripted([token(好=0.2, 差=0.6)]), threshold=0.2)["score"] == pytest.approx(0.25)


@pytest.mark.parametrize(("answer", "expected"), [("好", 1.0), ("【好】。", 1.0), ("这条指令好", 1.0), ("差", 0.0)])
def test_without_log_probabilities_the_answer_is_parsed(answer, expected):
    """A server that gives none is asked for one of the two words."""
    generate = Scripted([answer], logprobs=False)
    assert run(generate, threshold=0.0)["score"] == expected
    assert [parameters["choices"] for _, _, parameters in generate.asked] == [("好", "差")]


def test_log_probabilities_that_do_not_come_are_made_up_for():
    """A server that was believed to give them but does not, or gives neither word, is asked again for a word."""
    assert run(Scripted(["嗯", "好"]))["score"] == 1.0
    assert run(Scripted([token(嗯=0.5, 是=0.4), "好"]))["score"] == 1.0


@pytest.mark.parametrize("rest", ["<think>", "用户", "<|channel|>"])
def test_two_words_that_the_model_does_not_mean_to_say_are_no_verdict(rest):
    """Where another token has nearly all of the probability, the ratio of the two words is noise: it is asked again."""
    noise = token(**{rest: 0.999, "差": 2e-6, "好": 1e-6})
    assert run(Scripted([noise, "好"]))["score"] == 1.0
    with pytest.raises(Drop) as caught:
        run(Scripted([noise, "嗯"]))
    assert caught.value.reason == "unparseable_score"


def test_the_beginning_of_a_thought_is_no_verdict():
    """好的，我先想 is cut off before any verdict: it gets room, and what it then says counts."""
    cut = Completion("好的，我先想一", finish_reason="length")
    generate = Scripted([token(**{"<think>": 0.99}), cut, "差"])
    with pytest.raises(Drop) as caught:
        run(generate)
    assert verdict(caught.value) == ("low_score", "0.0")
    with pytest.raises(Drop) as caught:
        run(Scripted([cut]))
    assert caught.value.reason == "unparseable_score"


@pytest.mark.parametrize("answer", ["", "一般", "好坏参半，有好有差"])
def test_an_answer_with_neither_or_both_words_is_counted_on_its_own(answer):
    """It is not mistaken for a bad score."""
    with pytest.raises(Drop) as caught:
        run(Scripted([answer], logprobs=False))
    assert verdict(caught.value) == ("unparseable_score", answer)


@given(st.dictionaries(st.sampled_from(["好", "差", "好的", " 差", "是", "不", "\n"]), st.floats(1e-9, 1), min_size=1))
def test_a_score_lies_between_0_and_1(top):
    """Whatever the alternatives, there is a score in 0..1, or none if both words have too little of the probability."""
    found = from_logprobs(token(**top), "好", "差")
    together = sum(top.get(word, 0) for word in ("好", "差", "好的", " 差"))
    if together < 0.049:
        assert found is None
    elif together > 0.051:
        assert 0 <= found <= 1


def test_noise_is_no_verdict():
    """At a model that thinks first both words have a millionth: one of them is demanded instead."""
    generate = Scripted([token(**{"<think>": 0.9999, "差": 1e-6, "好": 1e-7}), "好"])
    assert run(generate)["score"] == 1.0
    assert generate.asked[1][2]["choices"] == ("好", "差")


def test_a_model_that_must_think_gets_room_for_it():
    """Where even the demanded word does not come in time, the model is asked without a limit of one word."""
    cut = Completion("", finish_reason="length")
    generate = Scripted([token(**{"<think>": 1.0}), cut, "想好了，好"])
    assert run(generate)["score"] == 1.0
    assert generate.asked[2][2]["max_new_tokens"] >= 512
