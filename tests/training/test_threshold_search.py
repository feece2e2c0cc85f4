"""The search for thresholds finds what trying all of them would, and moves none for nothing."""

import itertools
import random

import numpy as np
import pytest
from kun_training.evaluation.search import Rows, cuts_of, search

from kun_builder.result.limits import Limit

LEAST = 5


def limit(number, value=0.3, *, at_least=True):
    return Limit("verify", "verify", f"least_{number}", f"c{number}", value, at_least)


def drawn(seed, count, columns):
    """Rows of which the good ones measure more, as a rule; some weigh more, some are not measured."""
    chance = random.Random(seed)
    good = [chance.random() < 0.6 for _ in range(count)]

    def column():
        found = [chance.gauss(0.6, 0.2) if one else chance.gauss(0.45, 0.25) for one in good]
        return np.array([value if chance.random() > 0.1 else float("nan") for value in found])

    weight = np.array([chance.choice([1.0, 1.0, 4.0]) for _ in good])
    return Rows(np.array(good), weight, {f"c{number}": column() for number in range(columns)})


def worth(rows, limits, wanted):
    """Precision as far as it is wanted, and recall, counted row by row."""
    passed = [
        all(one.keeps(None if np.isnan(value := rows.values[one.column][row]) else value) for one in limits)
        for row in range(len(rows.good))
    ]
    if sum(passed) < LEAST:
        return (0.0, 0.0)
    kept = sum(w for w, p in zip(rows.weight, passed, strict=True) if p)
    right = sum(w for w, g, p in zip(rows.weight, rows.good, passed, strict=True) if p and g)
    return round(min(right / kept, wanted), 9), round(right / sum(rows.weight[rows.good]), 9)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_better(seed):
    """Of all places of two thresholds none reaches more of the wanted precision, or the same with fewer good lost."""
    rows, limits = drawn(seed, 16, 2), [limit(0), limit(1)]
    found = worth(rows, search(rows, limits, 0.85, LEAST), 0.85)
    places = itertools.product(*([limit(n, cut) for cut in cuts_of(rows, limit(n))] for n in range(2)))
    assert found >= max(worth(rows, place, 0.85) for place in places)


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_that_are_set_are_a_start(seed):
    """What is chosen is never worse than what is there, and choosing again changes nothing."""
    rows, limits = drawn(seed, 60, 4), [limit(n, 0.45) for n in range(4)]
    found = search(rows, limits, 0.9, LEAST)
    assert worth(rows, found, 0.9) >= worth(rows, limits, 0.9)
    assert search(rows, found, 0.9, LEAST) == found


def test_the_first_cut_that_reaches_the_precision_is_not_taken():
    """One column reaches it at the cost of half of the good rows, two others together at the cost of none."""
    good = np.array([True] * 20 + [False] * 6)
    costly = np.array([0.9] * 10 + [0.1234] * 16)
    first, second = np.full(26, 0.9), np.full(26, 0.9)
    first[20:23] = second[23:] = 0.1
    rows = Rows(good, np.ones(26), {"c0": costly, "c1": first, "c2": second})
    limits = [limit(0, 0.121), limit(1, 0.0), limit(2, 0.0)]
    found = search(rows, limits, 0.95, LEAST)
    assert worth(rows, found, 0.95) == (0.95, 1.0)
    assert found[0] == limits[0], "it has nothing to do with it, and stays where it was set"


def test_a_threshold_that_gains_nothing_stays():
    """Its value is the recipe's, however the rows lie."""
    rows = drawn(1, 40, 2)
    rows.values["c1"][:] = 0.8
    found = search(rows, [limit(0), limit(1, 0.123)], 0.95, LEAST)
    assert found[1].value == 0.123
    assert found[0].value != 0.3


@pytest.mark.parametrize("at_least", [True, False])
def test_cuts_are_between_rows(at_least):
    """The loosest first, which lets all pass; none is the value of a row, and each is as round as it can be."""
    values = np.array([0.123456, 0.5, 0.7500001, 0.7500002, float("nan")])
    rows = Rows(np.ones(5, dtype=bool), np.ones(5), {"c0": values})
    cuts = list(cuts_of(rows, limit(0, at_least=at_least)))
    passed = [int(rows.passes(limit(0, cut, at_least=at_least)).sum()) for cut in cuts]
    assert passed == [5, 4, 3, 2]
    assert cuts[0] == (0.12 if at_least else 0.76)
    assert {0.31, 0.63} & set(cuts)
    assert rows.passes(limit(0, at_least=at_least))[4], "what was not measured passes"


def test_too_few_rows_are_worth_nothing():
    """A precision of four rows is none where five are asked for."""
    good = np.array([True] * 4 + [True, False] * 6)
    rows = Rows(good, np.ones(16), {"c0": np.arange(16, 0, -1) / 20})
    assert search(rows, [limit(0, 0.7)], 1.0, 5)[0].value < 0.6 < 0.7
    assert rows.passes(search(rows, [limit(0, 0.7)], 1.0, 5)[0]).sum() == 5
