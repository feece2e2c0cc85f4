"""How a verdict on a row is written down in a table: four columns that the engine owns.

`_outcome` is null while the row is alive, then `dropped` or `quarantined`; `_stage`, `_reason`, `_value` say by whom,
why, and with which measured value or error. A row with an outcome is carried along but no stage sees it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

DROPPED, QUARANTINED = "dropped", "quarantined"
VERDICT = ("_outcome", "_stage", "_reason", "_value")
"""Columns of a verdict, all strings."""

RESULT_COLUMNS = ("instruction", "output")
TEXT_COLUMNS = ("text",)
"""Columns of the published default configuration: RESULT_COLUMNS for pairs, TEXT_COLUMNS if no stage makes pairs."""
TURNS = "turns"
"""The column for the rest of a conversation behind a pair: a list of strings, questions and answers in turn."""


def result_columns(columns: Iterable[str]) -> tuple[str, ...]:
    """The columns of the default configuration, for rows that have `columns`."""
    return RESULT_COLUMNS if {*RESULT_COLUMNS} & {*columns} else TEXT_COLUMNS


def drop_rows(
    table: pa.Table, mask: pa.BooleanArray | Sequence[bool], reason: str, values: Sequence[object]
) -> pa.Table:
    """Mark the rows where `mask` is true as dropped for `reason`; `values` has one value for each row.

    A row that already has a verdict keeps its first. For `BatchStage.run` and `DatasetStage.measure`.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = verdict_columns(table)
    hit = np.asarray(mask, dtype=bool) & columns["_outcome"].is_null().to_numpy(zero_copy_only=False)
    said = {
        "_outcome": pa.scalar(DROPPED),
        "_reason": pa.scalar(reason, pa.string()),
        "_value": pa.array([str(values[row]) for row in np.flatnonzero(hit).tolist()], pa.string()),
    }
    new = {name: pc.replace_with_mask(columns[name], pa.array(hit), text) for name, text in said.items()}
    return with_verdicts(table, {**columns, **new})


def verdict_columns(table: pa.Table) -> dict[str, pa.Array]:
    """The four verdict columns, null where the table has none yet."""
    import pyarrow as pa

    there, none = {*VERDICT} & {*table.column_names}, pa.nulls(table.num_rows, pa.string())
    return {
        name: pa.concat_arrays([none[:0], *table[name].cast(pa.string()).chunks]) if name in there else none
        for name in VERDICT
    }


def with_verdicts(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The table with its verdict columns set or replaced."""
    for name, column in columns.items():
        at = table.schema.get_field_index(name)
        table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
    return table
