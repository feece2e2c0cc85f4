"""The pictures of a run, each defined once as Vega-Lite, for card and report alike.

Transparent, in middle tones that stand out on a white page and on a dark one. They are written as plain Vega-Lite: to
check each of a dozen charts against the schema of all charts would take longer than drawing it.
"""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from kun_builder.errors import RunError
from kun_builder.report import SplitReport
from kun_builder.result.measures import SHARE_EDGES, Histogram, Measure
from kun_builder.result.stats import SplitStats

TEXT = "#7b818a"
PALETTE = ("#3d86c6", "#c8772a", "#2f9a6c", "#a865c9", "#c25a66", "#7d8c2c", "#2e94a3", "#9a7b5f")
"""One colour a split."""
REJECTED, ELSEWHERE, CUT = "#c25a66", "#8a919b", "#b5820f"
LIGHT_PAGE, DARK_PAGE = "#ffffff", "#0d1117"

WIDTH = 640
_NARROW = 480
"""Below it, panels stand one above the other."""
_FILE_NAME = re.compile(r"\w[\w-]*", re.ASCII)
_ADDRESSES = 80 << 30
_ROUND = [digit * 10**power for power in range(5) for digit in (1, 2, 5)]
"""Ticks of logarithmic axes."""


def pictures(splits: Mapping[str, tuple[SplitReport, SplitStats]], *, width: int = WIDTH) -> dict[str, dict[str, Any]]:
    """Vega-Lite specifications by name, each `width` pixels wide without its labels: one for each measured column."""
    stats = {name: stat for name, (_, stat) in splits.items()}
    charts = {
        "funnel": _funnel({name: report for name, (report, _) in splits.items()}, width),
        "text-lengths" if any(stat.text_length for stat in stats.values()) else "lengths": _lengths(stats, width),
    }
    charts |= {f"measure-{name}": _measured(stats, name, width) for name in measured_columns(stats)}
    if any(stat.forms for stat in stats.values()):
        charts["asks"] = _asks(stats, width)
    return {name: styled(chart) for name, chart in charts.items()}


def measured_columns(stats: Mapping[str, SplitStats]) -> list[str]:
    """Columns of numbers that any split has and that can name a file, in the order of the steps."""
    names = dict.fromkeys(name for stat in stats.values() for name in stat.measures)
    return [name for name in names if _FILE_NAME.fullmatch(name)]


def to_svg(specification: Mapping[str, Any]) -> str:
    """The picture as SVG; the same specification is drawn once, and gives the same PNG in every process."""
    return _svg(json.dumps(specification, sort_keys=True))


@lru_cache(maxsize=32)
def _svg(specification: str) -> str:
    _check_room()
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(specification)
    return svg


