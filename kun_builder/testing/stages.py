"""`check_stage`: a stage run by the engine's own worker, on rows that the author gives."""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kun_builder.drops import QUARANTINED, VERDICT
from kun_builder.errors import KunError
from kun_builder.recipe.option_values import check_options
from kun_builder.recipe.registry import Plugin
from kun_builder.report import Tally
from kun_builder.run.dataset_stage import seen_columns, verdicts_of
from kun_builder.run.plan import Segment, Step
from kun_builder.run.rows import REFUSED, Outcome, RowRunner
from kun_builder.run.worker import Job, Result, make_job, run_table
from kun_builder.run.workspace import Resources, workspace
from kun_builder.status import Status
from kun_builder.testing.fakes import Answers, scripted_models
from kun_builder.testing.faults import declared, expect
from kun_builder.types import BatchStage, DatasetStage, ModelInfo, Request, Row, RowStage, Stage

if TYPE_CHECKING:
    import pyarrow as pa

_REASON = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class StageResult:
    """What became of the rows. `dropped`: id to (reason, value), in input order, refused requests included;
    `requests`: what models were asked."""

    rows: list[Row]
    dropped: Mapping[str, tuple[str, str]]
    requests: Sequence[Request] = ()

    @property
    def reasons(self) -> list[str]:
        """Reasons of the dropped rows, in the order of the rows."""
        return [reason for reason, _ in self.dropped.values()]


def check_stage(
    stage: Stage,
    rows: Sequence[str | Row],
    *,
    answers: Answers = "answer",
    delay: float = 0.0,
    info: ModelInfo | None = None,
    **options: Any,
) -> StageResult:
    """Run `stage` on `rows` (texts, or rows with the columns that earlier stages add) and check what it does.

    Checked: signature and options; declared columns and types, also of a shard without rows; order and ids of rows; one
    fixed word as the reason of a drop; the same result again, and row by row; pickling, as other processes need it. An
    exception of the stage fails the test: in a run it would cost the row.
    answers, delay, info: what models say, after how many seconds, and who they are. A list of answers is used up row
    after row. Texts are measured in characters. Raises AssertionError.
    """
    step = _step(stage, options)
    copy = pickle.loads(_pickled(stage))
    expect(type(copy) is type(stage), f"stage `{stage.name}` comes back from pickle as {type(copy).__name__}")
    table = _table(rows)
    result = _run(step, table, answers, delay, info)
    again = _run(step, table, answers, delay, info)
    expect(result == again, f"stage `{stage.name}` gives other rows when it runs again: it must not depend on chance")
    _check_order(stage, table, result)
    if isinstance(stage, BatchStage):
        parts = [_run(step, table.slice(row, 1), answers, delay, info) for row in range(table.num_rows)]
        apart = [row for part in parts for row in part.rows]
        expect(
            apart == result.rows,
            f"stage `{stage.name}` gives other rows when they come one by one: shards may end anywhere",
        )
    for reason in result.reasons:
        expect(
            _REASON.fullmatch(reason), f"reason {reason!r} must be one fixed word, as `too_long`: reasons are counted"
        )
    return result


def _pickled(stage: Stage) -> bytes:
    try:
        return pickle.dumps(stage)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AssertionError(f"stage `{stage.name}` cannot be pickled: {error}; use functions of a module") from error


def _step(stage: Stage, given: Mapping[str, Any]) -> Step:
    """The step that a recipe with these options would have."""
    options = declared("stage", stage)
    given = {**{o.name: "characters" for o in options if o.role == "tokenizer"}, **given}
    complete, faults = check_options(options, given, Path())
    expect(not faults, f"stage `{stage.name}`: {'; '.join(fault.what for fault in faults)}")
    return Step(
        label=stage.name,
        stage=stage,
        options=complete,
        owner=Plugin("test", "test"),
        models=tuple(complete[o.name] for o in options if o.role == "model" and complete[o.name]),
    )


def _table(rows: Sequence[str | Row]) -> pa.Table:
    """Rows as they come from a source, with the columns that they bring."""
    import pyarrow as pa

    full = []
    for position, row in enumerate(rows):
        base = {"id": f"test/rows.jsonl:{position}", "split": "test", "file": "rows.jsonl", "position": position}
        full.append({**base, "offset": None, **({"text": row} if isinstance(row, str) else row)})
    table = pa.Table.from_pylist(full)
    return table.set_column(table.schema.get_field_index("offset"), "offset", pa.nulls(len(full), pa.int64()))


