"""`target: N`: read on until N rows are kept, without paying for many more.

The input is built in waves. Each wave takes a larger sample than the one before and contains it, so that nothing is
asked twice. How much larger it is follows from the share of rows that the wave before has kept. The last wave is a
build like any other, of a fair draw over the whole input.
"""

from __future__ import annotations

from math import ceil

from kun_builder.errors import RunError
from kun_builder.recipe.recipe import Recipe
from kun_builder.recipe.registry import Registry
from kun_builder.report import RunReport, read_report
from kun_builder.run.folder import RunFolder
from kun_builder.run.runner import build
from kun_builder.status import Status

_FIRST = 0.05
"""Share of the target that the first wave reads, to learn how much is kept."""
_FEWEST = 100
"""Rows of a first wave, at least, of all splits together; and kept rows from which a share is taken for known."""
_MARGIN = 1.02
_UNSURE = 4.0
"""How many times larger the next wave is, at most, where the wave before has kept too few rows to tell."""


def build_target(recipe: Recipe, registry: Registry, *, fresh: bool = False, status: Status | None = None) -> RunReport:
    """Build until `recipe.target` rows are kept, of all splits together, or until the input is used up.

    Each split gives equally many of its records, as far as it has them. Raises KunError as `build` does, and where it
    is to be `fresh`: each wave lives on the answers of the one before.
    """
    if fresh:
        raise RunError(
            "a run with a `target` cannot be begun afresh",
            hint="give it a journal of its own (`journal: FOLDER` in the recipe) and another --output",
        )
    status, target = status or Status(), recipe.target or 0
    limit = _begun(RunFolder(recipe.output)) or first_wave(target, len(recipe.splits))
    while True:
        report = build(recipe.model_copy(update={"limit": limit}), registry, status=status)
        kept = sum(split.kept for split in report.splits.values())
        if kept >= target:
            return report
        if all(split.records <= limit for split in report.splits.values()):
            status.say(f"the input is used up: {kept:,} rows are kept, and the recipe's `target` is {target:,}")
            return report
        limit = next_wave(limit, kept, target)
        status.say(f"{kept:,} of {target:,} rows are kept; going on with {limit:,} records of each split")


def first_wave(target: int, splits: int) -> int:
    """Records of each split that the first wave reads."""
    return ceil(min(target, max(_FEWEST, _FIRST * target)) / splits)


def next_wave(limit: int, kept: int, target: int) -> int:
    """Records of each split that the next wave reads, where the one before has read `limit` and kept `kept` rows."""
    factor = target / kept * _MARGIN if kept else _UNSURE
    return max(limit + 1, ceil(limit * (min(factor, _UNSURE) if kept < min(_FEWEST, target / 2) else factor)))


def _begun(folder: RunFolder) -> int | None:
    """How many records of each split the last wave here has read, if there was one."""
    try:
        return read_report(folder.report_path).limit
    except RunError:
        return None
