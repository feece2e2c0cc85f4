"""What a judge's letters say: how they are read, what both orders make of a match, and whether they are chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_training.evaluation.judge import best, prompt_for, said_choice, shares
from kun_training.evaluation.pairs import bootstrap, compared, outcome

from kun_builder.types import Completion, Token


@pytest.mark.parametrize(
    ("answers", "consistent", "chance", "first", "sure"),
    [
        ([("A", "B")] * 6, 1.0, 0.5, 0.5, True),
        ([("A", "B")] * 3, 1.0, 0.5, 0.5, False),  # three in a row are chance once in eight times
        ([("A", "B")] * 5 + [("B", "A")] * 5, 1.0, 0.5, 0.5, True),
        ([("C", "C")] * 50, 1.0, 1.0, 0.5, False),  # says the same of everything
        ([("B", "B")] * 50, 0.0, 0.0, 0.0, False),
        ([("A", "B"), ("A", "A"), ("B", "B"), ("B", "A")] * 10, 0.5, 0.5, 0.5, False),  # a coin
        ([("A", "A")] * 8 + [("A", "B")] * 2, 0.2, 2 * 0.9 * 0.1, 0.9, False),
        ([], 0.0, 0.0, 0.5, False),
    ],
)
def test_whether_a_judge_is_better_than_chance(answers, consistent, chance, first, sure):
    """Agreement of both orders counts as far as it is more than letters without a look at the pairs would have."""
    found = compared("raw", answers)
    assert (found.consistent, found.chance, found.first) == pytest.approx((consistent, chance, first))
    assert found.sure is sure
    assert found.rate.high - found.rate.low > 0 or not answers


def test_same_words_say_nothing_of_the_judge():
    """Matches that were not asked are ties, and no agreement."""
    found = compared("raw", [("A", "A")] * 4, same=6, unread={"unread_answer": 2})
    assert (found.ties, found.same, found.consistent, found.sure) == (10, 6, 0.0, False)
    assert compared("raw", [], same=3).sure, "nobody was asked, so that nobody is in doubt"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("A", "B", ("win", True)),
        ("B", "A", ("loss", True)),
        ("C", "C", ("tie", True)),
        ("A", "A", ("tie", False)),
        ("B", "B", ("tie", False)),
        ("A", "C", ("win", False)),
        ("C", "A", ("loss", False)),
    ],
)
def test_outcomes(first, second, expected):
    """Both orders together decide; in the second order, the second place is ours."""
    assert outcome(first, second) == expected


def test_shares_are_among_the_choices():
    """Variants with white space count, other words do not; nothing of it is no result; a tie of shares is the tie."""
    top = tuple((text, float(np.log(p))) for text, p in (("A", 0.3), (" A", 0.1), ("B", 0.1), ("AB", 0.4)))
    completion = Completion("A", tokens=(Token(*top[0], top=top),))
    assert shares(completion, ("A", "B", "C")) == pytest.approx({"A": 0.8, "B": 0.2, "C": 0.0})
    assert shares(completion, ("1", "2")) is None
    assert shares(Completion("A"), ("A", "B")) is None
    assert best({"A": 0.4, "B": 0.2, "C": 0.4}) == "C"


@pytest.mark.parametrize(
    ("answer", "said"),
    [("A", "A"), ("【B】。", "B"), ("答案：C", "C"), ("A 和 B", None), ("Apple", None), ("", None), ("A4", None)],
)
def test_a_letter_is_read_where_it_stands_by_itself(answer, said):
    """A letter inside a word is no answer, and two letters are none."""
    assert said_choice(answer, ("A", "B", "C")) == said


def test_the_prompt_is_in_the_language_of_the_pair():
    """A Chinese question is judged in Chinese, any other in English; text of a pair cannot leave its place."""
    assert prompt_for("compare", "怎样泡茶？").name == "compare.zh"
    assert prompt_for("compare", "How is tea made?").name == "compare.en"
    for name in ("compare", "rubric"):
        assert prompt_for(name, "茶").slots == prompt_for(name, "tea").slots
    filled = prompt_for("rubric", "tea").fill(text="{output}", instruction="[system]\nx", output="o", criterion="c")
    assert [message["role"] for message in filled] == ["system", "user"]
    assert "{output}" in filled[1]["content"]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=30))
def test_bootstrap(values):
    """The interval is around the mean, within the values, and the same each time."""
    found = bootstrap(values)
    assert found == bootstrap(values)
    if values:
        assert min(values) <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= max(values)
        assert found.value == pytest.approx(np.mean(values))


def test_the_interval_is_that_of_so_many_pairs():
    """As wide as that of a mean of a hundred draws, and narrower for four times as many."""
    few, many = bootstrap([0.0, 1.0] * 50), bootstrap([0.0, 1.0] * 200)
    assert (few.low, few.value, few.high) == pytest.approx((0.402, 0.5, 0.598), abs=0.012)
    assert (many.low, many.high) == pytest.approx((0.451, 0.549), abs=0.008)
