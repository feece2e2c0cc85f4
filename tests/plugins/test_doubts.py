"""The further questions of `verify`: each about one side of a pair, asked only where it was good so far."""

import asyncio

import pytest
from kun_method import doubts, verify
from scripted import Scripted, judged, row

from kun_builder import Completion, Drop

TEXT = "蝙蝠飞行时从喉部发出声波，声波碰到昆虫会反射回来，蝙蝠根据回声判断方向。这种本领叫回声定位，精度很高。"
QUESTION = "蝙蝠在黑暗里怎样辨别方向？"
ANSWER = "蝙蝠从喉部发出声波，声波碰到昆虫会反射回来，蝙蝠根据回声判断方向。"
GOOD, BAD = judged(0.99), judged(0.1)
TWO = ANSWER + "这种本领叫回声定位。"


def run(answers, output=ANSWER, **options):
    generate = Scripted(answers)
    pair = row(TEXT, instruction=QUESTION, output=output)
    return asyncio.run(verify.run(pair, generate, **options)), generate


def said(generate):
    return [prompt[-1]["content"] for _, prompt, _ in generate.asked]


def test_nothing_more_is_asked_by_default():
    """One question about the pair is all, and the columns of the others are empty."""
    kept, generate = run([GOOD])
    assert len(generate.asked) == 1
    assert [kept[doubt] for doubt in doubts.REASONS] == [None] * 3


def test_each_question_shows_the_model_its_side_alone():
    """The instruction without answer and text, the answer without text, each sentence beside the text."""
    kept, generate = run([GOOD], TWO, least_alone=0.5, least_answered=0.5, least_backed=0.5)
    _, alone, answered, first, second = said(generate)
    assert (QUESTION in alone, ANSWER in alone, TEXT in alone) == (True, False, False)
    assert (QUESTION in answered, TWO in answered, TEXT in answered) == (True, True, False)
    assert (TEXT in first, ANSWER in first, "定位。" in first) == (True, True, False)
    assert (TEXT in second, ANSWER in second, "定位。" in second) == (True, False, True)
    assert [kept[doubt] for doubt in doubts.REASONS] == pytest.approx([0.99] * 3)


@pytest.mark.parametrize(
    ("answers", "reason", "value"),
    [
        ([GOOD, BAD], "needs_context", QUESTION),
        ([GOOD, GOOD, BAD], "off_topic", TWO),
        ([GOOD, GOOD, GOOD, GOOD, BAD], "unsupported", "这种本领叫回声定位。"),
    ],
)
def test_a_pair_is_dropped_for_what_was_judged(answers, reason, value):
    """The reason is that of the question, the value the words that failed; nothing is asked after that."""
    generate = Scripted(answers)
    pair = row(TEXT, instruction=QUESTION, output=TWO)
    with pytest.raises(Drop) as caught:
        asyncio.run(verify.run(pair, generate, least_alone=0.5, least_answered=0.5, least_backed=0.5))
    assert (caught.value.reason, caught.value.value) == (reason, value)
    assert len(generate.asked) == len(answers)


def test_the_worst_sentence_counts():
    """Of several sentences the lowest probability is the pair's."""
    kept, _ = run([GOOD, judged(0.6), GOOD], TWO, least_backed=0.5)
    assert kept["backed"] == pytest.approx(0.6)


def test_a_bad_pair_is_asked_nothing_more():
    """What the question about the pair has dropped costs no further one."""
    generate = Scripted([BAD])
    with pytest.raises(Drop, match="low_pair_score"):
        asyncio.run(verify.run(row(TEXT, instruction=QUESTION, output=ANSWER), generate, least_backed=0.5))
    assert len(generate.asked) == 1


def test_an_answer_that_is_no_judgement_counts_as_bad():
    """Neither word: the pair is dropped, not kept unseen."""
    with pytest.raises(Drop) as caught:
        run([GOOD, Completion("唔")], least_alone=0.5)
    assert caught.value.reason == "needs_context"


def test_an_english_pair_is_judged_in_english():
    """Prompt and words are those of the text's language."""
    text = "Bats call at a high pitch while they fly. The sound comes back from insects and branches."
    generate = Scripted([Completion("good")])
    pair = row(text, instruction="How do bats find their way in the dark?", output=text)
    generate.logprobs = False
    kept = asyncio.run(verify.run(pair, generate, least_alone=0.5, least_backed=0.5))
    assert kept["backed"] == 1
    assert all("with one word, good or bad" in words for words in said(generate))
