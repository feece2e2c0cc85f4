"""What one reviewer says, written as it is said: a file of JSON lines that is whole after every verdict."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from kun_builder.errors import RunError
from kun_builder.files import make_private, replace_file
from kun_builder.result.review import Pair, Review
from kun_builder.run.verdicts import KINDS, THIN, read_verdicts

_WORDS = ("instruction", "output", "reason", "seen")
"""A verdict is about a pair as long as these are the same."""


class Store:
    """The verdicts of one reviewer on the pairs of a review; those on other pairs, given before, stay in the file."""

    def __init__(self, review: Review, path: Path) -> None:
        self._review, self._path = review, path
        self._lines: dict[str, dict[str, Any]] = {}
        if path.exists():
            read_verdicts(path)  # raises RunError, with the line, for what is none
            found = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
            self._lines = {str(line.get("id") or number): line for number, line in enumerate(found)}

    def said(self) -> list[tuple[str, dict[str, Any]]]:
        """Row id and verdict of each pair of the review that was judged, the last one last."""
        pairs = {pair["id"]: pair for pair in self._review.pairs}
        return [
            (id, {"good": line["good"] is True, "kinds": line.get("kinds") or []})
            for id, line in self._lines.items()
            if id in pairs and all(line.get(name) == pairs[id].get(name) for name in _WORDS)
        ]

    def say(self, number: int, good: bool | None, kinds: Sequence[str] = ()) -> None:
        """Write the verdict on the pair of this number, from 0; None takes it back. A good pair can only be thin.

        Raises ValueError for a pair or a kind that there is not.
        """
        if not 0 <= number < len(self._review.pairs) or not set(kinds) <= KINDS.keys():
            raise ValueError("no such pair, or no such kind")
        pair = self._review.pairs[number]
        lines = {id: line for id, line in self._lines.items() if id != pair["id"]}
        if good is not None:
            lines[pair["id"]] = self._line(pair, good, [k for k in KINDS if k in kinds and (not good or k == THIN)])
        replace_file(self._path, "".join(map(_json_line, lines.values())).encode(), private=True)
        self._lines = lines

    def _line(self, pair: Pair, good: bool, kinds: Sequence[str]) -> dict[str, Any]:
        rest = {name: value for name, value in pair.items() if name != "text"}  # the text is the run's, and stays there
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {**rest, "good": good, "kinds": kinds, "judged": now, "run": self._review.run}


def _json_line(record: Mapping[str, Any]) -> str:
    """JSON in one line for every reader: some take characters for ends of lines that JSON leaves as they are."""
    text = orjson.dumps(record).decode()
    for mark in "\u0085\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text + "\n"


@contextmanager
def open_store(review: Review, reviewer: str) -> Iterator[Store]:
    """The verdicts of `reviewer`, a name for a file; nobody else writes them meanwhile. Raises RunError if one does."""
    make_private(review.folder)
    with (review.folder / f".{reviewer}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another kun-build review writes the verdicts of `{reviewer}` in {review.folder}",
                hint="end it, or judge under a name of your own with --reviewer NAME",
            ) from error
        yield Store(review, review.folder / f"{reviewer}.jsonl")
