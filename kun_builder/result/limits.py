"""Which measured column each threshold of a run cuts, so that any stage's thresholds can be drawn and calibrated.

A stage declares it: the `Quantity` of a column names the options that limit it. Reports of versions before such
declarations are read by the names of their options instead: `least_x` and `min_x` keep rows whose column `x` is at
least so large, `most_x` and `max_x` those whose is at most; `threshold` cuts the column that is named as its stage, or
else the last column of numbers that the stage adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kun_builder.report import StepFacts

_FROM, _UP_TO = ("least_", "min_"), ("most_", "max_")
FLOATS = ("double", "float")


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold of one step. `step` is its label; rows on the right side of `value` pass, and rows without one."""

    step: str
    stage: str
    option: str
    column: str
    value: float
    at_least: bool = True

    @property
    def name(self) -> str:
        """As people write it: the step, a dot and the option."""
        return f"{self.step}.{self.option}"

    def keeps(self, measured: float | None) -> bool:
        """Whether a row with this value passes."""
        return measured is None or (measured >= self.value if self.at_least else measured <= self.value)


def limits_of(
    steps: Iterable[StepFacts], columns: Iterable[str] = (), *, kinds: tuple[str, ...] = FLOATS
) -> list[Limit]:
    """The thresholds of steps, in the order of their options.

    columns: the measured columns there are, for steps of older reports, which do not say what they add. kinds: types of
    the columns that count.
    """
    known = tuple(columns)
    return [limit for step in steps for limit in _limits(step, known, kinds)]


def _limits(step: StepFacts, known: tuple[str, ...], kinds: tuple[str, ...]) -> Iterator[Limit]:
    columns = known if step.adds is None else tuple(name for name, kind in step.adds.items() if kind in kinds)
    for option, value in step.options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        column, at_least = _named(step, option, columns) if step.quantities is None else _declared(step, option)
        if column in columns:
            yield Limit(step.label, step.stage, option, column, float(value), at_least)


def _declared(step: StepFacts, option: str) -> tuple[str, bool]:
    """The column that an option limits, or "", and whether rows are kept from the value on."""
    for column, quantity in (step.quantities or {}).items():
        if option in (quantity.least, quantity.most):
            return column, option == quantity.least
    return "", True


def _named(step: StepFacts, option: str, columns: tuple[str, ...]) -> tuple[str, bool]:
    """The same for the step of an older report, which declares nothing: found by the name of the option."""
    if option == "threshold":
        own = step.stage in columns or step.adds is None
        return step.stage if own else "".join(columns[-1:]), True
    for prefixes, at_least in ((_FROM, True), (_UP_TO, False)):
        for prefix in prefixes:
            if option.startswith(prefix):
                return option.removeprefix(prefix), at_least
    return "", True
