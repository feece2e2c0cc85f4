"""The pictures of a run, each defined once as Vega-Lite, for card and report alike.

Transparent, in middle tones that stand out on a white page and on a dark one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from kun_builder.report import SplitReport
from kun_builder.result.measures import SHARE_EDGES, Histogram, Measure
from kun_builder.result.stats import SplitStats

if TYPE_CHECKING:
    import altair as alt

TEXT = "#7b818a"
PALETTE = ("#3d86c6", "#c8772a", "#2f9a6c", "#a865c9", "#c25a66", "#7d8c2c", "#2e94a3", "#9a7b5f")
"""One colour a split."""
REJECTED, ELSEWHERE, CUT = "#c25a66", "#8a919b", "#b5820f"
LIGHT_PAGE, DARK_PAGE = "#ffffff", "#0d1117"

WIDTH = 640
_NARROW = 480
"""Below it, panels stand one above the other."""
_FILE_NAME = re.compile(r"\w[\w-]*", re.ASCII)
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
    return {name: styled(chart).to_dict() for name, chart in charts.items()}


def measured_columns(stats: Mapping[str, SplitStats]) -> list[str]:
    """Columns of numbers that any split has and that can name a file, in the order of the steps."""
    names = dict.fromkeys(name for stat in stats.values() for name in stat.measures)
    return [name for name in names if _FILE_NAME.fullmatch(name)]


def to_svg(specification: Mapping[str, Any]) -> str:
    """The picture as SVG; the same specification is drawn once, and gives the same PNG in every process."""
    return _svg(json.dumps(specification, sort_keys=True))


@lru_cache(maxsize=32)
def _svg(specification: str) -> str:
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(specification)
    return svg


def to_png(svg: str) -> bytes:
    """A picture as PNG, at twice its nominal resolution."""
    import vl_convert

    png: bytes = vl_convert.svg_to_png(svg, scale=2)
    return png


def styled(chart: Any) -> Any:
    """The chart in our one style: transparent, in middle tones."""
    font = "Helvetica Neue, Arial, Noto Sans CJK SC, sans-serif"
    faint = {"gridColor": TEXT, "gridOpacity": 0.25, "domainColor": TEXT, "tickColor": TEXT}
    return (
        chart.configure(background="transparent", font=font)
        .configure_axis(labelColor=TEXT, titleColor=TEXT, titleFontWeight="normal", labelFontSize=11, **faint)
        .configure_legend(labelColor=TEXT, titleColor=TEXT, orient="top")
        .configure_header(labelColor=TEXT, titleColor=TEXT, labelFontSize=12)
        .configure_title(color=TEXT, anchor="start", fontSize=14)
        .configure_view(stroke=None)
    )


def _colour(splits: Mapping[str, Any]) -> alt.Color:
    import altair as alt

    names = list(splits)
    colours = [PALETTE[number % len(PALETTE)] for number in range(len(names))]
    return alt.Color("split:N", scale=alt.Scale(domain=names, range=colours), title=None)


def _chart(rows: list[dict[str, Any]]) -> alt.Chart:
    import altair as alt

    return alt.Chart(alt.InlineData(values=rows))


def _funnel(reports: Mapping[str, SplitReport], width: int) -> Any:
    import altair as alt

    rows, order = [], ["records"]
    for name, report in reports.items():
        rows.append({"split": name, "step": "records", "rows": report.read})
        for step in report.stages:
            rows.append({"split": name, "step": step.label, "rows": step.rows_out})
            order += [] if step.label in order else [step.label]
    bars = _chart(rows).encode(
        y=alt.Y("step:N", sort=order, title=None),
        yOffset=alt.YOffset("split:N", sort=list(reports)),
        x=alt.X("rows:Q", title="rows", axis=alt.Axis(tickCount=5, tickMinStep=1, format=",.0f")),
    )
    text = bars.mark_text(align="left", dx=4, color=TEXT, fontSize=10).encode(text=alt.Text("rows:Q", format=","))
    marks = bars.mark_bar(cornerRadiusEnd=2).encode(color=_colour(reports))
    height = max(120, 15 * len(order) * len(reports))
    return (marks + text).properties(title="Rows left after each step", width=width, height=height)


def _outline(histogram: Histogram) -> Iterator[tuple[float, float]]:
    """The outline of a histogram as points (edge, share of rows), which begins and ends at zero."""
    full = [at for at, count in enumerate(histogram.counts) if count]
    if full:
        yield histogram.edges[full[0]], 0
        for at in range(full[0], full[-1] + 1):
            yield histogram.edges[at], histogram.counts[at] / histogram.total
        yield histogram.edges[full[-1] + 1], 0


def _lengths(stats: Mapping[str, SplitStats], width: int) -> Any:
    import altair as alt

    of = dict.fromkeys(f"{column}s" for stat in stats.values() for column in stat.lengths)
    rows = [
        {"split": name, "of": column, "at": at, "order": number, "share": share}
        for name, stat in stats.items()
        for column, histogram in stat.lengths.items()
        for number, (at, share) in enumerate(_outline(histogram))
    ]
    axis = alt.Axis(format="~s", values=_ROUND, labelOverlap=True, grid=False)
    lines = (
        _chart(rows)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("at:Q", scale=alt.Scale(type="log", nice=False), title="characters", axis=axis),
            order="order:Q",
            y=alt.Y("share:Q", title="share of rows", axis=alt.Axis(format="%")),
            color=_colour(stats),
        )
        .properties(width=width // 2 - 20 if width >= _NARROW else width, height=200)
    )
    side_by_side = {"column": alt.Column("of:N", title=None)}
    panels = lines.facet(**(side_by_side if width >= _NARROW else {"row": alt.Row("of:N", title=None)}))
    return panels.properties(title=f"Length of {' and '.join(of)}")


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


_LABELS: tuple[tuple[str, Literal["left", "right"], int], ...] = (("right", "left", 3), ("left", "right", -3))
"""Side of its line that a label stands on, its alignment and its distance."""


def _measured(stats: Mapping[str, SplitStats], column: str, width: int) -> Any:
    """Histograms of a column, kept above rejected, one panel a split; dashed lines where rows were cut."""
    import altair as alt

    measures = {name: stat.measures[column] for name, stat in stats.items() if column in stat.measures}
    shares = all(measure.kept.edges == SHARE_EDGES for measure in measures.values())
    cuts = [cut for cut in _cuts(measures) if cut["from"] > 0 or shares]  # a logarithmic axis has no place for zero
    span = alt.Scale(domain=[0, 1]) if shares else alt.Scale(type="log", nice=False)
    ticks = alt.Axis(grid=False, tickCount=10) if shares else alt.Axis(grid=False, values=_ROUND, labelOverlap=True)
    bottom = {"from": SHARE_EDGES[1]} if not shares else {}
    rows = [{**row, **(bottom if not row["from"] else {})} for row in (*_stacked(measures), *cuts)]
    said = next(iter(measures.values()))
    axis = alt.X("from:Q", scale=span, title=said.unit or column, axis=ticks)
    base = alt.Chart().encode(x=axis)
    fate = alt.Color("fate:N", scale=alt.Scale(domain=[*_FATES], range=[*_FATES.values()]), title=None)
    count = alt.Y("rows:Q", title="rows", axis=alt.Axis(tickCount=4, tickMinStep=1, format="~s"))
    bars = (
        base.transform_filter("datum.kind == 'bin'")
        .mark_bar(binSpacing=1)
        .encode(x2="to:Q", y=count, y2="low:Q", color=fate)
    )
    lines = base.transform_filter("datum.kind == 'cut'").mark_rule(color=CUT, strokeDash=[5, 3], strokeWidth=2)
    names = [
        base.transform_filter(f"datum.kind == 'cut' && datum.side == '{side}'")
        .mark_text(color=CUT, align=align, dx=dx, dy=-2, baseline="bottom", fontSize=10)
        .encode(y=alt.value(0), text=alt.Text("label:N"))
        for side, align, dx in _LABELS
    ]
    layers = alt.layer(bars, lines, *names, data=alt.InlineData(values=rows)).properties(width=width, height=110)
    panels = layers.facet(row=alt.Row("split:N", title=None, sort=list(stats))).resolve_scale(y="independent")
    return panels.properties(title=f"{said.heading(column)}: kept and rejected rows")


def _asks(stats: Mapping[str, SplitStats], width: int) -> Any:
    import altair as alt

    rows = [
        {"split": name, "ask": ask, "share": count / stat.rows}
        for name, stat in stats.items()
        for ask, count in stat.forms.items()
    ]
    asks = {row["ask"] for row in rows}
    return (
        _chart(rows)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            y=alt.Y("ask:N", sort=alt.EncodingSortField("share", op="sum", order="descending"), title=None),
            yOffset=alt.YOffset("split:N", sort=list(stats)),
            x=alt.X("share:Q", title="share of instructions", axis=alt.Axis(format="%", tickCount=6)),
            color=_colour(stats),
        )
        .properties(title="How instructions ask", width=width, height=max(100, 10 * len(asks) * len(stats)))
    )
