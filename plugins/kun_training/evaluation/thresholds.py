"""Thresholds out of verdicts: those at which a wanted share of what passes is good, at the least loss of good pairs.

Works for every threshold that cuts a measured column (see `limits`), for several at once, and for verdicts that
were drawn by strata: each weighs as many rows as it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from kun_builder.errors import TrainingError
from kun_builder.result.limits import Limit, limits_of
from kun_builder.result.verdicts import weights
from kun_builder.run.plan import recipe_steps
from kun_builder.run.verdicts import Verdict
from kun_training.evaluation.search import Rows, cuts_of, search

if TYPE_CHECKING:
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Registry

LEAST_ROWS = 10
"""Judged rows that a threshold must keep: a precision of fewer says nothing."""
_FOLDS = 5
_ROUNDED = 1e-3
"""How far the value of a rejection may be from the measured one: stages round what they say."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What thresholds do to the judged rows: `rows` of them pass; the shares are of the rows that they stand for.

    precision: share of good ones among those that pass. recall: share of the good ones that pass. kept: share that
    passes of all.
    """

    rows: int
    precision: float
    recall: float
    kept: float


@dataclass(frozen=True, slots=True)
class Point:
    """One place for one threshold, and what it does while the other thresholds stay."""

    value: float
    figures: Figures


@dataclass(frozen=True)
class Calibration:
    """Chosen thresholds. `held_out` is measured on verdicts that the choice did not see (five folds)."""

    wanted: float
    judged: int
    before: tuple[Limit, ...]
    after: tuple[Limit, ...]
    figures_before: Figures
    figures_after: Figures
    held_out: Figures
    curves: Mapping[str, tuple[Point, ...]]
    """By threshold, ascending, with the others as chosen."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def limits_in(recipe: Recipe, registry: Registry) -> list[Limit]:
    """The thresholds of a recipe's steps, as they are set."""
    return limits_of(step.facts() for step in recipe_steps(recipe, registry))


def usable(verdicts: Sequence[Verdict], limits: Sequence[Limit]) -> list[Limit]:
    """Those thresholds for whose column at least two different values were measured."""

    def values(column: str) -> set[float]:
        return {verdict.measured[column] for verdict in verdicts if column in verdict.measured}

    return [limit for limit in limits if len(values(limit.column)) > 1]


def calibrate(
    verdicts: Sequence[Verdict], limits: Sequence[Limit], wanted: float, *, least: int = LEAST_ROWS
) -> Calibration:
    """Move `limits` until at least the share `wanted` of what passes is good, and as much of the good as can passes.

    Rows that were rejected for something else than these limits are left out: no threshold brings them back. Raises
    TrainingError if nothing is good or nothing bad, or if no thresholds reach `wanted` with `least` judged rows left.
    """
    chosen = usable(verdicts, limits)
    reachable = [verdict for verdict in verdicts if _reachable(verdict, limits)]
    rows = _rows(reachable, chosen)
    if not chosen or rows.good.all() or not rows.good.any():
        good = int(rows.good.sum())
        raise TrainingError(
            f"{good} good and {len(reachable) - good} bad pairs are judged, with values of {len(chosen)} thresholds",
            hint="judge more pairs, with `kun-build review RUN --seed 1`: both good and bad ones are needed",
        )
    after = search(rows, chosen, wanted, least)
    found = _figures(rows, after)
    if len(reachable) < least:
        raise TrainingError(
            f"these thresholds decide about {len(reachable)} of the judged pairs; {least} have to pass them at least",
            hint="judge more pairs, with `kun-build review RUN --seed 1`",
        )
    if found.precision < wanted or found.rows < least:
        raise TrainingError(
            f"no threshold reaches a precision of {wanted:g} and passes {least} of {len(reachable)} judged pairs;"
            f" the best is {found.precision:.2f}, with {found.rows} of them",
            hint="want less with --precision, judge more pairs, or measure something that tells good from bad",
        )
    return Calibration(
        wanted=wanted,
        judged=len(reachable),
        before=tuple(chosen),
        after=tuple(after),
        figures_before=_figures(rows, chosen),
        figures_after=found,
        held_out=_held_out(rows, chosen, wanted, least),
        curves={limit.name: tuple(_curve(rows, after, number)) for number, limit in enumerate(after)},
    )


def _reachable(verdict: Verdict, limits: Sequence[Limit]) -> bool:
    """Whether the row was kept, or rejected for being beyond one of the limits: then its value is what was measured.

    Where the limits are now does not matter: the recipe may have been calibrated since.
    """
    if not verdict.reason:
        return True
    if verdict.value is None:
        return False
    step = verdict.reason.partition(": ")[0]
    own = [limit for limit in limits if limit.step == step and limit.column in verdict.measured]
    return any(abs(verdict.measured[limit.column] - verdict.value) < _ROUNDED for limit in own)


def _rows(verdicts: Sequence[Verdict], limits: Sequence[Limit]) -> Rows:
    import numpy as np

    nothing = float("nan")
    columns = {limit.column: [v.measured.get(limit.column, nothing) for v in verdicts] for limit in limits}
    return Rows(
        np.array([verdict.good for verdict in verdicts], dtype=bool),
        np.array(weights(verdicts), dtype=float),
        {name: np.array(values, dtype=float) for name, values in columns.items()},
    )


def _passes(rows: Rows, limits: Sequence[Limit]) -> Any:
    import numpy as np

    return np.logical_and.reduce([rows.passes(limit) for limit in limits])


def _figures(rows: Rows, limits: Sequence[Limit]) -> Figures:
    return _figures_of(rows, _passes(rows, limits))


def _figures_of(rows: Rows, passed: Any) -> Figures:
    weight, good = rows.weight, rows.weight * rows.good
    total, kept = float(weight.sum()), float(weight[passed].sum())
    best, right = float(good.sum()), float(good[passed].sum())
    return Figures(
        rows=int(passed.sum()),
        precision=right / kept if kept else 0.0,
        recall=right / best if best else 0.0,
        kept=kept / total if total else 0.0,
    )


def _curve(rows: Rows, limits: Sequence[Limit], number: int) -> Iterator[Point]:
    limit = limits[number]
    for cut in sorted(cuts_of(rows, limit)):
        moved = [*limits[:number], replace(limit, value=cut), *limits[number + 1 :]]
        yield Point(cut, _figures(rows, moved))


def _held_out(rows: Rows, limits: Sequence[Limit], wanted: float, least: int) -> Figures:
    """What thresholds do to verdicts that they were not chosen by: each fifth is judged by those of the others."""
    import numpy as np

    fold = np.random.default_rng(0).permutation(len(rows.good)) % _FOLDS
    passed = np.zeros(len(rows.good), dtype=bool)
    for number in range(_FOLDS):
        seen, unseen = rows.at(fold != number), fold == number
        measured = all((~np.isnan(seen.values[limit.column])).any() for limit in limits)
        found = search(seen, limits, wanted, max(1, least * (_FOLDS - 1) // _FOLDS)) if measured else list(limits)
        passed[unseen] = _passes(rows.at(unseen), found)
    return _figures_of(rows, passed)
