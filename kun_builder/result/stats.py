"""What the pictures and the card need to know of a run's rows: counts in fixed bins, in one pass over the files.

Bins are the same for every run, so that splits of different releases can stand in one picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from kun_builder.declarations import NUMBERS
from kun_builder.drops import RESULT_COLUMNS, TEXT_COLUMNS, result_columns
from kun_builder.report import StepFacts
from kun_builder.result.clusters import largest_clusters
from kun_builder.result.forms import FormCounts, Forms
from kun_builder.result.limits import limits_of
from kun_builder.result.measures import Histogram, Measure, Owner, Spread, measure, spread_of

if TYPE_CHECKING:
    import pyarrow as pa

LENGTH_EDGES = tuple(round(2 ** (step / 2)) for step in range(2, 30))
"""Characters: 2 to 23,170, two bins for each doubling."""

TEXTS = (*RESULT_COLUMNS, *TEXT_COLUMNS)
"""Columns of text that a result can have: the first two, or the last."""

_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class SplitStats:
    """One split: its kept rows, and what was measured of them and of the rejected ones."""

    rows: int
    instruction_length: Histogram
    output_length: Histogram
    measures: Mapping[str, Measure] = field(default_factory=dict)
    """Per column of numbers that a step adds, in the order of the steps."""
    texts: Mapping[str, TextFacts] = field(default_factory=dict)
    """Of `instruction` and `output`, or of `text`."""
    forms: Mapping[str, int] = field(default_factory=dict)
    """In which forms instructions ask (see `forms`)."""
    patterns: Mapping[str, int] = field(default_factory=dict)
    """The largest groups of instructions that are alike but for their subject."""
    clusters: Mapping[str, int] = field(default_factory=dict)
    """Instructions in whose favour most other rows were dropped (see `clusters`)."""
    languages: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[Mapping[str, str], ...] = ()
    """A few rows, evenly spread: id, and instruction and output, or text."""
    text_length: Histogram | None = None
    """Of a dataset of texts."""

    @property
    def lengths(self) -> Mapping[str, Histogram]:
        """Lengths in characters, by column."""
        if self.text_length:
            return {"text": self.text_length}
        return {"instruction": self.instruction_length, "output": self.output_length}

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SplitStats:
        """Back from plain data, which may be a stranger's: raises pydantic's ValidationError for what is no figures.

        What only other versions of kun-builder count is left out.
        """
        return _reader().validate_python(data)


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """One column of text among the kept rows: how many different ones there are, and their lengths in characters."""

    different: int
    length: Spread | None


@cache
def _reader() -> TypeAdapter[SplitStats]:
    return TypeAdapter(SplitStats)


def owners(steps: Iterable[StepFacts]) -> dict[str, Owner]:
    """The columns of numbers that the steps of a report add, in order, each with the limits that were set last."""
    found: dict[str, Owner] = {}
    for step in steps:
        adds = {step.stage: "double"} if step.adds is None else step.adds  # an old report does not say: as it is called
        columns = [name for name, kind in adds.items() if kind in NUMBERS]
        limits = limits_of([step], columns, kinds=NUMBERS)
        for column in columns:
            old = found.get(column, Owner(labels=()))
            sides = {one.at_least: one.value for one in limits if one.column == column}
            found[column] = Owner(
                labels=(*old.labels, step.label),
                quantity=(step.quantities or {}).get(column, old.quantity),
                least=sides.get(True, old.least),
                most=sides.get(False, old.most),
                alone=len(columns) == 1,
            )
    return found


def split_stats(
    kept: Sequence[Path],
    rejected: Sequence[Path],
    measured: Mapping[str, Owner] | None = None,
    forms: Forms = (),
    sizes: Mapping[str, int] | None = None,
) -> SplitStats:
    """Figures of one split from the files of its kept rows and of its rejected ones.

    measured: the columns of numbers. forms: those that are counted among the instructions. sizes: how many rows, of all
    splits, were dropped in favour of each id.
    """
    found = _Kept(columns := _columns(kept), forms)
    for table in read_columns(kept, (*columns, "language")):
        found.add(table)
    sources = (partial(read_columns, kept), partial(read_columns, rejected))
    measures = {name: measure(owner, name, *sources) for name, owner in (measured or {}).items()}
    return SplitStats(
        rows=found.rows,
        instruction_length=found.lengths("instruction"),
        output_length=found.lengths("output"),
        text_length=found.lengths("text") if "text" in columns else None,
        measures={name: said for name, said in measures.items() if said},
        texts={name: found.texts(name) for name in columns},
        forms=dict(found.forms.forms.most_common()),
        patterns=found.forms.largest(),
        clusters=largest_clusters(read_columns(kept, ("id", "instruction")), sizes or {}),
        languages=dict(found.languages),
        examples=tuple(_examples(kept, found.rows, columns)),
    )


def read_columns(paths: Sequence[Path], columns: Sequence[str], rows: int = 20_000) -> Iterator[pa.Table]:
    """The named columns of Parquet files, as far as they have them, in tables of at most `rows` rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        with pq.ParquetFile(path, memory_map=True) as file:
            names = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=rows, columns=names):
                yield pa.Table.from_batches([batch])


