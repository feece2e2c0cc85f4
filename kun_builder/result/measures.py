"""Numbers that steps put on rows: how they are spread over kept and rejected rows, and where they were cut.

Which columns there are, who adds them and which limit was set follows from the report of a run alone: a step that adds
a column of numbers is in the card, the report page and the pictures without a word about it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Literal

from kun_builder.declarations import Quantity

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Values = npt.NDArray[np.float64]

SHARE_EDGES = tuple(round(step / 20, 2) for step in range(21))
"""Bins of values that all lie in 0..1."""
LOG_EDGES = tuple(round(2 ** (step / 2), 1) for step in range(2, 40))
"""Bins of any other values, two for each doubling."""


@dataclass(frozen=True)
class Histogram:
    """Counts between neighbouring edges; values outside go into the first or last bin."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise ValueError for what is no histogram: a file of somebody else's may say anything."""
        if len(self.edges) != len(self.counts) + 1 or list(self.edges) != sorted(set(self.edges)):
            raise ValueError("a histogram has ascending edges, one more than counts")
        if not all(isfinite(edge) for edge in self.edges) or any(count < 0 for count in self.counts):
            raise ValueError("a histogram has finite edges, and counts that are not negative")

    @property
    def total(self) -> int:
        """Number of values."""
        return sum(self.counts)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How values lie: the least, the 5th, 50th and 95th percentile, the greatest, and the mean."""

    least: float
    low: float
    median: float
    high: float
    greatest: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The steps that add a column, and the limits that their options set for it."""

    labels: tuple[str, ...]
    quantity: Quantity = field(default_factory=Quantity)
    """What the column means, as the last of the steps has declared it."""
    least: float | None = None
    most: float | None = None
    alone: bool = True
    """That the steps add no other number: what they reject, they reject by this one."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One column of numbers in one split."""

    steps: tuple[str, ...]
    kept: Histogram
    rejected: Histogram
    """Of the rows that a step which adds the column has rejected; `elsewhere` is of those that another step has."""
    elsewhere: Histogram
    spread: Spread | None
    """Of the kept rows, if there are any."""
    least: float | None
    most: float | None
    """The limits that options set."""
    cut_below: float | None
    cut_above: float | None
    """On a side without a limit: the rejected values nearest to those that passed, below and above them."""
    beyond: int
    """Rows that were rejected for lying beyond the limits, or beyond what passed."""
    title: str = ""
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    """What the column means, as its stage has declared it (`types.Quantity`)."""

    def heading(self, column: str) -> str:
        """What a picture of the measure is called: what is measured, and which end of it is the better one."""
        title = self.title or column
        return f"{title} ({self.better} is better)" if self.better else title

    @property
    def rows(self) -> int:
        """Rows that were measured."""
        return self.kept.total + self.rejected.total + self.elsewhere.total


# --- measuring -----------------------------------------------------------------------------------------------------


def measure(
    owner: Owner, column: str, kept: Callable[..., Iterator[pa.Table]], rejected: Callable[..., Iterator[pa.Table]]
) -> Measure | None:
    """What became of one column; None if no row has a number in it. The functions give tables of the named columns."""
    passed = _join([_values(table, column) for table in kept((column,))])
    by_it, others = [], []
    for table in rejected((column, "_stage")):
        hit = _by(table, owner.labels)
        by_it.append(_values(table.filter(hit), column))
        others.append(_values(table.filter(_not(hit)), column))
    here, elsewhere = _join(by_it), _join(others)
    everything = _join([passed, here, elsewhere])
    if not len(everything):
        return None
    edges = SHARE_EDGES if everything.min() >= 0 and everything.max() <= 1 else LOG_EDGES
    below, above = _cuts(owner, _join([passed, elsewhere]), here)
    return Measure(
        steps=owner.labels,
        kept=_histogram(passed, edges),
        rejected=_histogram(here, edges),
        elsewhere=_histogram(elsewhere, edges),
        spread=spread_of(passed),
        least=owner.least,
        most=owner.most,
        cut_below=below,
        cut_above=above,
        beyond=_beyond(owner, here, below, above),
        title=owner.quantity.title,
        unit=owner.quantity.unit,
        better=owner.quantity.better,
    )


def spread_of(values: Values) -> Spread | None:
    """How `values` lie; None if there are none."""
    import numpy as np

    if not len(values):
        return None
    least, low, median, high, greatest = np.percentile(values, [0, 5, 50, 95, 100]).tolist()
    mean = float(np.mean(values))
    return Spread(least=least, low=low, median=median, high=high, greatest=greatest, mean=mean)


def _cuts(owner: Owner, passed: Values, here: Values) -> tuple[float | None, float | None]:
    """The rejected values nearest to those that passed, below and above them; None where the cut has another reason."""
    if not owner.alone or not len(passed):
        return None, None
    below, above = here[here < passed.min()], here[here > passed.max()]
    return (
        float(below.max()) if len(below) and owner.least is None else None,
        float(above.min()) if len(above) and owner.most is None else None,
    )


def _beyond(owner: Owner, here: Values, below: float | None, above: float | None) -> int:
    import numpy as np

    out = np.zeros(len(here), bool)
    if owner.least is not None:
        out |= here < owner.least
    if owner.most is not None:
        out |= here > owner.most
    if below is not None:
        out |= here <= below
    if above is not None:
        out |= here >= above
    return int(out.sum())


def _values(table: pa.Table, column: str) -> Values:
    """The finite numbers of a column; none if it is missing or holds anything else."""
    import numpy as np
    import pyarrow as pa

    if column not in table.column_names:
        return np.empty(0)
    kind = table.schema.field(column).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return np.empty(0)
    values = table[column].drop_null().to_numpy().astype(float)
    finite: Values = values[np.isfinite(values)]
    return finite


def _by(table: pa.Table, labels: Sequence[str]) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.fill_null(pc.is_in(table["_stage"], pa.array(labels, table["_stage"].type)), False)


def _not(mask: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.invert(mask)


def _join(parts: Sequence[Values]) -> Values:
    import numpy as np

    return np.concatenate([np.empty(0), *parts])


def _histogram(values: Values, edges: tuple[float, ...]) -> Histogram:
    import numpy as np

    return Histogram(edges, tuple(np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist()))
