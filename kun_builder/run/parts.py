"""Parts of the inputs: a file, or a span of one, read to tables by this process or by several, a few of them ahead.

A part is read without knowing what comes before it: its records are counted from 0, and become those of the input when
the parts are put together in order. So the result does not depend on how many processes read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kun_builder.drops import DROPPED, QUARANTINED
from kun_builder.errors import Drop, KunError, PluginError, RunError, shown
from kun_builder.readers import Records, Span
from kun_builder.readers.cursor import Run
from kun_builder.recipe.options import accepted
from kun_builder.run.crew import known
from kun_builder.run.processes import Crew, Submit
from kun_builder.run.source_shards import PART, part_table, run_table
from kun_builder.types import Record, Source

if TYPE_CHECKING:
    from kun_builder.recipe.registry import Entry

STAGE = "read"

SPAN = 16 << 20
"""Fewest bytes of a span. A file of twice as many or more is read in spans, by several processes."""

PLACE = ".parts-"
"""The beginning of the names of folders in which parts wait."""

Check = Callable[[], object]
"""Called while a source is read; raises to end it."""

_LOOK = 0.5  # seconds between two calls of it while nothing comes
_CHARACTERS = 1 << 20
"""Characters after which a table is closed; only its last row may go beyond."""


@dataclass(frozen=True)
class Part:
    """An input, or a span of one. `name` is what row ids carry, `start` the first record that is wanted, `size` the
    bytes, 0 for an input that is no file. It can be pickled."""

    name: str
    path: str
    source: str
    options: Mapping[str, Any]
    size: int
    start: int = 0
    span: Span | None = None


@contextmanager
def blame(entry: Entry[Source], doing: str) -> Iterator[None]:
    """Turn whatever a source raises into a PluginError that names its owner."""
    try:
        yield
    except KunError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        raise PluginError(
            f"source `{entry.value.name}` of {entry.owner.package} failed while {doing}: "
            f"{type(error).__name__}: {error}",
            hint="tell the plugin's author, or leave this input out",
        ) from error


def cut(part: Part, entry: Entry[Source]) -> list[Part]:
    """The part cut in spans, or by itself if its file cannot be cut."""
    records = _open(part, entry.value)
    spans = records.cuts(SPAN) if isinstance(records, Records) and part.size else []
    share = part.size // max(1, len(spans))
    return [replace(part, size=share, span=span) for span in spans] or [part]


class Reading:
    """Iterates over one part as tables of at most `rows` rows. In the end, `count` is the number of its records.

    offer: tells by the index of a record whether it is worth reading. progress: told of bytes read from disk, or, for
    an input that is no file, of each record as 1. check: called for each record of a source with its own reader.
    """

    def __init__(
        self,
        part: Part,
        entry: Entry[Source],
        rows: int,
        offer: Callable[[int], bool] | None = None,
        progress: Callable[[int], None] | None = None,
        check: Check = lambda: None,
    ) -> None:
        self._part, self._entry, self._rows, self._offer, self._progress = part, entry, rows, offer, progress
        self._check = check
        self.count = 0

    def __iter__(self) -> Iterator[pa.Table]:
        with blame(self._entry, f"reading {shown(self._part.path)}"):
            rows: list[tuple[Any, ...]] = []
            characters = 0
            for row in self._read():
                run = run_table(row.index, row.offsets, row.texts) if isinstance(row, Run) else None
                if not isinstance(row, Run):
                    rows.append(row)
                    characters += len(row[2] or "")
                if rows and (run or len(rows) >= self._rows or characters >= _CHARACTERS):
                    yield part_table([*zip(*rows, strict=True)])
                    rows, characters = [], 0
                if run:
                    yield from (run.slice(at, self._rows) for at in range(0, len(run), self._rows))
            if rows:
                yield part_table([*zip(*rows, strict=True)])

    def _read(self) -> Iterator[tuple[Any, ...] | Run]:
        """Rows of PART, or runs of them."""
        source, part, last = self._entry.value, self._part, self._part.start - 1
        records, options = _open(part, source), accepted(source.parse, part.options)
        ours = isinstance(records, Records)
        for item in self._prepared(records) if isinstance(records, Records) else records:
            if item.index <= last:
                raise ValueError(f"record {item.index} came after record {last}")
            size = len(item.texts) if isinstance(item, Run) else 1
            last = item.index + size - 1
            if not ours:  # ours tells its progress, which is as good
                self._check()
            if self._progress and not part.size:
                self._progress(size)
            if isinstance(item, Run):
                yield item
            elif ours or self._offer is None or self._offer(last):
                yield last, item.offset, *_text(item, source, options)
        self.count = records.count if isinstance(records, Records) else last + 1

    def _prepared(self, records: Records) -> Iterator[Record | Run]:
        """What our reader gives, which asks before it parses and knows the bytes."""
        part, verbatim = self._part, self._entry.value.verbatim
        records.span, records.wanted = part.span, self._offer
        records.progress = self._progress if part.size else None
        return records.runs(verbatim(**accepted(verbatim, part.options)) if verbatim else "")


def _open(part: Part, source: Source) -> Iterator[Record]:
    if source.read:
        return source.read(part.path, part.start, **accepted(source.read, part.options))
    return Records(part.path, part.start, columns=source.columns)


_ALIVE = (None, None, None, None)


def _text(record: Record, source: Source, options: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The text of a record and its verdict: outcome, stage, reason, value."""
    if record.error:
        reason, _, detail = record.error.partition(": ")
        if not reason.isidentifier():
            reason, detail = "broken_record", record.error
        return record.raw.decode("utf-8", "backslashreplace"), QUARANTINED, STAGE, reason, detail
    try:
        text: Any = source.parse(record.data, **options)
    except KunError:
        raise
    except Drop as drop:
        return "", DROPPED, STAGE, drop.reason, drop.value
    except KeyError as error:
        return "", QUARANTINED, STAGE, "missing_field", str(error)
    except (Exception, SystemExit) as error:  # a stranger's parse may raise anything, and one bad row never ends a run
        return "", QUARANTINED, STAGE, "parse_failed", f"{type(error).__name__}: {error}"[:500]
    if isinstance(text, str):
        return (text, *_ALIVE) if text.strip() else ("", DROPPED, STAGE, "no_text", "empty")
    if text is None:
        return "", DROPPED, STAGE, "no_text", "none"
    return "", QUARANTINED, STAGE, "text_not_string", f"{type(text).__name__}: {text}"[:500]


