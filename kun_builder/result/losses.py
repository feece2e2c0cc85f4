"""Whether a finished run has failed after all: it kept no row, or one stage lost nearly all rows to one error."""

from __future__ import annotations

from collections import Counter

import pyarrow.parquet as pq

from kun_builder.errors import RunError
from kun_builder.report import RunReport
from kun_builder.run.folder import RunFolder

_FEW = 20
"""Rows below which a stage may lose nearly all of them by chance."""
_NEARLY_ALL = 0.95
_SHOWN = 200


def check_losses(folder: RunFolder, report: RunReport) -> None:
    """Raises RunError where no row was kept, or where one stage lost nearly all its rows to one error.

    Verdicts of a stage (dropped rows) are errors only if nothing is left.
    """
    entered, lost, failed = Counter[str](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for split in report.splits.values():
        for count in split.stages:
            entered[count.label] += count.rows_in
            failed.update({(count.label, reason): rows for reason, rows in count.quarantined.items()})
            lost.update(
                {(count.label, reason): rows for reason, rows in (*count.dropped.items(), *count.quarantined.items())}
            )
    read, kept = (sum(getattr(split, name) for split in report.splits.values()) for name in ("read", "kept"))
    if not read:
        raise RunError("no record was read", hint="check `path` of the splits: the files are empty")
    if not kept:
        (stage, reason), rows = max(lost.items(), key=lambda item: item[1])
        raise _failed(folder, report, f"no row was kept of {read:,}", stage, reason, rows)
    for (stage, reason), rows in failed.items():
        if rows >= max(_FEW, _NEARLY_ALL * entered[stage]):
            raise _failed(folder, report, f"{kept:,} of {read:,} rows were kept", stage, reason, rows)


def _failed(folder: RunFolder, report: RunReport, what: str, stage: str, reason: str, rows: int) -> RunError:
    message = f"{what}: stage `{stage}` lost {rows:,} as `{reason}`"
    return RunError(
        message + _example(folder, report, stage, reason),
        hint="mend what it names, in the recipe or at the server, and run again; "
        f"every lost row is in {folder.rejected}, and `kun-build explain {folder.path} ROW` shows one",
    )


def _example(folder: RunFolder, report: RunReport, stage: str, reason: str) -> str:
    """The first of the lost rows: its id, the measured value, and the fields that it has."""
    filters = [("_stage", "=", stage), ("_reason", "=", reason)]
    for path in (path for split in report.splits for path in folder.rejected_files(split)):
        found = pq.read_table(path, filters=filters)
        if found.num_rows:
            row = found.slice(0, 1).to_pylist()[0]
            fields = ", ".join(name for name, value in row.items() if value is not None and not name.startswith("_"))
            value = " ".join((row["_value"] or "").split())[:_SHOWN]
            return f"; the first is {row['id']}" + (f": {value}" if value else "") + f" (it has {fields})"
    return ""
