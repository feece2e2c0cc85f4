"""Figures of a result: which rows stand for all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun_builder.result.stats import spread


@given(st.integers(0, 10_000), st.integers(0, 50))
def test_examples_are_spread_over_all_rows(rows, wanted):
    """Of so many equal parts of the rows, each gives one; never more rows than there are."""
    found = spread(rows, wanted)
    assert len(found) == min(rows, wanted)
    for number, row in enumerate(found):
        assert number * rows // len(found) <= row < (number + 1) * rows / len(found)


@pytest.mark.parametrize(("rows", "wanted", "found"), [(100, 4, [12, 37, 62, 87]), (3, 5, [0, 1, 2]), (0, 3, [])])
def test_an_example_is_the_middle_of_its_part(rows, wanted, found):
    """Neither the first row nor the last, where corpora have their headers and torn ends."""
    assert spread(rows, wanted) == found
