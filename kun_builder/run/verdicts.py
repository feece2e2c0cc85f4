"""What people said of single rows: JSON lines in the run folder, which calibration and the card read.

    {"id": "wudao/part-1.json:17", "instruction": "...", "output": "...", "good": false, "kinds": ["invented"],
     "stratum": "kept", "stratum_rows": 812, "stage": null, "reason": null, "measured": {"fit": 0.71}}

Only `good` is required. If there is an instruction without an answer, the instruction alone is judged. Measured values
may also stand beside `good`, as they do in files that the page of `kun-build review` did not make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from kun_builder.errors import RunError

KINDS = {
    "bad_question": "the question makes no sense, or a false one",
    "needs_context": "the question or the answer needs the text at hand",
    "off_topic": "the answer answers something else",
    "unsupported": "the answer invents, or contradicts the text",
    "says_nothing": "the answer only repeats the question",
    "incomplete": "the answer leaves out what was asked",
    "thin": "good, but with one crumb of the text",
    "language": "wrong language, broken or unnatural wording",
}
"""Defects by their key on the page: the first is 1. A good pair may be `thin`, and nothing else."""

THIN = "thin"
"""The only defect that a good pair can have."""

FOLDER = "verdicts"
"""Folder of a run with the files of its reviewers."""

_TRUTH: Mapping[Any, bool] = {True: True, False: False, "good": True, "bad": False, "好": True, "差": False}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judgement of one row. `stratum_rows` is the number of rows in the stratum that the row was drawn from."""

    good: bool
    id: str = ""
    instruction: str = ""
    output: str = ""
    kinds: tuple[str, ...] = ()
    stratum: str = "kept"
    stratum_rows: int = 0
    reason: str = ""
    """Why the run rejected the row, as `step: reason`; empty if it was kept."""
    value: float | None = None
    """The measured value for which the row was rejected; None if that is no number or is not known."""
    run: str = ""
    seen: str = ""
    """Digest of the words that were judged, if a run waited for the verdict; else empty."""
    measured: Mapping[str, float] = field(default_factory=dict)


def read_verdicts(path: Path) -> list[Verdict]:
    """The verdicts in one file. Raises RunError, with file and line, for a line that is no verdict."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    return [_verdict(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def verdicts_in(folder: Path) -> list[Verdict]:
    """All verdicts of the folder's reviewers, each row's last one; files are read in the order of their names."""
    found: dict[str, Verdict] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, verdict in enumerate(read_verdicts(path)):
            found[verdict.id or f"{path.name}:{number}"] = verdict
    return list(found.values())


def _verdict(line: bytes, place: str) -> Verdict:
    try:
        record = orjson.loads(line)
        good, kinds = _TRUTH[record["good"]], tuple(map(str, record.get("kinds") or ()))
        step, reason = record.get("stage"), record.get("reason")
        return Verdict(
            good=good,
            id=str(record.get("id") or ""),
            instruction=str(record.get("instruction") or ""),
            output=str(record.get("output") or ""),
            kinds=kinds,
            stratum=str(record.get("stratum") or "kept"),
            stratum_rows=int(record.get("stratum_rows") or 0),
            value=None if record.get("value") is None else float(record["value"]),
            run=str(record.get("run") or ""),
            seen=str(record.get("seen") or ""),
            reason=f"{step}: {reason}" if step and reason else "",
            measured=_numbers(record) | _numbers(record.get("measured") or {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{place} is not a verdict",
            hint="a verdict is a JSON object with `good`: true or false, as the page of `kun-build review` saves them",
        ) from error


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The values that stages measured: all numbers in the record that the page itself has not written."""
    own = ("good", "stratum_rows", "value")
    return {
        str(name): float(value)
        for name, value in record.items()
        if name not in own and isinstance(value, int | float) and not isinstance(value, bool)
    }
