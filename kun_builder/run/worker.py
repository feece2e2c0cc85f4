"""`run_table(table, job)`: one shard in, one shard out. Owns nothing of `datasets` or Ray.

The result has the living rows first and in input order, then the dead ones with their verdicts; its schema is
`job.schema`, whatever became of the rows. What a stage raises on one row costs that row and no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from kun_builder.drops import DROPPED, QUARANTINED, VERDICT, with_verdicts
from kun_builder.errors import KunError, PluginError
from kun_builder.report import StepCounts, Tally
from kun_builder.run.rows import CALL_COLUMNS, REFUSED, Outcome
from kun_builder.types import DatasetStage, Row

if TYPE_CHECKING:
    from kun_builder.run.plan import Segment, Step

CALLS = pa.list_(pa.struct([(name, pa.int64() if name.endswith("_tokens") else pa.string()) for name in CALL_COLUMNS]))
_SUSPECT = 10
"""If a stage fails on every row of a shard with at least this many, the stage is at fault and not the rows."""

_TURN = 64
"""How many rows are turned into Arrow, or out of it, at once. Python runs nothing else meanwhile; between two turns
the event loop of the models gets its own, so that answers do not wait for a whole shard."""

RunRows = Callable[[Sequence[Row], "Sequence[Step]"], tuple[list[Outcome], Mapping[tuple[str, str], Tally]]]
"""A function of the executor that runs row stages, since it has the event loop and the generator."""


@dataclass(frozen=True)
class Job:
    """What to do with a shard: the steps, and the schema of the result. `closed` are splits of corpora whose text must
    not be passed on; row stages are told by the key `redistributable` of each row."""

    steps: tuple[Step, ...]
    schema: pa.Schema
    rows: bool = False
    closed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Result:
    """A shard's result. The first `alive` rows of `table` live on."""

    table: pa.Table
    alive: int
    counts: tuple[StepCounts, ...]
    usage: Mapping[tuple[str, str], Tally] = field(default_factory=dict)


