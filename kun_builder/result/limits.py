"""Which measured column each threshold of a run cuts: found by names, so that any stage's thresholds can be calibrated.

`threshold` cuts the column that is named as its stage, or the one that the stage adds and that ends in `score`;
`least_x` and `min_x` keep rows whose column `x` is at least so large, `most_x` and `max_x` those whose is at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_FROM, _UP_TO = ("least_", "min_"), ("most_", "max_")
FLOATS = ("double", "float")
NUMBERS = (*FLOATS, "int32", "int64")


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
        """As people write it: `score.threshold`."""
        return f"{self.step}.{self.option}"

    def keeps(self, measured: float | None) -> bool:
        """Whether a row with this value passes."""
        return measured is None or (measured >= self.value if self.at_least else measured <= self.value)


def limits_of(
    steps: Iterable[Mapping[str, Any]], columns: Iterable[str] = (), *, kinds: tuple[str, ...] = FLOATS
) -> list[Limit]:
    """The thresholds of steps as a report has them (`label`, `stage`, `options`, `adds`), in their order.

    columns: the measured columns there are, for steps of older reports, which do not say what they add. kinds: types of
    the columns that count.
    """
    known = tuple(columns)
    return [limit for step in steps for limit in _limits(step, known, kinds)]


def _limits(step: Mapping[str, Any], known: tuple[str, ...], kinds: tuple[str, ...]) -> Iterator[Limit]:
    adds = step.get("adds")
    columns = known if adds is None else tuple(name for name, kind in adds.items() if kind in kinds)
    for option, value in step["options"].items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        column, at_least = _column(step["stage"], option, columns, own=adds is not None)
        if column:
            yield Limit(step["label"], step["stage"], option, column, float(value), at_least)


def _column(stage: str, option: str, columns: tuple[str, ...], *, own: bool) -> tuple[str, bool]:
    """The column that an option cuts, or "", and whether rows are kept from the value on."""
    if option == "threshold":
        scores = [name for name in columns if name == stage or (own and name.endswith("score"))]
        return (scores[0] if scores else ""), True
    for prefixes, at_least in ((_FROM, True), (_UP_TO, False)):
        for prefix in prefixes:
            if option.startswith(prefix) and option.removeprefix(prefix) in columns:
                return option.removeprefix(prefix), at_least
    return "", True
