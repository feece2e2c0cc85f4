"""What the pictures and the card need to know of a run's rows: counts in fixed bins, in one pass over the files.

Bins are the same for every run, so that splits of different releases can stand in one picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kun_builder.forms import FormCounts

if TYPE_CHECKING:
    import pyarrow as pa

LENGTH_EDGES = tuple(round(2 ** (step / 2)) for step in range(2, 30))
"""Characters: 2 to 23,170, two bins for each doubling."""
PERPLEXITY_EDGES = tuple(round(2 ** (step / 2), 1) for step in range(2, 40))
SCORE_EDGES = tuple(round(step / 20, 2) for step in range(21))

ASKS = {
    "translate": r"翻译|(?i:\btranslat)",
    "code": r"代码|编程|(?i:\b(?:code|python|sql|script)\b)",
    "summarise": r"总结|概括|摘要|归纳|(?i:\bsummar)",
    "compare": r"比较|对比|区别|异同|(?i:\bcompar|\bdifference)",
    "how": r"如何|怎么|怎样|步骤|(?i:\bhow\b)",
    "why": r"为什么|为何|原因|(?i:\bwhy\b)",
    "list": r"列出|列举|哪些|(?i:\blist\b)",
    "analyse": r"分析|评价|评论|看法|观点|(?i:\b(?:analy[sz]|evaluat|opinion))",
    "advise": r"推荐|建议|(?i:\b(?:recommend|suggest|advi[cs]e))",
    "write": r"写|撰|创作|起草|(?i:\b(?:write|compose|draft)\b)",
    "explain": r"解释|说明|介绍|描述|阐述|讲述|谈谈|(?i:\b(?:explain|describe|introduce|tell)\b)",
    "what": r"什么|是谁|哪|几|多少|(?i:\b(?:what|who|which|when|where)\b)",
}
"""What an instruction asks for: the first line that matches. RE2 syntax."""

_EXAMPLES = 3


@dataclass(frozen=True)
class Histogram:
    """Counts between neighbouring edges; values outside go into the first or last bin."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """Number of values."""
        return sum(self.counts)


@dataclass(frozen=True, kw_only=True)
class SplitStats:
    """One split: its kept rows, and the scores and perplexities of those that were measured and rejected."""

    rows: int
    instruction_length: Histogram
    output_length: Histogram
    score: Histogram | None = None
    score_rejected: Histogram | None = None
    """Of rows that the step which measured it rejected; `_elsewhere`: that another step rejected."""
    score_elsewhere: Histogram | None = None
    perplexity: Histogram | None = None
    perplexity_rejected: Histogram | None = None
    perplexity_elsewhere: Histogram | None = None
    perplexity_range: tuple[float, float] | None = None
    """Lowest and highest perplexity that the step which measured it let pass."""
    asks: Mapping[str, int] = field(default_factory=dict)
    forms: Mapping[str, int] = field(default_factory=dict)
    """In which forms instructions ask (see `forms`)."""
    patterns: Mapping[str, int] = field(default_factory=dict)
    """The largest groups of instructions that are alike but for their subject."""
    languages: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[Mapping[str, str], ...] = ()
    """A few rows, evenly spread: id, instruction, output."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SplitStats:
        """Back from plain data."""
        fixed = dict(data, examples=tuple(data["examples"]))
        for name, value in data.items():
            if isinstance(value, Mapping) and value.keys() == {"edges", "counts"}:
                fixed[name] = Histogram(tuple(value["edges"]), tuple(value["counts"]))
        fixed["perplexity_range"] = tuple(data["perplexity_range"]) if data["perplexity_range"] else None
        return cls(**fixed)