def _run(step: Step, table: pa.Table, answers: Answers, delay: float, info: ModelInfo | None) -> StageResult:
    """One pass over the table by the engine's worker."""
    stage = step.stage
    if isinstance(stage, DatasetStage):
        return _run_dataset(step, table)
    requests: list[Request] = []
    job = make_job(Segment("rows" if isinstance(stage, RowStage) else "batches", (step,)), table.schema)

    def run_rows(rows: Sequence[Row], steps: Sequence[Step]) -> tuple[list[Outcome], Mapping[tuple[str, str], Tally]]:
        return asyncio.run(_ask(rows, steps, answers, delay, info, requests))

    result = _in_worker(step, table, job, run_rows)
    empty = _in_worker(step, table.slice(0, 0), job, run_rows)
    expect(empty.table.schema.equals(result.table.schema), f"stage `{stage.name}`: an empty shard has another schema")
    return _result(step, table, result.table, requests)


def _in_worker(step: Step, table: pa.Table, job: Job, run_rows: Any = None) -> Result:
    try:
        return run_table(table, job, run_rows)
    except KunError as error:
        raise AssertionError(f"stage `{step.label}`: {error.message}; {error.hint}".rstrip("; ")) from error


async def _ask(
    rows: Sequence[Row],
    steps: Sequence[Step],
    answers: Answers,
    delay: float,
    info: ModelInfo | None,
    requests: list[Request],
) -> tuple[list[Outcome], Mapping[tuple[str, str], Tally]]:
    """Ask row after row, so that a list of answers is used in order."""
    async with scripted_models(steps[0].models or ("chat",), answers, delay=delay, info=info) as (generator, script):
        runner = RowRunner(generator, Status())
        outcomes = [(await runner.run(0, [row], steps))[0][0] for row in rows]
        requests += script.requests
        return outcomes, {}


def _run_dataset(step: Step, table: pa.Table) -> StageResult:
    """The verdicts of the stage on all rows together. It must also work on no rows."""
    from datasets import Dataset

    stage = step.stage
    assert isinstance(stage, DatasetStage)
    measured = table
    if stage.measure is not None:
        measure = replace(step, measure=True)
        measured = _in_worker(measure, table, make_job(Segment("batches", (measure,)), table.schema)).table
    seen = Dataset(measured).select_columns(list(seen_columns(step)))
    with TemporaryDirectory() as folder, workspace(Path(folder) / "work", table.num_rows, Resources()) as work:
        none = verdicts_of(step, seen.select([]), work)
        expect(not list(none), f"stage `{stage.name}` drops rows where there are none")
    with TemporaryDirectory() as folder, workspace(Path(folder) / "work", table.num_rows, Resources()) as work:
        verdicts = {int(row): (str(reason), str(value)) for row, reason, value in verdicts_of(step, seen, work)}
    strange = [row for row in verdicts if not 0 <= row < table.num_rows]
    expect(not strange, f"stage `{stage.name}` drops row {strange[:1]} of {table.num_rows}")
    rows = table.to_pylist()
    kept = [row for number, row in enumerate(rows) if number not in verdicts]
    return StageResult(kept, {rows[number]["id"]: verdicts[number] for number in sorted(verdicts)})


def _result(step: Step, given: pa.Table, table: pa.Table, requests: Sequence[Request]) -> StageResult:
    kept: list[Row] = []
    dropped: dict[str, tuple[str, str]] = {}
    for row in table.to_pylist():
        outcome, _, reason, value = (row.pop(name) for name in VERDICT)
        row.pop("calls", None)
        if outcome is None:
            kept.append(row)
            continue
        broken = outcome == QUARANTINED and reason != REFUSED
        expect(not broken, f"stage `{step.label}` failed on row {row['id']}: {reason}: {value}")
        dropped[row["id"]] = (reason, value)
    order = {row_id: number for number, row_id in enumerate(given["id"].to_pylist())}
    return StageResult(kept, dict(sorted(dropped.items(), key=lambda item: order.get(item[0], -1))), requests)


def _check_order(stage: Stage, table: pa.Table, result: StageResult) -> None:
    ids = [row["id"] for row in result.rows]
    expect(
        len(set(ids)) == len(ids),
        f"stage `{stage.name}` gives two rows one id: rows that it adds need ids of their own",
    )
    given = table["id"].to_pylist()
    old = [row_id for row_id in ids if row_id in given]
    expect(
        old == [row_id for row_id in given if row_id in set(old)], f"stage `{stage.name}` changes the order of the rows"
    )
    if len(ids) + len(result.dropped) == len(given):
        expect(set(ids) | set(result.dropped) == set(given), f"stage `{stage.name}` changes the ids of rows")
