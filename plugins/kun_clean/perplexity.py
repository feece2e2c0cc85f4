"""Stage `perplexity`: how surprised a language model is by a text; too little means boilerplate, too much garbage.

Figures of different models, and of different kinds of text by one model, cannot be compared (a cooking recipe is not
worse than a law because the model knows fewer dishes), so the cut is by percentile within each split.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from kun_builder import DatasetStage, FileName, Quantity

from .language_models import BUILTIN, load

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from .characters import Array

GARBAGE = 2000.0
"""Default of `max_perplexity` for the built-in model; see data/zh_char5.json for what real and shuffled text has."""

MIN_ROWS = 100
"""A split with fewer rows is not cut by percentile: one row would be more than one percent, and the cut would tell
more about the sample than about the row."""


def _ordered(percentiles: tuple[float, float]) -> tuple[float, float]:
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise ValueError(f"must be two ascending percentiles between 0 and 100, not [{low:g}, {high:g}]")
    return percentiles


Percentiles = Annotated[tuple[float, float], AfterValidator(_ordered)]


def measure(
    table: pa.Table,
    *,
    model: FileName = BUILTIN,
    keep_percentiles: Percentiles = (5.0, 90.0),
    max_perplexity: Annotated[float, Field(gt=1)] | None = None,
) -> pa.Table:
    """Add `perplexity` (per token, at least 1). Raises KunError if the model cannot be used."""
    import pyarrow as pa

    values = load(model)(table["text"].to_pylist())
    return table.append_column("perplexity", pa.array(values, pa.float64()))


def run(
    dataset: Dataset,
    *,
    model: FileName = BUILTIN,
    keep_percentiles: Percentiles = (5.0, 90.0),
    max_perplexity: Annotated[float, Field(gt=1)] | None = None,
) -> list[tuple[int, str, object]]:
    """The rows to drop, in three ways.

    `perplexity_garbage`: above `max_perplexity`; by default `GARBAGE` for the built-in model, no limit for others.
    `perplexity_low`, `perplexity_high`: outside the `keep_percentiles` of the other rows of the split (interpolated
    linearly; a row that lies on one is kept). A split of under `MIN_ROWS` rows is not cut in this way.
    """
    import numpy as np

    table = dataset.with_format("arrow")[:]
    values = table["perplexity"].to_numpy()
    limit = max_perplexity or (GARBAGE if model == BUILTIN else np.inf)
    garbage = values > limit
    drops = list(_drops(np.flatnonzero(garbage), values, "perplexity_garbage"))
    splits = table["split"].combine_chunks().dictionary_encode().indices.to_numpy()
    for split in np.unique(splits):
        rows = np.flatnonzero((splits == split) & ~garbage)
        if len(rows) >= MIN_ROWS:
            low, high = np.percentile(values[rows], keep_percentiles)
            drops += _drops(rows[values[rows] < low], values, "perplexity_low")
            drops += _drops(rows[values[rows] > high], values, "perplexity_high")
    return sorted(drops)


def _drops(rows: Array, values: Array, reason: str) -> Iterator[tuple[int, str, Any]]:
    return ((int(row), reason, f"{values[row]:.1f}") for row in rows)


stage = DatasetStage(
    name="perplexity",
    run=run,
    measure=measure,
    adds={"perplexity": "double"},
    quantities={"perplexity": Quantity(title="perplexity of the text", unit="per token", most="max_perplexity")},
    columns=("split",),
)