# --- read elsewhere --------------------------------------------------------------------------------------------


@contextmanager
def read_ahead(
    parts: Sequence[Part], folder: Path, rows: int, crew: Crew, workers: int, check: Check
) -> Iterator[Iterator[tuple[Path, int]]]:
    """Yield an iterator over (file with the tables of a part, number of its records) in order, as a crew reads.

    The files are in a folder in `folder` that is deleted with the block. Each is deleted when the next one is asked
    for, so that there are at most `workers` + 2. The crew's `load` gives the registry in which it finds the source.
    `check` is called while nothing comes, and ends the reading by raising. Raises RunError if a process dies.
    """
    died = RunError(
        "a process that read the inputs died; without a reason above, for lack of memory",
        hint="run kun-build again to go on",
    )
    with TemporaryDirectory(dir=folder, prefix=PLACE) as place, crew.at_work(_read_to_file, workers, died) as submit:
        yield _ahead(submit, parts, Path(place), rows, workers + 2, check)


def _ahead(
    submit: Submit, parts: Sequence[Part], folder: Path, rows: int, ahead: int, check: Check
) -> Iterator[tuple[Path, int]]:
    queue = deque[tuple[Path, Future[int]]]()
    for number in range(len(parts) + ahead):
        if number < len(parts):
            path = folder / f"{number}.arrow"
            queue.append((path, submit(parts[number], str(path), rows)))
        if number >= ahead - 1 and queue:
            path, count = queue.popleft()
            while not wait([count], timeout=_LOOK).done:
                check()
            yield path, count.result()
            path.unlink()


def _read_to_file(part: Part, path: str, rows: int) -> int:
    reading = Reading(part, known().sources[part.source], rows)
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, PART) as writer:
        for table in reading:
            writer.write_table(table)
    return reading.count


def large(parts: Sequence[Part]) -> bool:
    """Whether reading the parts here would take longer than starting other processes for it."""
    return sum(part.size for part in parts) >= 2 * SPAN