def make_job(segment: Segment, schema: pa.Schema, closed: Iterable[str] = ()) -> Job:
    """The job of a segment on shards of `schema`; `closed` as in `Job`."""
    fields = {name: schema.field(name).type for name in schema.names if name not in VERDICT}
    fields.update({name: arrow_type(kind) for name, kind in segment.adds.items()})
    if segment.kind == "rows":
        fields["calls"] = CALLS
    fields.update(dict.fromkeys(VERDICT, pa.string()))
    return Job(segment.steps, pa.schema(list(fields.items())), segment.kind == "rows", frozenset(closed))


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type called `name`: `string`, `double`, `int64`, ..., or `list<...>` of one. Raises PluginError."""
    if name.startswith("list<") and name.endswith(">"):
        return pa.list_(arrow_type(name[5:-1]))
    try:
        return pa.type_for_alias(name)
    except ValueError as error:
        raise PluginError(
            f"`{name}` is not an Arrow type name", hint="use string, double, int64, bool, list<string>"
        ) from error


def run_table(
    table: pa.Table, job: Job, run_rows: RunRows | None = None, begin: Callable[[Step], None] = lambda step: None
) -> Result:
    """Run the job's steps over the living rows of `table`; `begin` is told of each batch step before it runs.

    Raises KunError only for what must stop the run.
    """
    if "_outcome" in table.column_names:
        table = table.filter(pc.is_null(table["_outcome"]))
    table = table.drop_columns([name for name in VERDICT if name in table.column_names])
    if job.rows:
        if run_rows is None:
            raise TypeError("row stages need `run_rows`")
        return _run_rows(table, job, run_rows)
    dead, counts = [], []
    for step in job.steps:
        begin(step)
        table, died, count = _batch_step(table, step)
        dead.append(died)
        counts.append(count)
    return _result(table, dead, counts, job)


def _result(alive: pa.Table, dead: Sequence[pa.Table], counts: Sequence[StepCounts], job: Job) -> Result:
    parts = [conform(part, job.schema) for part in (alive, *dead)]
    return Result(pa.concat_tables(parts).combine_chunks(), alive.num_rows, tuple(counts))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of `schema`, null where it has none."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


# --- batches ---------------------------------------------------------------------------------------------------


def _batch_step(table: pa.Table, step: Step) -> tuple[pa.Table, pa.Table, StepCounts]:
    """Living rows, dead rows and counts of one step."""
    failures: list[tuple[pa.Table, str, str]] = []
    done = pa.concat_tables(_isolate(table, step, failures) if table.num_rows else [_empty(table, step)])
    if len(failures) == table.num_rows >= _SUSPECT:
        raise _broken(step, f"{failures[0][1]}: {failures[0][2]}")
    lives = pc.is_null(done["_outcome"])
    done = with_verdicts(done, {"_stage": pc.if_else(lives, pa.scalar(None, pa.string()), step.label)})
    alive = done.filter(lives).drop_columns(list(VERDICT))
    died = done.filter(pc.invert(lives))
    bad = [_quarantine(row, step, reason, value) for row, reason, value in failures]
    died = pa.concat_tables([died, *bad], promote_options="default")
    created = alive.num_rows + died.num_rows - table.num_rows
    if created < 0:
        raise PluginError(
            f"{step} removed {-created} rows",
            hint="a batch stage drops rows with `drop_rows(table, mask, reason, values)`",
        )
    return alive, died, _counts(step, table.num_rows, alive.num_rows, created, died)


def _isolate(table: pa.Table, step: Step, failures: list[tuple[pa.Table, str, str]]) -> list[pa.Table]:
    """Run the step. If it raises, run it on each half, and so on until the rows at fault are alone."""
    function = step.stage.measure if isinstance(step.stage, DatasetStage) else step.stage.run
    try:
        return [_checked(function(table, **step.arguments), table, step)]  # type: ignore[misc]
    except KunError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's stage may raise anything, and one bad row never ends a run
        if table.num_rows == 1:
            failures.append((table, type(error).__name__, str(error)[:500]))
            return [_empty(table.slice(0, 0), step)]
        half = table.num_rows // 2
        return _isolate(table.slice(0, half), step, failures) + _isolate(table.slice(half), step, failures)


def _empty(table: pa.Table, step: Step) -> pa.Table:
    """The table that the stage would have made of no rows."""
    return conform(table, _step_schema(table, step))


def _step_schema(before: pa.Table, step: Step) -> pa.Schema:
    columns = {name: before.schema.field(name).type for name in before.column_names}
    columns |= {name: arrow_type(kind) for name, kind in step.adds.items()}
    return pa.schema(list(columns.items()) + [(name, pa.string()) for name in VERDICT])


def _checked(result: Any, before: pa.Table, step: Step) -> pa.Table:
    """The result with its declared columns in their declared types. Raises PluginError if the columns are others."""
    if not isinstance(result, pa.Table):
        raise PluginError(f"{step} returned {type(result).__name__}, not a pyarrow.Table")
    schema = _step_schema(before, step)
    wrong = ", ".join(sorted((set(result.column_names) ^ set(schema.names)) - set(VERDICT)))
    if wrong:
        raise PluginError(
            f"{step} returned other columns than it declares: {wrong}",
            hint="`adds` must name exactly the columns that the stage adds",
        )
    return conform(result, schema)


def _broken(step: Step, error: str) -> PluginError:
    return PluginError(
        f"{step} failed on every row: {error}",
        hint="this is a fault of the plugin or of its options, not of the rows",
    )


def _quarantine(row: pa.Table, step: Step, reason: str, value: str) -> pa.Table:
    verdict = dict(zip(VERDICT, (QUARANTINED, step.label, reason, value), strict=True))
    return with_verdicts(row, {name: pa.array([text], pa.string()) for name, text in verdict.items()})


# --- rows ------------------------------------------------------------------------------------------------------


def _run_rows(table: pa.Table, job: Job, run_rows: RunRows) -> Result:
    outcomes, usage = run_rows(_rows(table, job.closed), job.steps) if table.num_rows else ([], {})
    alive = _typed([outcome for outcome in outcomes if outcome.died_at is None], job)
    dead = sorted((o for o in outcomes if o.died_at is not None), key=lambda outcome: outcome.died_at or 0)
    table = pa.concat_tables([alive, _dead_table(dead, job)]).combine_chunks()
    return Result(table, alive.num_rows, tuple(_row_counts(outcomes, job)), usage)


def _rows(table: pa.Table, closed: frozenset[str]) -> list[Row]:
    rows: list[Row] = []
    for batch in table.to_batches(max_chunksize=_TURN):
        rows += ({**row, "redistributable": row["split"] not in closed} for row in batch.to_pylist())
        time.sleep(0)
    return rows


def _table(outcomes: Sequence[Outcome], job: Job) -> pa.Table:
    batches = []
    for at in range(0, len(outcomes), _TURN):
        rows = [_columns(outcome, job) for outcome in outcomes[at : at + _TURN]]
        batches.append(pa.RecordBatch.from_pylist(rows, schema=job.schema))
        time.sleep(0)
    return pa.Table.from_batches(batches, job.schema)


def _columns(outcome: Outcome, job: Job) -> Row:
    verdict = (outcome.outcome, None, outcome.reason, outcome.value)
    row = {**outcome.row, "calls": outcome.calls, **dict(zip(VERDICT, verdict, strict=True))}
    if outcome.died_at is not None:
        row["_stage"] = job.steps[outcome.died_at].label
    return row


def _typed(live: list[Outcome], job: Job) -> pa.Table:
    """The rows that fit the schema; the others are quarantined at the step that adds the bad column."""
    try:
        table = _table(live, job)
    except _UNFIT:
        pass
    else:
        if all(_missing(outcome, job) is None for outcome in live):
            return table
    good = []
    for outcome in live:
        fault = _fault(outcome, job)
        if fault is None:
            good.append(outcome)
            continue
        outcome.died_at, outcome.outcome = fault[0], QUARANTINED
        outcome.reason, outcome.value = "wrong_type", fault[1]
        outcome.row = _fitting(outcome.row, job)
    return _table(good, job)


def _dead_table(dead: Sequence[Outcome], job: Job) -> pa.Table:
    """The rows that died, whatever a stage had put into their columns before."""
    try:
        return _table(dead, job)
    except _UNFIT:
        for outcome in dead:
            outcome.row, outcome.value = _fitting(outcome.row, job), _written(outcome.value)
        return _table(dead, job)


_UNFIT = (pa.ArrowException, TypeError, ValueError)
"""What Arrow raises for a value that a column cannot hold."""


def _misfit(value: object, kind: pa.DataType) -> str:
    """Why a column of this type cannot hold a value; empty where it can."""
    try:
        pa.array([value], kind)
    except _UNFIT as error:
        return str(error)
    return ""


def _fitting(row: Row, job: Job) -> Row:
    """The row, with what its columns cannot hold written out in those of text, and left out in others."""
    types = {name: job.schema.field(name).type for name in row if name in job.schema.names}
    wrong = {name: kind for name, kind in types.items() if _misfit(row[name], kind)}
    written = {name: _written(row[name]) for name in wrong}
    return {**row, **{name: written[name] if pa.types.is_string(kind) else None for name, kind in wrong.items()}}


def _missing(outcome: Outcome, job: Job) -> tuple[int, str] | None:
    for number, step in enumerate(job.steps):
        for name in step.adds:
            if name not in outcome.row:
                return number, f"column `{name}` was not set"
    return None


def _written(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def _fault(outcome: Outcome, job: Job) -> tuple[int, str] | None:
    """Number of the step and description of the first column that is missing or of the wrong type. A column that none
    of the steps adds, such as `text`, counts for the last one."""
    places = {name: number for number, step in reversed([*enumerate(job.steps)]) for name in step.adds}
    last = len(job.steps) - 1
    found = [
        (places.get(name, last), f"column `{name}`: {why}"[:500])
        for name, value in outcome.row.items()
        if name in job.schema.names and (why := _misfit(value, job.schema.field(name).type))
    ]
    return min(found, default=None) or _missing(outcome, job)


def _row_counts(outcomes: Sequence[Outcome], job: Job) -> list[StepCounts]:
    counts, rows = [], len(outcomes)
    for number, step in enumerate(job.steps):
        here = [outcome for outcome in outcomes if outcome.died_at == number]
        faults = {o.reason for o in here if o.outcome == QUARANTINED} - {REFUSED}
        if len(here) == rows >= _SUSPECT and len(faults) == 1:
            raise _broken(step, f"{here[0].reason}: {here[0].value}")
        verdicts = pa.table({"_outcome": [o.outcome for o in here], "_reason": [o.reason for o in here]})
        counts.append(_counts(step, rows, rows - len(here), 0, verdicts))
        rows -= len(here)
    return counts


def _counts(step: Step, rows_in: int, rows_out: int, created: int, died: pa.Table) -> StepCounts:
    reasons: dict[str, dict[str, int]] = {DROPPED: {}, QUARANTINED: {}}
    for outcome, reason in zip(died["_outcome"].to_pylist(), died["_reason"].to_pylist(), strict=True):
        reasons[outcome][reason] = reasons[outcome].get(reason, 0) + 1
    return StepCounts(
        label=step.label,
        stage=step.stage.name,
        rows_in=rows_in,
        rows_out=rows_out,
        created=created,
        dropped=reasons[DROPPED],
        quarantined=reasons[QUARANTINED],
    )