def split_stats(kept: Sequence[Path], rejected: Sequence[Path]) -> SplitStats:
    """Figures of one split from the files of its kept rows and of its rejected ones."""
    found = _Kept()
    for table in read_columns(kept, ("instruction", "output", "score", "perplexity", "language")):
        found.add(table)
    here: dict[str, list[int]] = {}
    elsewhere: dict[str, list[int]] = {}
    for table in read_columns(rejected, ("score", "perplexity", "_stage")):
        for measure in ("score", "perplexity"):
            by_it = _rejected_by(table, measure)
            _measure(table.filter(by_it), here, measure)
            _measure(rest := table.filter(_not(by_it)), elsewhere, measure)
            if measure == "perplexity":
                found.widen(rest)
    return SplitStats(
        rows=found.rows,
        instruction_length=Histogram(LENGTH_EDGES, tuple(found.counts["instruction"])),
        output_length=Histogram(LENGTH_EDGES, tuple(found.counts["output"])),
        score=_histogram("score", found.counts),
        score_rejected=_histogram("score", here),
        score_elsewhere=_histogram("score", elsewhere),
        perplexity=_histogram("perplexity", found.counts),
        perplexity_rejected=_histogram("perplexity", here),
        perplexity_elsewhere=_histogram("perplexity", elsewhere),
        perplexity_range=found.range,
        asks=dict(found.asks),
        forms=dict(found.forms.forms.most_common()),
        patterns=found.forms.largest(),
        languages=dict(found.languages),
        examples=tuple(_examples(kept, found.rows)),
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

    def __init__(self) -> None:
        self.rows = 0
        empty = [0] * (len(LENGTH_EDGES) - 1)
        self.counts: dict[str, list[int]] = {"instruction": empty[:], "output": empty[:]}
        self.range: tuple[float, float] | None = None
        self.asks: Counter[str] = Counter()
        self.forms = FormCounts()
        self.languages: Counter[str] = Counter()

    def add(self, table: pa.Table) -> None:
        import pyarrow.compute as pc

        self.rows += table.num_rows
        for name in ("instruction", "output"):
            _count(self.counts[name], LENGTH_EDGES, pc.utf8_length(table[name]))
        for measure in ("score", "perplexity"):
            _measure(table, self.counts, measure)
        self.widen(table)
        if "language" in table.column_names:
            self.languages.update(v for v in table["language"].to_pylist() if v)
        self.asks.update(_asks(table["instruction"]))
        self.forms.add(table["instruction"].to_pylist())

    def widen(self, table: pa.Table) -> None:
        """Take the perplexities of rows that were let pass into the range."""
        import pyarrow.compute as pc

        if "perplexity" in table.column_names and table["perplexity"].null_count < len(table):
            ends = pc.min_max(table["perplexity"]).as_py()
            low, high = self.range or (ends["min"], ends["max"])
            self.range = (min(low, ends["min"]), max(high, ends["max"]))


def _rejected_by(table: pa.Table, stage: str) -> pa.ChunkedArray:
    """Which rows a step of this stage rejected; the second one of a recipe is labelled `stage-2`."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.match_substring_regex(table["_stage"], rf"^{stage}(-\d+)?$"), False)


def _not(mask: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.invert(mask)


def _asks(instructions: pa.ChunkedArray) -> dict[str, int]:
    import numpy as np
    import pyarrow.compute as pc

    free = np.ones(len(instructions), dtype=bool)
    counts = {}
    for name, pattern in ASKS.items():
        hit = pc.match_substring_regex(instructions, pattern).to_numpy() & free
        counts[name] = int(hit.sum())
        free &= ~hit
    return {name: count for name, count in [*counts.items(), ("other", int(free.sum()))] if count}


def _measure(table: pa.Table, counts: dict[str, list[int]], name: str) -> None:
    edges = SCORE_EDGES if name == "score" else PERPLEXITY_EDGES
    if name in table.column_names and table[name].null_count < len(table):
        _count(counts.setdefault(name, [0] * (len(edges) - 1)), edges, table[name].drop_null())


def _count(counts: list[int], edges: Sequence[float], values: pa.ChunkedArray) -> None:
    import numpy as np

    clipped = np.clip(values.to_numpy(), edges[0], edges[-1])
    for at, count in enumerate(np.histogram(clipped, edges)[0].tolist()):
        counts[at] += count


def _histogram(name: str, counts: Mapping[str, Sequence[int]]) -> Histogram | None:
    edges = SCORE_EDGES if name == "score" else PERPLEXITY_EDGES
    return Histogram(edges, tuple(counts[name])) if name in counts else None


def _examples(paths: Sequence[Path], rows: int) -> Iterator[dict[str, str]]:
    for row in rows_at(paths, spread(rows, _EXAMPLES), ("id", "instruction", "output")):
        yield {name: str(row[name]) for name in ("id", "instruction", "output")}


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
