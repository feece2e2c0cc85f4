"""Stage `decontaminate`: drops texts that share a passage with a benchmark, so that its score means something.

Not in recipes by default. Passages are compared without white space, punctuation, width, case and script, word by word,
a character of a script without spaces being a word; GPT-3 (arXiv 2005.14165, appendix C) compared runs of 13 words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from kun_builder import BatchStage, FileName, KunError, drop_rows

from .shingles import runs, words

if TYPE_CHECKING:
    import pyarrow as pa

    from .characters import Array


def run(
    table: pa.Table,
    *,
    benchmarks: Annotated[tuple[FileName, ...], Field(min_length=1)],
    words_in_common: Annotated[int, Field(ge=8)] = 16,
) -> pa.Table:
    """Drop as `contaminated` what has a run of `words_in_common` words in common with a benchmark; the value is where.

    benchmarks: JSONL files; every string in a row counts, also within lists and mappings. One that is shorter than
    `words_in_common` is in no text. Raises KunError for a file that cannot be read.
    """
    import numpy as np

    hashes, places = _index(tuple((file, _changed(file)) for file in benchmarks), words_in_common)
    mine, text_of = runs(words(table["text"].to_pylist()), words_in_common)
    at = np.searchsorted(hashes, mine)
    hit = (
        np.flatnonzero(hashes[np.minimum(at, len(hashes) - 1)] == mine) if len(hashes) else np.zeros(0, dtype=np.int64)
    )
    where = [""] * table.num_rows
    for one in hit[::-1].tolist():  # the first passage of a text is the one that is named
        where[text_of[one]] = places[at[one]]
    return drop_rows(table, [bool(place) for place in where], "contaminated", where)


def _changed(file: str) -> int:
    """When the file was changed; 0 for one that is not there."""
    path = Path(file).expanduser()
    return path.stat().st_mtime_ns if path.exists() else 0


@cache
def _index(files: tuple[tuple[str, int], ...], size: int) -> tuple[Array, list[str]]:
    """Hashes of all passages of the benchmarks, ascending, and where each stands: `file:line`."""
    import numpy as np

    found = [(f"{Path(file).name}:{number}", text) for file, _ in files for number, text in _strings(file)]
    hashes, text_of = runs(words([text for _, text in found]), size)
    unique, first = np.unique(hashes, return_index=True)
    return unique, [found[row][0] for row in text_of[first].tolist()]


def _strings(file: str) -> Iterator[tuple[int, str]]:
    try:
        lines: Sequence[str] = Path(file).expanduser().read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise KunError(f"decontaminate: cannot read {file}: {error}", hint="`benchmarks:` takes JSONL files") from error
    for number, line in enumerate(lines, 1):
        try:
            yield from ((number, text) for text in _within(json.loads(line) if line.strip() else None))
        except json.JSONDecodeError as error:
            raise KunError(
                f"decontaminate: {file}:{number} is no JSON: {error}", hint="one JSON object a line"
            ) from error


def _within(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _within(item)


stage = BatchStage(name="decontaminate", run=run)
