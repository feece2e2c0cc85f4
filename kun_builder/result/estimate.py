"""What a whole run will take, reckoned from a finished sample of it.

Rows of the sample were drawn at random from each split, so a split's total is its number of records times the sample's
mean, and the variance of that estimate is known; the interval is the usual normal one of 95 %. A row that cleaning
drops counts as one that makes no request.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kun_builder.report import RunReport
from kun_builder.result.finished import FinishedRun
from kun_builder.result.stats import read_columns
from kun_builder.types import ModelSpec

FIGURES = ("requests", "prompt_tokens", "completion_tokens")
_LIMITED = {"requests_per_minute": FIGURES[:1], "tokens_per_minute": FIGURES[1:]}
_BOUNDS = ("value", "low", "high")
_Z = 1.96  # two-sided 95 % of the normal distribution


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its 95 % interval; never below zero."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        """The estimate in other units."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Estimate:
    """The whole: rows kept, and per model the figures, money and hours at the pace of the sample."""

    records: int
    sampled: int
    kept: Interval
    models: Mapping[str, Mapping[str, Interval]]
    hours: Interval | None
    """Hours at the pace of the sample, or at the models' limits per minute where those are slower.

    A sample is too small to fill many servers, so that the whole will rather be faster. None where most answers of the
    sample were in the journal already, since its pace then tells nothing.
    """


def estimate(sample: FinishedRun, specs: Mapping[str, ModelSpec]) -> Estimate:
    """Reckon the whole input from the finished run of a sample. `specs` give the prices per million tokens."""
    report = sample.report
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    kept: dict[str, list[float]] = {}
    for split in report.splits:
        for row in _rows(sample, split):
            kept.setdefault(split, []).append(float(row["kept"]))
            for model in report.models:
                calls = [call for call in row["calls"] if call["model"] == model]
                one = [len(calls), *(sum(call[name] for call in calls) for name in FIGURES[1:])]
                money = (one[1] * specs[model].cost_in + one[2] * specs[model].cost_out) / 1e6
                for name, value in zip((*FIGURES, "cost"), (*one, money), strict=True):
                    values[model, name][split].append(value)
    sizes = {
        split: round(facts.records * len(kept.get(split, ())) / facts.read) if facts.read else 0
        for split, facts in report.splits.items()  # a stage may make several rows of a record
    }
    models: dict[str, dict[str, Interval]] = {model: {} for model in report.models}
    for (model, name), by_split in values.items():
        models[model][name] = _total(by_split, sizes)
    records, sampled = (sum(getattr(one, name) for one in report.splits.values()) for name in ("records", "read"))
    return Estimate(records, sampled, _total(kept, sizes), models, _hours(report, models, specs))


def _hours(
    report: RunReport, models: Mapping[str, Mapping[str, Interval]], specs: Mapping[str, ModelSpec]
) -> Interval | None:
    asked, reused = (sum(getattr(usage, name) for usage in report.usage) for name in ("requests", "reused"))
    stages = {usage.stage for usage in report.usage}
    seconds = sum(took for label, took in report.phases.items() if stages & set(label.split("+")))
    if not asked or reused > asked or not seconds:
        return None
    hours = [_sum(figures["requests"] for figures in models.values()).times(seconds / asked / 3600)]
    for name, figures in models.items():
        hours += _at_limits(figures, specs[name])
    return Interval(*(max(getattr(one, bound) for one in hours) for bound in _BOUNDS))


def _at_limits(figures: Mapping[str, Interval], spec: ModelSpec) -> Iterator[Interval]:
    """Hours that each limit per minute of a model makes of its figures; endpoints of a file count as one."""
    for limit, most in spec.limits.items():
        total = _sum(figures[name] for name in _LIMITED[limit])
        yield total.times(1 / (60 * most * max(1, len(spec.endpoints))))


def _sum(parts: Iterable[Interval]) -> Interval:
    parts = list(parts)
    return Interval(*(sum(getattr(part, bound) for part in parts) for bound in _BOUNDS))


def _total(values: Mapping[str, list[float]], sizes: Mapping[str, int]) -> Interval:
    """Sum over splits of size times mean (stratified sampling), with finite-population correction."""
    total = variance = 0.0
    for split, sample in values.items():
        n, size = len(sample), max(sizes[split], len(sample))
        mean = sum(sample) / n
        spread = sum((value - mean) ** 2 for value in sample) / max(1, n - 1)
        total += size * mean
        variance += size * size * (1 - n / size) * spread / n
    margin = _Z * math.sqrt(variance)
    return Interval(total, max(0.0, total - margin), total + margin)


def _rows(run: FinishedRun, split: str) -> Iterator[dict[str, Any]]:
    """The `calls` of every row of a split, kept or not; a run that only cleans has none."""
    for paths, alive in ((run.kept[split], True), (run.rejected[split], False)):
        for table in read_columns(paths, ("id", "calls")):
            for row in table.to_pylist():
                yield {"calls": row.get("calls") or [], "kept": alive}
