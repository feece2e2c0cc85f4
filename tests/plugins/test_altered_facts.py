"""Clauses of the text that come back in the answer with another number or name in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_method.pairs import altered_fact, turned_kinship
from kun_method.verify import about_answer

TEXT = "1952年，塞斯纳C-170B投产，产量达5,174架，襟翼最大角度增加至40度。早期的C-172都以C-170作为设计蓝本。"


@pytest.mark.parametrize(
    ("answer", "clause"),
    [
        ("早期的C-170都以C-170作为设计蓝本。", "早期的C-170都以C-170作为设计蓝本"),
        ("襟翼最大角度增加至30度，1952年投产。", "襟翼最大角度增加至30度"),
        ("1. 投产：1953年，塞斯纳C-170B投产。", ""),  # too little beside the year to know the clause by
    ],
)
def test_another_fact_in_a_clause_of_the_text(answer, clause):
    """It contradicts the text, although each of its words stands there somewhere."""
    assert altered_fact(answer, TEXT) == clause
    if clause:
        assert about_answer("塞斯纳C-170怎么样？", f"{answer}30", f"{TEXT}30") == ("contradicts", clause)


def test_facts_may_be_left_out_and_written_otherwise():
    """5174 is 5,174, and a clause that drops its number states no other one; numbers of a list are no facts."""
    assert not altered_fact("产量达5174架，襟翼最大角度增加了许多。", TEXT)
    assert not altered_fact("1. 襟翼最大角度增加至40度\n2. 早期的c-172都以c-170作为设计蓝本", TEXT)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("John was born in 1839. His father, William, was a poet.", "His father"),
        ("John, the father of William, was born in 1839.", ""),
        ("John was born in 1839, and his mother sang.", ""),
    ],
)
def test_a_child_does_not_become_the_father(answer, words):
    """Of a text that has `the father of`, unless it has somebody's own father too."""
    text = "Born in 1839, the father of the poet William painted portraits."
    assert turned_kinship(answer, text) == words
    assert not turned_kinship(answer, text + " His father was a priest.")
    if words:
        assert about_answer("Who was John?", answer.replace("John", "William"), text) == ("contradicts", words)


@given(st.text(alphabet="产量襟翼最大角度增加至，。1234,-aB \n", max_size=60))
def test_a_text_does_not_contradict_itself(text):
    """Whatever the text: its own words are none of another fact."""
    assert not altered_fact(text, text)