def _check_room() -> None:
    """Raise RunError where what draws would end this process: its JavaScript engine sets 64 GiB of addresses aside."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= limit < _ADDRESSES:
        raise RunError(
            f"pictures cannot be drawn with {limit // 2**20:,} MiB of addresses (`ulimit -v`)",
            hint="`ulimit -v unlimited` gives more; the memory that is used is another matter",
        )


def to_png(svg: str) -> bytes:
    """A picture as PNG, at twice its nominal resolution."""
    import vl_convert

    png: bytes = vl_convert.svg_to_png(svg, scale=2)
    return png


def styled(chart: Mapping[str, Any]) -> dict[str, Any]:
    """The chart in our one style: transparent, in middle tones."""
    return {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", **chart, "config": _STYLE}


_TONES = {"labelColor": TEXT, "titleColor": TEXT}
_LINES = {"gridColor": TEXT, "gridOpacity": 0.25, "domainColor": TEXT, "tickColor": TEXT}
_STYLE = {
    "background": "transparent",
    "font": "Helvetica Neue, Arial, Noto Sans CJK SC, sans-serif",
    "axis": {**_TONES, "titleFontWeight": "normal", "labelFontSize": 11, **_LINES},
    "legend": {**_TONES, "orient": "top"},
    "header": {**_TONES, "labelFontSize": 12},
    "title": {"color": TEXT, "anchor": "start", "fontSize": 14},
    "view": {"stroke": None},
}


def _number(field: str, **more: Any) -> dict[str, Any]:
    """The encoding of a column of numbers."""
    return {"field": field, "type": "quantitative", **more}


def _name(field: str, **more: Any) -> dict[str, Any]:
    """The encoding of a column of names."""
    return {"field": field, "type": "nominal", **more}


def _colour(splits: Mapping[str, Any]) -> dict[str, Any]:
    names = list(splits)
    colours = [PALETTE[number % len(PALETTE)] for number in range(len(names))]
    return _name("split", scale={"domain": names, "range": colours}, title=None)


def _funnel(reports: Mapping[str, SplitReport], width: int) -> dict[str, Any]:
    rows, order = [], ["records"]
    for name, report in reports.items():
        rows.append({"split": name, "step": "records", "rows": report.read})
        for step in report.stages:
            rows.append({"split": name, "step": step.label, "rows": step.rows_out})
            order += [] if step.label in order else [step.label]
    bars = {
        "y": _name("step", sort=order, title=None),
        "yOffset": _name("split", sort=list(reports)),
        "x": _number("rows", title="rows", axis={"tickCount": 5, "tickMinStep": 1, "format": ",.0f"}),
    }
    text = {"type": "text", "align": "left", "dx": 4, "color": TEXT, "fontSize": 10}
    return {
        "title": "Rows left after each step",
        "width": width,
        "height": max(120, 15 * len(order) * len(reports)),
        "data": {"values": rows},
        "layer": [
            {"mark": {"type": "bar", "cornerRadiusEnd": 2}, "encoding": {**bars, "color": _colour(reports)}},
            {"mark": text, "encoding": {**bars, "text": _number("rows", format=",")}},
        ],
    }


def _outline(histogram: Histogram) -> Iterator[tuple[float, float]]:
    """The outline of a histogram as points (edge, share of rows), which begins and ends at zero."""
    full = [at for at, count in enumerate(histogram.counts) if count]
    if full:
        yield histogram.edges[full[0]], 0
        for at in range(full[0], full[-1] + 1):
            yield histogram.edges[at], histogram.counts[at] / histogram.total
        yield histogram.edges[full[-1] + 1], 0


def _lengths(stats: Mapping[str, SplitStats], width: int) -> dict[str, Any]:
    of = dict.fromkeys(f"{column}s" for stat in stats.values() for column in stat.lengths)
    rows = [
        {"split": name, "of": column, "at": at, "order": number, "share": share}
        for name, stat in stats.items()
        for column, histogram in stat.lengths.items()
        for number, (at, share) in enumerate(_outline(histogram))
    ]
    axis = {"format": "~s", "values": _ROUND, "labelOverlap": True, "grid": False}
    wide = width >= _NARROW
    lines = {
        "width": width // 2 - 20 if wide else width,
        "height": 200,
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
        "encoding": {
            "x": _number("at", scale={"type": "log", "nice": False}, title="characters", axis=axis),
            "order": _number("order"),
            "y": _number("share", title="share of rows", axis={"format": "%"}),
            "color": _colour(stats),
        },
    }
    return {
        "title": f"Length of {' and '.join(of)}",
        "data": {"values": rows},
        "facet": {"column" if wide else "row": _name("of", title=None)},
        "spec": lines,
    }


_FATES = {"kept": PALETTE[0], "rejected by this": REJECTED, "rejected by another step": ELSEWHERE}


def _stacked(measures: Mapping[str, Measure]) -> Iterator[dict[str, Any]]:
    """Bins of one measure per split: kept rows from the ground, rejected ones on top of them."""
    for name, measure in measures.items():
        ground = [0] * len(measure.kept.counts)
        for fate, histogram in zip(_FATES, (measure.kept, measure.rejected, measure.elsewhere), strict=True):
            for at, count in enumerate(histogram.counts):
                edges = {"from": histogram.edges[at], "to": histogram.edges[at + 1]}
                if count:
                    rows = {"low": ground[at], "rows": ground[at] + count}
                    yield {"kind": "bin", "split": name, "fate": fate, **edges, **rows}
                ground[at] += count


def _cuts(measures: Mapping[str, Measure]) -> Iterator[dict[str, Any]]:
    """Where rows were cut: at the limits that were set, else at the nearest values that were rejected, if any were."""
    for name, measure in measures.items():
        marks = {"least": measure.least, "most": measure.most}
        marks |= {"rejected up to": measure.cut_below, "rejected from": measure.cut_above}
        for said, value in marks.items():
            if value is not None:
                side = "left" if value in (measure.most, measure.cut_above) else "right"
                yield {"split": name, "kind": "cut", "side": side, "from": value, "label": f"{said} {value:.4g}"}


_LABELS = (("right", "left", 3), ("left", "right", -3))
"""Side of its line that a label stands on, its alignment and its distance."""


def _measured(stats: Mapping[str, SplitStats], column: str, width: int) -> dict[str, Any]:
    """Histograms of a column, kept above rejected, one panel a split; dashed lines where rows were cut."""
    measures = {name: stat.measures[column] for name, stat in stats.items() if column in stat.measures}
    shares = all(measure.kept.edges == SHARE_EDGES for measure in measures.values())
    cuts = [cut for cut in _cuts(measures) if cut["from"] > 0 or shares]  # a logarithmic axis has no place for zero
    span = {"domain": [0, 1]} if shares else {"type": "log", "nice": False}
    ticks = {"grid": False, "tickCount": 10} if shares else {"grid": False, "values": _ROUND, "labelOverlap": True}
    bottom = {"from": SHARE_EDGES[1]} if not shares else {}
    rows = [{**row, **(bottom if not row["from"] else {})} for row in (*_stacked(measures), *cuts)]
    said = next(iter(measures.values()))
    x = {"x": _number("from", scale=span, title=said.unit or column, axis=ticks)}
    return {
        "title": f"{said.heading(column)}: kept and rejected rows",
        "data": {"values": rows},
        "facet": {"row": _name("split", title=None, sort=list(stats))},
        "resolve": {"scale": {"y": "independent"}},
        "spec": {"width": width, "height": 110, "layer": [_bars(x), _rules(x), *(_labels(x, *one) for one in _LABELS)]},
    }


def _bars(x: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "transform": [{"filter": "datum.kind == 'bin'"}],
        "mark": {"type": "bar", "binSpacing": 1},
        "encoding": {
            **x,
            "x2": {"field": "to"},
            "y": _number("rows", title="rows", axis={"tickCount": 4, "tickMinStep": 1, "format": "~s"}),
            "y2": {"field": "low"},
            "color": _name("fate", scale={"domain": [*_FATES], "range": [*_FATES.values()]}, title=None),
        },
    }


def _rules(x: Mapping[str, Any]) -> dict[str, Any]:
    mark = {"type": "rule", "color": CUT, "strokeDash": [5, 3], "strokeWidth": 2}
    return {"transform": [{"filter": "datum.kind == 'cut'"}], "mark": mark, "encoding": x}


def _labels(x: Mapping[str, Any], side: str, align: str, dx: int) -> dict[str, Any]:
    """The labels of the lines that have theirs on this side."""
    mark = {"type": "text", "color": CUT, "align": align, "dx": dx, "dy": -2, "baseline": "bottom", "fontSize": 10}
    return {
        "transform": [{"filter": f"datum.kind == 'cut' && datum.side == '{side}'"}],
        "mark": mark,
        "encoding": {**x, "y": {"value": 0}, "text": _name("label")},
    }


def _asks(stats: Mapping[str, SplitStats], width: int) -> dict[str, Any]:
    rows = [
        {"split": name, "ask": ask, "share": count / stat.rows}
        for name, stat in stats.items()
        for ask, count in stat.forms.items()
    ]
    asks = {row["ask"] for row in rows}
    order = {"field": "share", "op": "sum", "order": "descending"}
    return {
        "title": "How instructions ask",
        "width": width,
        "height": max(100, 10 * len(asks) * len(stats)),
        "data": {"values": rows},
        "mark": {"type": "bar", "cornerRadiusEnd": 2},
        "encoding": {
            "y": _name("ask", sort=order, title=None),
            "yOffset": _name("split", sort=list(stats)),
            "x": _number("share", title="share of instructions", axis={"format": "%", "tickCount": 6}),
            "color": _colour(stats),
        },
    }
