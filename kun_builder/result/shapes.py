"""The rows of a finished run in the forms that trainers read, as JSON lines, one file a split.

pairs      {"instruction": ..., "output": ...}                                       Alpaca's
messages   {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}    TRL, Axolotl (chat_template)
sharegpt   {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", ...}]}      LLaMA-Factory, Axolotl
dpo        {"prompt": [...], "chosen": [...], "rejected": [...]}, each messages            TRL's preference pairs

The column `turns`, where a stage adds it, goes on the conversation in messages and sharegpt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from kun_builder.drops import RESULT_COLUMNS, TEXT_COLUMNS, TURNS
from kun_builder.errors import RunError, shown
from kun_builder.report import RunReport, StepFacts, read_report
from kun_builder.result.limits import limits_of
from kun_builder.result.stats import read_columns
from kun_builder.run.folder import RunFolder
from kun_builder.run.redact import refuse_copies, stays_here

Record = dict[str, Any]


def _pairs(said: Sequence[str], system: str) -> Record:
    return {**({"system": system} if system else {}), "instruction": said[0], "output": said[1]}


def _messages(said: Sequence[str], system: str) -> Record:
    turns = [{"role": ("user", "assistant")[at % 2], "content": words} for at, words in enumerate(said[1:], 1)]
    return {"messages": [*prompt_of(said[0], system), *turns]}


def _sharegpt(said: Sequence[str], system: str) -> Record:
    first = [{"from": "system", "value": system}] if system else []
    turns = [{"from": ("human", "gpt")[at % 2], "value": words} for at, words in enumerate(said)]
    return {"conversations": [*first, *turns]}


SHAPES: Mapping[str, Callable[[Sequence[str], str], Record]] = {
    "pairs": _pairs,
    "messages": _messages,
    "sharegpt": _sharegpt,
}
"""Shapes of a row: (instruction, output and further turns, system text) -> record. `pairs` has no further turns."""
DPO = "dpo"


def prompt_of(instruction: str, system: str) -> list[dict[str, str]]:
    """The messages before the answer."""
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": instruction}]


def export_run(run: Path, shape: str, output: Path, *, system: str = "") -> dict[str, int]:
    """Write the kept rows of `run` into `output`/<split>.jsonl; returns rows by split.

    `system` stands before every pair. Raises RunError if the run is not finished or has no pairs, and PublishError
    where a row repeats a raw text that may not be passed on.
    """
    folder, report = _open(run)
    make = SHAPES[shape]
    written = {}
    for split in report.splits:
        rows = _rows(folder, split, (*RESULT_COLUMNS, TURNS))
        said = ([row["instruction"], row["output"], *(row.get(TURNS) or ())] for row in rows)
        written[split] = _write(output, split, (make(turns, system) for turns in said))
    return written


def export_preferences(
    run: Path, other: Path, output: Path, *, by: str = "", margin: float = 0.1, system: str = ""
) -> dict[str, int]:
    """Write preference pairs out of two runs over the same texts; returns their number by split.

    Two answers to one instruction that differ by at least `margin` in the measured column `by` make a pair: the better
    is chosen, whichever run it is from. Better is what the column's stage has declared, else the higher value. Kept and
    rejected rows count, as far as they were measured.

    by: by default the last column of which a stage of `run`, from the one that adds the answers on, has declared which
    side is better. Raises RunError if there is none, if no two rows are so, or if neither run has the column.
    """
    (ours, report), (theirs, _) = _open(run), _open(other)
    by, lower = _comparison(run, report, by)
    found = {
        split: list(_preferences(_answers(ours, split, by), _answers(theirs, split, by), margin, lower, system))
        for split in report.splits
    }
    if not any(found.values()):
        raise RunError(
            f"{run} and {other} have no two answers to one instruction that differ by {margin:g} in `{by}`",
            hint="both need the same texts and instructions, and a step that measures answers;"
            " --by names another column, --margin asks for less",
        )
    return {split: _write(output, split, iter(pairs)) for split, pairs in found.items()}


def _comparison(run: Path, report: RunReport, by: str) -> tuple[str, bool]:
    """The column that answers are compared by, and whether the lower value is the better one."""
    sides = [_sides(step) for step in report.steps]
    answered = max((at for at, step in enumerate(report.steps) if "output" in (step.adds or ())), default=0)
    judged = [name for declared in sides[answered:] for name in declared]
    if not by and not judged:
        raise RunError(
            f"no step of {shown(run)} says which of two answers is the better one",
            hint="--by names a column of numbers; a stage says it by `quantities={...: Quantity(better='higher')}`",
        )
    by = by or judged[-1]
    return by, [declared[by] for declared in sides if by in declared][-1:] == ["lower"]


def _sides(step: StepFacts) -> dict[str, str]:
    """Which side of its columns of numbers is the better one, where a step says it.

    A report of a version before declarations says it by its thresholds: they keep the higher values.
    """
    if step.quantities is None:
        return {limit.column: "higher" for limit in limits_of([step]) if limit.option == "threshold"}
    return {name: quantity.better for name, quantity in step.quantities.items() if quantity.better}


def need_pairs(folder: RunFolder) -> None:
    """Raise RunError if the finished run made no pairs, but a dataset of texts."""
    if folder.columns == TEXT_COLUMNS:
        raise RunError(
            f"{shown(folder.path)} holds texts and no pairs: its recipe only cleans",
            hint="add stages that make `instruction` and `output` to its recipe, with a model, and run it again",
        )


def _open(run: Path) -> tuple[RunFolder, RunReport]:
    folder = RunFolder(run)
    report = read_report(folder.report_path)
    need_pairs(folder)
    closed = [split for split, facts in report.splits.items() if stays_here(facts)]
    refuse_copies(path for split in closed for path in folder.kept_files(split))
    return folder, report


def _rows(folder: RunFolder, split: str, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for table in read_columns(folder.kept_files(split), columns):
        yield from table.to_pylist()


def _answers(folder: RunFolder, split: str, by: str) -> dict[tuple[str, str], tuple[float, str]]:
    """Value and answer by id and instruction, of all rows that have them, kept or rejected."""
    found = {}
    for table in read_columns(
        [*folder.kept_files(split), *folder.rejected_files(split)], ("id", "instruction", "output", by)
    ):
        for row in table.to_pylist():
            if row.get(by) is not None and row.get("instruction") and row.get("output"):
                found[row["id"], row["instruction"]] = (float(row[by]), row["output"])
    return found


def _preferences(
    ours: Mapping[tuple[str, str], tuple[float, str]],
    theirs: Mapping[tuple[str, str], tuple[float, str]],
    margin: float,
    lower: bool,
    system: str,
) -> Iterator[Record]:
    for key, one in ours.items():
        other = theirs.get(key)
        if other is None or one[1] == other[1] or abs(one[0] - other[0]) < margin:
            continue
        better, worse = (one, other) if (one[0] > other[0]) != lower else (other, one)
        yield {
            "prompt": prompt_of(key[1], system),
            "chosen": [{"role": "assistant", "content": better[1]}],
            "rejected": [{"role": "assistant", "content": worse[1]}],
        }


def _write(folder: Path, split: str, records: Iterator[Record]) -> int:
    """Write records into the split's file, which is there whole or not at all; returns how many. No rows, no file."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary, rows = folder / f".{split}.jsonl.tmp", 0
    with temporary.open("wb") as file:
        for record in records:
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            rows += 1
    place = folder / f"{split}.jsonl"
    if rows:
        temporary.replace(place)
    else:
        temporary.unlink()
        place.unlink(missing_ok=True)
    return rows
