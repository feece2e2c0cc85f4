"""The search for thresholds: which places of them reach a wanted precision at the least loss of good rows.

Several thresholds together have too many places to try them all, and a climber alone takes the first cut that reaches
the precision, whatever it costs. So it climbs from several places, one of which is found with patience.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

from kun_builder.result.limits import Limit

_Place: TypeAlias = tuple[int, ...]
"""For each threshold, the number of its cut."""


@dataclass(frozen=True)
class Rows:
    """Verdicts as arrays: whether good, how heavy, and the measured values by column (NaN where there is none)."""

    good: Any
    weight: Any
    values: Mapping[str, Any]

    def at(self, mask: Any) -> Rows:
        """Those of a mask."""
        return Rows(self.good[mask], self.weight[mask], {name: column[mask] for name, column in self.values.items()})

    def passes(self, limit: Limit) -> Any:
        """The mask of those that one threshold lets pass."""
        import numpy as np

        values = self.values[limit.column]
        return (values >= limit.value if limit.at_least else values <= limit.value) | np.isnan(values)


def search(rows: Rows, limits: Sequence[Limit], wanted: float, least: int) -> list[Limit]:
    """The best thresholds that climbing finds from three places: those that are set, those that let all pass, and
    those that peeling leads to. One whose move gains nothing stays where it was."""
    grid = _Grid.of(rows, limits)
    now = tuple(cuts.index(limit.value) for cuts, limit in zip(grid.cuts, limits, strict=True))
    everything = (0,) * len(limits)
    starts = (now, everything, _peel(grid, everything, wanted, least))
    found = max((_climb(grid, start, wanted, least) for start in starts), key=lambda at: grid.worth(at, wanted, least))
    for number, cut in enumerate(now):
        stays = (*found[:number], cut, *found[number + 1 :])
        if grid.worth(stays, wanted, least) >= grid.worth(found, wanted, least):
            found = stays
    return [replace(limit, value=cuts[at]) for limit, cuts, at in zip(limits, grid.cuts, found, strict=True)]


@dataclass(frozen=True)
class _Grid:
    """Every place of each threshold that makes a difference, loosest first: `masks` has for each threshold an array
    (cuts, rows) of what passes there."""

    cuts: Sequence[Sequence[float]]
    masks: Sequence[Any]
    weight: Any
    good: Any

    @classmethod
    def of(cls, rows: Rows, limits: Sequence[Limit]) -> _Grid:
        import numpy as np

        found = [sorted({*cuts_of(rows, one), one.value}, reverse=not one.at_least) for one in limits]
        masks = [
            np.array([rows.passes(replace(limit, value=cut)) for cut in cuts])
            for limit, cuts in zip(limits, found, strict=True)
        ]
        return cls(found, masks, rows.weight, rows.weight * rows.good)

    def passing(self, at: _Place, leave: int = -1) -> Any:
        """The mask of rows that pass all thresholds but the one to leave out."""
        import numpy as np

        found = np.ones(len(self.weight), dtype=bool)
        for number, (masks, cut) in enumerate(zip(self.masks, at, strict=True)):
            if number != leave:
                found &= masks[cut]
        return found

    def moves(self, at: _Place) -> Iterator[tuple[int, Any]]:
        """For each threshold, what passes at each of its cuts while the others stay."""
        for number, masks in enumerate(self.masks):
            yield number, masks & self.passing(at, number)

    def worth(self, at: _Place, wanted: float, least: int) -> tuple[float, float]:
        """See `_worths`."""
        return self.worths(self.passing(at)[None], wanted, least)[0]

    def worths(self, passed: Any, wanted: float, least: int) -> list[tuple[float, float]]:
        """Of each mask, first the precision, as far as it is wanted; then how much of the good passes. Masks of too few
        rows are worth nothing, and the less the fewer they are."""
        best = float(self.good.sum())
        return [
            (round(min(right / kept, wanted), 9), round(right / best, 9)) if rows >= least and best else (0.0, rows)
            for rows, kept, right in zip(
                passed.sum(axis=1).tolist(), (passed @ self.weight).tolist(), (passed @ self.good).tolist(), strict=True
            )
        ]


def _climb(grid: _Grid, at: _Place, wanted: float, least: int) -> _Place:
    """The best single move of any threshold, again and again, until none is better."""
    worth = grid.worth(at, wanted, least)
    while True:
        moves = [
            (one, (*at[:number], cut, *at[number + 1 :]))
            for number, passed in grid.moves(at)
            for cut, one in enumerate(grid.worths(passed, wanted, least))
        ]
        best = max(moves, key=lambda move: move[0])
        if best[0] <= worth:
            return at
        worth, at = best


def _peel(grid: _Grid, at: _Place, wanted: float, least: int) -> _Place:
    """Cut off where most bad rows go for each good one, until enough of what is left is good: the patient rule
    induction of Friedman and Fisher (1999)."""
    bad = grid.weight - grid.good
    while grid.worth(at, wanted, least)[0] < round(wanted, 9):
        before = grid.passing(at)
        prices = [
            ((gone / (lost + 1e-9), gone), (*at[:number], cut, *at[number + 1 :]))
            for number, passed in grid.moves(at)
            for cut, (rows, gone, lost) in enumerate(
                zip(
                    passed.sum(axis=1),
                    before @ bad - passed @ bad,
                    before @ grid.good - passed @ grid.good,
                    strict=True,
                )
            )
            if cut > at[number] and rows >= least and gone > 0
        ]
        if not prices:
            return at
        at = max(prices)[1]
    return at


def cuts_of(rows: Rows, limit: Limit) -> Iterator[float]:
    """All places of a threshold that make a difference, the one that lets everything pass first.

    Each lies between two measured values or beyond them all, as round as it can be: it must not sit on a row.
    """
    import numpy as np

    values = rows.values[limit.column]
    found = np.unique(values[~np.isnan(values)])
    if not limit.at_least:
        found = found[::-1]
    if len(found):
        yield _beyond(float(found[0]), limit.at_least)
    for outside, inside in pairwise(found):
        yield _between(float(outside), float(inside))


def _beyond(value: float, at_least: bool) -> float:
    """The next hundredth on the side of a measured value that lets it pass."""
    return (math.floor if at_least else math.ceil)(value * 100) / 100


def _between(outside: float, inside: float) -> float:
    middle = (outside + inside) / 2
    for digits in (2, 3, 4, 6):
        rounded = round(middle, digits)
        if min(outside, inside) < rounded < max(outside, inside):
            return rounded
    return inside
