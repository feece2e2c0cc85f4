"""Everything that is known of one row of a finished run: its source, what each step made of it, why it ended so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kun_builder.drops import DROPPED, VERDICT
from kun_builder.errors import RunError, suggest
from kun_builder.models.journal.journal import Journal
from kun_builder.report import RunReport
from kun_builder.result.finished import FinishedRun
from kun_builder.result.measures import Owner
from kun_builder.result.stats import owners, read_columns, rows_at

_PLACE = ("id", "split", "file", "position", "offset")


def explain(run: FinishedRun, row_id: str, journal: Path | None = None) -> dict[str, Any]:
    """The story of row `row_id` of a finished run, as plain data. `journal`: its folder, by default the user's own.

    `place` says where it came from, `outcome` how it ended and why, `values` what was measured and made, `steps` what
    each step did, with the prompts and answers of its requests as far as the journal has them; `stands_for` has the
    rows that were dropped with this row's id as the value, as near-duplicates of it are. Raises RunError.
    """
    row, report = _find(run, row_id), run.report
    source = report.splits[row["split"]]
    facts = {"source": source.source, "plugin": source.plugin, "license": source.license}
    return {
        "place": {**{name: row.get(name) for name in _PLACE}, **facts},
        "outcome": _outcome(row),
        "values": {n: v for n, v in row.items() if n not in (*_PLACE, *VERDICT, "steps", "calls") and v is not None},
        "stands_for": list(_dropped_for(run, row_id)),
        "steps": list(_steps(report, row, Journal.open(journal))),
        "run": {"name": report.name, "created": report.created, "kun_builder": report.version, "seed": report.seed},
    }


def _find(run: FinishedRun, row_id: str) -> dict[str, Any]:
    """The row, kept or not; its split is the first part of its id."""
    split, path = row_id.partition("/")[0], run.folder.path
    if split not in run.report.splits:
        known = ", ".join(run.report.splits)
        raise RunError(f"no split of {path} is called `{split}`", hint=f"an id starts with one of: {known}")
    for files in (run.kept[split], run.rejected[split]):
        if (number := _number_of(files, row_id)) is not None:
            return next(rows_at(files, [number]))
    near = suggest(row_id, list(_some_ids(run.kept[split])))
    raise RunError(
        f"{path} has no row `{row_id}`{near}",
        hint="ids are in kept/ and in rejected/; with --limit, only a sample of the input was read",
    )


def _dropped_for(run: FinishedRun, row_id: str) -> Iterator[dict[str, str]]:
    """Id, step and reason of each row that was dropped in favour of this one, of every split."""
    import pyarrow.compute as pc

    for files in run.rejected.values():
        for table in read_columns(files, ("id", *VERDICT)):
            mine = pc.and_(pc.equal(table["_value"], row_id), pc.equal(table["_outcome"], DROPPED))
            for row in table.filter(mine).to_pylist():
                yield {"id": row["id"], "step": row["_stage"], "reason": row["_reason"]}


def _number_of(files: Sequence[Path], row_id: str) -> int | None:
    import pyarrow.compute as pc

    start = 0
    for table in read_columns(files, ("id",)):
        at = pc.index(table["id"], row_id).as_py()
        if at >= 0:
            return int(start + at)
        start += len(table)
    return None


def _some_ids(files: Sequence[Path]) -> Iterator[str]:
    for table in read_columns(files[:1], ("id",), 1000):
        yield from table["id"].to_pylist()
        return


def _outcome(row: Mapping[str, Any]) -> dict[str, Any]:
    if row.get("_outcome") is None:
        return {"outcome": "kept"}
    return {name.removeprefix("_"): row[name] for name in VERDICT}


def _steps(report: RunReport, row: Mapping[str, Any], journal: Journal) -> Iterator[dict[str, Any]]:
    """Each step that the row came to, in order, up to the one that dropped it. Reading the input is not one of them."""
    ended_at = row.get("_stage")
    if ended_at is not None and ended_at not in [step.label for step in report.steps]:
        return
    measures = owners(report.steps)
    for step in report.steps:
        calls = [call for call in row.get("calls") or () if call["stage"] == step.label]
        yield {
            "step": step.label,
            "version": step.made_by,
            "options": {name: value for name, value in step.options.items() if "\n" not in str(value)},
            "measured": list(_measured(row, step.label, measures)),
            "result": row["_reason"] if step.label == ended_at else "passed",
            "requests": [_request(report, call, journal) for call in calls],
        }
        if step.label == ended_at:
            return


def _measured(row: Mapping[str, Any], label: str, measures: Mapping[str, Owner]) -> Iterator[dict[str, Any]]:
    """The numbers that a step has put on the row, with the limits that were set for them."""
    for column, owner in measures.items():
        if label in owner.labels and row.get(column) is not None:
            yield {"column": column, "value": row[column], "least": owner.least, "most": owner.most}


def _request(report: RunReport, call: Mapping[str, Any], journal: Journal) -> dict[str, Any]:
    model = report.models.get(call["model"], {})
    facts = {"model": model.get("id", call["model"]), "revision": model.get("revision", ""), "key": call["key"]}
    found = journal.read(call["key"]) if call["key"] else None
    if found is None:
        return {**facts, "prompt": None, "answer": None}
    asked = {name: value for name, value in asdict(found.request).items() if name != "prompt"}
    return {**facts, "prompt": found.request.prompt, "parameters": asked, "answer": found.completion.text}
