"""The largest clusters: kept rows in whose favour most others were dropped, as near-duplicates of them are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from kun_builder.drops import DROPPED

if TYPE_CHECKING:
    import pyarrow as pa

_CANDIDATES = 200
"""Ids that are looked up among the kept rows: the row of one may have been dropped later itself."""


def cluster_sizes(rejected: Iterable[pa.Table]) -> Counter[str]:
    """How many rows were dropped in favour of each id: those whose verdict has this id as its value.

    A value counts as an id if it looks like one, `split/file:position`. rejected: `_outcome` and `_value` of the
    rejected rows of all splits; tables that lack them are left out.
    """
    import pyarrow.compute as pc

    found: Counter[str] = Counter()
    for table in rejected:
        if {"_outcome", "_value"} <= {*table.column_names}:
            said = table.filter(pc.equal(table["_outcome"], DROPPED))["_value"].drop_null()
            ids = said.filter(pc.match_substring(said, "/"))
            found.update({one["values"]: one["counts"] for one in pc.value_counts(ids).to_pylist()})
    return found


def largest_clusters(kept: Iterable[pa.Table], sizes: Mapping[str, int], number: int = 10) -> dict[str, int]:
    """The instructions in whose favour most rows were dropped, with their number; kept: `id` and `instruction`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    named = dict(Counter(sizes).most_common(_CANDIDATES))
    found: Counter[str] = Counter()
    for table in kept if named else ():
        if "instruction" in table.column_names:
            for row in table.filter(pc.is_in(table["id"], pa.array([*named]))).to_pylist():
                found[row["instruction"]] += named[row["id"]]
    return dict(found.most_common(number))
