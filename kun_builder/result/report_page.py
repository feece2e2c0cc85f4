"""`report.html`: one page with everything in it, to look at a run without any network.

Counts and pictures cover every row; the rows on the page are a sample, so that a run of millions opens as fast as a
small one. Whatever is foreign gets in as text, and a content security policy lets nothing else run or load.
"""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kun_builder.report import RunReport
from kun_builder.result.cards.cards import caption, funnel, measured, prompts, settings
from kun_builder.result.page import render
from kun_builder.result.plots import pictures, to_svg
from kun_builder.result.stats import SplitStats, read_columns, rows_at, spread
from kun_builder.run.verdicts import KINDS

KEPT_SAMPLE, REJECTED_SAMPLE, REASON_SAMPLE = 600, 900, 40
"""Rows on the page: kept ones in all, rejected ones in all, and of one reason in one split."""
_LONGEST = 6000
"""Characters of one text."""
_WIDTHS = 900, 540, 250
"""Pixels of a picture without its labels: for a wide screen, a narrow one, and a telephone."""


def report_page(
    report: RunReport,
    kept: Mapping[str, Sequence[Path]],
    stats: Mapping[str, SplitStats],
    rejected: Mapping[str, Sequence[Path]],
    judged: Mapping[str, Any],
) -> str:
    """The page of a finished run: its report, and per split its figures and the files of its kept and rejected rows.

    judged: what people and a model said of its pairs (`FinishedRun.judged`).
    """
    facts = {name: (report.splits[name], stat) for name, stat in stats.items()}
    charts = [pictures(facts, width=width) for width in _WIDTHS]
    drawn = [(caption(name, stats), [_inline(to_svg(chart[name])) for chart in charts]) for name in charts[0]]
    rows = {"kept": list(_kept_rows(kept)), "rejected": list(_rejected_rows(rejected))}
    totals = {"read": sum(s.read for s in report.splits.values()), "kept": sum(s.kept for s in report.splits.values())}
    totals["rejected"] = sum(Counter(reason for *_, reason in _reasons(rejected)).values())
    return render(
        "report",
        {**rows, "totals": totals},
        title=f"{report.name} · kun-builder report",
        allow="img-src data:",
        report=report,
        totals=totals,
        judged=judged,
        kinds=KINDS,
        stats=stats,
        funnels={name: funnel(split) for name, split in report.splits.items()},
        costs=list(_costs(report)),
        endpoints=list(_endpoints(report.serving)),
        pictures=drawn,
        measured=measured(stats),
        steps=[(step, settings(step), prompts(step, report.models)) for step in report.steps],
        durations=[*report.phases.items(), ("all", report.seconds)],
        idle=list(report.idle.items()),
    )


def _inline(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _costs(report: RunReport) -> Iterator[dict[str, Any]]:
    """What each step asked of each model, over the life of the run folder; retries are those of its last run."""
    served = {(one["stage"], one["model"]): one for one in report.serving.get("usage", ())}
    for use in report.usage:
        one = served.get((use.stage, use.model), {})
        cached = use.cached_prompt_tokens / use.prompt_tokens if use.prompt_tokens else 0.0
        yield asdict(use) | {"cached": cached} | {name: one.get(name, 0) for name in ("retries", "truncated", "empty")}


def _endpoints(serving: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What each endpoint did, with its window over time as the points of a line in a picture of 240 by 40."""
    for model, endpoints in serving.get("endpoints", {}).items():
        for endpoint in endpoints:
            window = endpoint["window"]
            seconds, most = window[-1][0] or 1.0, max(limit for _, limit in window)
            steps = [(at, limit) for (at, _), (_, limit) in zip(window[1:], window, strict=False)]
            line = [point for pair in zip(window, [*steps, window[-1]], strict=True) for point in pair]
            points = " ".join(f"{240 * at / seconds:.1f},{40 - 38 * limit / most:.1f}" for at, limit in line)
            yield endpoint | {"model": model, "seconds": seconds, "most": most, "points": points}


# --- which rows ---------------------------------------------------------------------------------------------------


def _kept_rows(kept: Mapping[str, Sequence[Path]]) -> Iterator[dict[str, Any]]:
    """An even share of rows from each split, evenly spread over it."""
    for paths in kept.values():
        rows = sum(len(table) for table in read_columns(paths, ("position",)))
        for row in rows_at(paths, spread(rows, KEPT_SAMPLE // len(kept))):
            yield _shown(row)


def _rejected_rows(rejected: Mapping[str, Sequence[Path]]) -> Iterator[dict[str, Any]]:
    """Some rows for each reason, evenly spread; the commonest reasons are not more in view than the rare ones."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for split, number, reason in _reasons(rejected):
        found[split, reason].append(number)
    share = min(REASON_SAMPLE, max(3, REJECTED_SAMPLE // max(1, len(found))))
    chosen: dict[str, list[int]] = defaultdict(list)
    for (split, _), numbers in found.items():
        chosen[split] += [numbers[at] for at in spread(len(numbers), share)]
    for split, numbers in chosen.items():
        yield from (_shown(row) for row in rows_at(rejected[split], sorted(numbers)))


def _reasons(rejected: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, int, str]]:
    """Split, row number, and stage with reason of every rejected row."""
    for split, files in rejected.items():
        number = 0
        for table in read_columns(files, ("_stage", "_reason")):
            for stage, reason in zip(table["_stage"].to_pylist(), table["_reason"].to_pylist(), strict=True):
                yield split, number, f"{stage}: {reason}"
                number += 1


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without the columns that are the same in all rows, its long texts cut off."""
    return {n: v[:_LONGEST] if isinstance(v, str) else v for n, v in row.items() if n != "steps" and v is not None}