class _Kept:
    """Running sums over the kept rows."""

    def __init__(self, columns: Sequence[str], forms: Forms) -> None:
        self.rows, self._columns = 0, columns
        empty = [0] * (len(LENGTH_EDGES) - 1)
        self.counts: dict[str, list[int]] = {name: empty[:] for name in TEXTS}
        self.forms = FormCounts(forms)
        self.languages: Counter[str] = Counter()
        self._lengths: dict[str, list[Any]] = {name: [] for name in columns}
        self._hashes: dict[str, list[Any]] = {name: [] for name in columns}

    def add(self, table: pa.Table) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        self.rows += table.num_rows
        for name in self._columns:
            texts = table[name].cast(pa.string())
            lengths = pc.utf8_length(texts.drop_null())
            _count(self.counts[name], LENGTH_EDGES, lengths)
            self._lengths[name].append(lengths.to_numpy().astype(np.float64))
            content = texts.cast(pa.binary()).to_pylist()  # no character is made only to be hashed
            self._hashes[name].append(np.fromiter(map(hash, content), np.int64, len(content)))
        if "language" in table.column_names and pa.types.is_string(table.schema.field("language").type):
            self.languages.update(v for v in table["language"].to_pylist() if v)
        if "instruction" in self._columns:
            self.forms.add(table["instruction"].cast(pa.string()))

    def lengths(self, name: str) -> Histogram:
        """Lengths of a column; nothing in any bin, if the result has none."""
        return Histogram(LENGTH_EDGES, tuple(self.counts[name]))

    def texts(self, name: str) -> TextFacts:
        """Facts of a column of text."""
        import numpy as np

        different = len(np.unique(np.concatenate([np.empty(0, np.int64), *self._hashes[name]])))
        return TextFacts(different=different, length=spread_of(np.concatenate([np.empty(0), *self._lengths[name]])))


def _count(counts: list[int], edges: Sequence[float], values: pa.ChunkedArray) -> None:
    import numpy as np

    clipped = np.clip(values.to_numpy(), edges[0], edges[-1])
    for at, count in enumerate(np.histogram(clipped, edges)[0].tolist()):
        counts[at] += count


def _columns(kept: Sequence[Path]) -> tuple[str, ...]:
    """Columns of text that the result has."""
    import pyarrow.parquet as pq

    return result_columns(pq.read_schema(kept[0]).names) if kept else RESULT_COLUMNS


def _examples(paths: Sequence[Path], rows: int, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    for row in rows_at(paths, spread(rows, _EXAMPLES), ("id", *columns)):
        yield {name: str(row[name]) for name in ("id", *columns)}


def spread(rows: int, wanted: int) -> list[int]:
    """At most `wanted` row numbers, evenly spread over `rows`: the middles of equal parts."""
    wanted = min(rows, wanted)
    return [(2 * number + 1) * rows // (2 * wanted) for number in range(wanted)]


def rows_at(paths: Sequence[Path], numbers: Sequence[int], columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows with these ascending numbers, counted over all files; only their row groups are read."""
    import pyarrow.parquet as pq

    todo, start = list(numbers), 0
    for path in paths:
        with pq.ParquetFile(path, memory_map=True) as file:
            names = [name for name in columns if name in file.schema_arrow.names] or None
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                mine = [number - start for number in todo if start <= number < start + size]
                if mine:
                    yield from file.read_row_group(group, columns=names).take(mine).to_pylist()
                start += size
