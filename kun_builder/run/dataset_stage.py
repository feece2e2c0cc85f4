"""A dataset stage over all shards: it sees columns of every living row, and says which rows to drop.

Its verdicts are a small file; the text is not copied. Row numbers that a stage returns count the living rows of all
shards in order; here they become rows of files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from kun_builder.errors import KunError, PluginError
from kun_builder.files import replace_file, seal, unseal
from kun_builder.recipe.options import takes_workspace
from kun_builder.report import StepCounts
from kun_builder.run.plan import Step, roles
from kun_builder.run.shards import Shard, exclude
from kun_builder.run.workspace import Resources, workspace
from kun_builder.workspace import Workspace

Cut = tuple[int, str, str, str]
"""A dropped row: its number in the shard's file, the stage, the reason and the value."""


def run_dataset_stage(
    step: Step, shards: Sequence[Shard], key: str, folder: Path, resources: Resources | None = None
) -> tuple[list[Shard], dict[str, StepCounts]]:
    """The shards without the dropped rows, and the counts of each split. A finished stage is read, not run.

    The verdicts are kept in `folder`, where the stage's own files are while it runs.
    """
    path = folder / f"{key}.json"
    cuts: Sequence[Sequence[Cut]]
    try:
        cuts = _cuts(path.read_bytes())
    except (FileNotFoundError, ValueError):
        with workspace(folder / f"{key}.work", sum(shard.alive for shard in shards), resources or Resources()) as work:
            cuts = _run(step, shards, work)
        replace_file(path, seal({"cuts": cuts}))
    cut_shards = [
        exclude(shard, f"{shard.key}-{key}", [(row, stage, reason, value) for row, stage, reason, value in cut])
        for shard, cut in zip(shards, cuts, strict=True)
    ]
    return cut_shards, _counts(step, shards, cuts)


def _cuts(content: bytes) -> Sequence[Sequence[Cut]]:
    """The verdicts in a file. Those of earlier versions are a mere list. Raises ValueError if it is damaged."""
    if content.startswith(b"["):
        return orjson.loads(content)  # type: ignore[no-any-return]
    return unseal(content)["cuts"]  # type: ignore[no-any-return]


def _run(step: Step, shards: Sequence[Shard], work: Workspace) -> list[list[Cut]]:
    from datasets import concatenate_datasets

    columns = seen_columns(step)
    living = [shard.living_rows() for shard in shards]
    parts = [shard.measured(columns) for shard in shards if shard.alive]
    cuts: list[list[Cut]] = [[] for _ in shards]
    if not parts:
        return cuts
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in living])])
    for row, reason, value in _verdicts(step, concatenate_datasets(parts), work, int(starts[-1])):
        number = int(np.searchsorted(starts, row, side="right")) - 1
        cuts[number].append((int(living[number][row - starts[number]]), step.label, reason, value))
    return cuts


def seen_columns(step: Step) -> tuple[str, ...]:
    """Columns that a dataset stage sees: its own, and those that its options name."""
    named = (step.options[name] for name in roles(step.stage.run, "column"))
    return tuple(dict.fromkeys((*step.stage.columns, *step.stage.adds, *named)))  # type: ignore[union-attr]  # it has no others


def verdicts_of(step: Step, dataset: Any, work: Workspace) -> Sequence[tuple[int, str, object]]:
    """The verdicts of the stage on the rows of `dataset`, unchecked, as the stage returns them."""
    run: Callable[..., Sequence[tuple[int, str, object]]] = step.stage.run  # type: ignore[assignment]  # no row stage
    return run(dataset, *([work] if takes_workspace(run) else ()), **step.arguments)


def _verdicts(step: Step, dataset: Any, work: Workspace, rows: int) -> list[tuple[int, str, str]]:
    """The stage's verdicts, checked, by ascending row number. Raises PluginError for whatever goes wrong, since a stage
    that sees all rows at once has no single row to quarantine."""
    try:
        said = [(int(row), str(reason), str(value)) for row, reason, value in verdicts_of(step, dataset, work)]
    except KunError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's stage may raise anything; it has to be named
        raise PluginError(
            f"{step} failed: {type(error).__name__}: {error}",
            hint="this is a fault of the plugin or of its options",
        ) from error
    said.sort()
    numbers = [row for row, *_ in said]
    if len(set(numbers)) < len(numbers) or (numbers and not 0 <= numbers[0] <= numbers[-1] < rows):
        raise PluginError(
            f"{step} named a row twice, or one that is not there",
            hint="`run` returns (row number, reason, value), each row at most once",
        )
    return said


def _counts(step: Step, shards: Sequence[Shard], cuts: Sequence[Sequence[Cut]]) -> dict[str, StepCounts]:
    rows: dict[str, int] = {}
    dropped: dict[str, dict[str, int]] = {}
    for shard, cut in zip(shards, cuts, strict=True):
        rows[shard.split] = rows.get(shard.split, 0) + shard.alive
        reasons = dropped.setdefault(shard.split, {})
        for _, _, reason, _ in cut:
            reasons[reason] = reasons.get(reason, 0) + 1
    return {split: _count(step, rows[split], dropped[split]) for split in rows}


def _count(step: Step, rows: int, dropped: Mapping[str, int]) -> StepCounts:
    return StepCounts(
        label=step.label,
        stage=step.stage.name,
        rows_in=rows,
        rows_out=rows - sum(dropped.values()),
        dropped=dropped,
    )
