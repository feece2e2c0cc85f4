"""The pictures of a run, each defined once as Vega-Lite, for card and report alike.

Transparent, in middle tones that stand out on a white page and on a dark one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from kun_builder.report import SplitReport
from kun_builder.stats import LENGTH_EDGES, PERPLEXITY_EDGES, Histogram, SplitStats

if TYPE_CHECKING:
    import altair as alt

TEXT = "#7b818a"
PALETTE = ("#3d86c6", "#c8772a", "#2f9a6c", "#a865c9", "#c25a66", "#7d8c2c", "#2e94a3", "#9a7b5f")
"""One colour a split."""
REJECTED, ELSEWHERE, CUT = "#c25a66", "#8a919b", "#b5820f"
LIGHT_PAGE, DARK_PAGE = "#ffffff", "#0d1117"

WIDTH = 640
_ROUND = [digit * 10**power for power in range(5) for digit in (1, 2, 5)]
"""Ticks of logarithmic axes."""


def pictures(
    splits: Mapping[str, tuple[SplitReport, SplitStats]], threshold: float | None
) -> dict[str, dict[str, Any]]:
    """Vega-Lite specifications by name. `threshold`: the score from which rows are kept, if a stage has one."""
    stats = {name: stat for name, (_, stat) in splits.items()}
    charts = {"funnel": _funnel({name: report for name, (report, _) in splits.items()}), "lengths": _lengths(stats)}
    if any(stat.score for stat in stats.values()):
        charts["scores"] = _scores(stats, threshold)
    if any(stat.perplexity for stat in stats.values()):
        charts["perplexity"] = _perplexity(stats)
    charts["asks"] = _asks(stats)
    return {name: styled(chart).to_dict() for name, chart in charts.items()}


def threshold_of(steps: Iterable[Mapping[str, Any]]) -> float | None:
    """The option `threshold` of the step that adds the score, as a report has it."""
    found = [step["options"].get("threshold") for step in steps if step["stage"] == "score"]
    return float(found[-1]) if found and found[-1] is not None else None


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


def _funnel(reports: Mapping[str, SplitReport]) -> Any:
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
        x=alt.X("rows:Q", title="rows", axis=alt.Axis(tickCount=5, format=",.0f")),
    )
    text = bars.mark_text(align="left", dx=4, color=TEXT, fontSize=10).encode(text=alt.Text("rows:Q", format=","))
    marks = bars.mark_bar(cornerRadiusEnd=2).encode(color=_colour(reports))
    height = max(120, 15 * len(order) * len(reports))
    return (marks + text).properties(title="Rows left after each step", width=WIDTH, height=height)


def _outline(histogram: Histogram) -> Iterator[tuple[float, float]]:
    """Edge and share of rows of each bin that is between others which hold anything; from the ground to the ground."""
    full = [at for at, count in enumerate(histogram.counts) if count]
    if full:
        yield histogram.edges[full[0]], 0
        for at in range(full[0], full[-1] + 1):
            yield histogram.edges[at], histogram.counts[at] / histogram.total
        yield histogram.edges[full[-1] + 1], 0


def _lengths(stats: Mapping[str, SplitStats]) -> Any:
    import altair as alt

    rows = [
        {"split": name, "of": of, "at": at, "order": number, "share": share}
        for name, stat in stats.items()
        for of, histogram in (("instruction", stat.instruction_length), ("output", stat.output_length))
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
        .properties(width=WIDTH // 2 - 20, height=200)
    )
    return lines.facet(column=alt.Column("of:N", title=None)).properties(title="Length of instructions and outputs")


_FATES = {"kept": PALETTE[0], "rejected by this": REJECTED, "rejected by another step": ELSEWHERE}


def _stacked(stats: Mapping[str, SplitStats], measure: str) -> Iterator[dict[str, Any]]:
    """Bins of one measure per split: kept rows from the ground, rejected ones on top of them."""
    for name, stat in stats.items():
        ground = [0] * len(LENGTH_EDGES + PERPLEXITY_EDGES)
        for fate, end in zip(_FATES, ("", "_rejected", "_elsewhere"), strict=True):
            histogram = getattr(stat, f"{measure}{end}")
            for at, count in enumerate(histogram.counts if histogram else ()):
                edges = {"from": histogram.edges[at], "to": histogram.edges[at + 1]}
                if count:
                    yield {
                        "kind": "bin",
                        "split": name,
                        "fate": fate,
                        **edges,
                        "low": ground[at],
                        "rows": ground[at] + count,
                    }
                ground[at] += count


def _measured(
    stats: Mapping[str, SplitStats], measure: Literal["score", "perplexity"], rules: list[dict[str, Any]]
) -> Any:
    """Histograms of a measure, kept above rejected, one panel a split; dashed lines at `rules`."""
    import altair as alt

    rows = [*_stacked(stats, measure), *rules]
    span = alt.Scale(type="log", nice=False) if measure == "perplexity" else alt.Scale(domain=[0, 1])
    ticks = alt.Axis(grid=False, values=_ROUND) if measure == "perplexity" else alt.Axis(grid=False, tickCount=10)
    base = alt.Chart().encode(x=alt.X("from:Q", scale=span, title=measure, axis=ticks))
    fate = alt.Color("fate:N", scale=alt.Scale(domain=[*_FATES], range=[*_FATES.values()]), title=None)
    count = alt.Y("rows:Q", title="rows", axis=alt.Axis(tickCount=4, tickMinStep=1, format="~s"))
    bars = (
        base.transform_filter("datum.kind == 'bin'")
        .mark_bar(binSpacing=1)
        .encode(x2="to:Q", y=count, y2="low:Q", color=fate)
    )
    lines = base.transform_filter("datum.kind == 'cut'").mark_rule(color=CUT, strokeDash=[5, 3], strokeWidth=2)
    names = (
        base.transform_filter("datum.kind == 'cut'")
        .mark_text(color=CUT, align="left", dx=3, dy=-2, baseline="bottom", fontSize=10)
        .encode(y=alt.value(0), text=alt.Text("label:N"))
    )
    layers = alt.layer(bars, lines, names, data=alt.InlineData(values=rows)).properties(width=WIDTH, height=110)
    return layers.facet(row=alt.Row("split:N", title=None, sort=list(stats))).resolve_scale(y="independent")


def _scores(stats: Mapping[str, SplitStats], threshold: float | None) -> Any:
    cuts = [
        {"split": name, "kind": "cut", "from": threshold, "label": f"kept from {threshold:g}"}
        for name, stat in stats.items()
        if threshold is not None and stat.score
    ]
    return _measured(stats, "score", cuts).properties(title="Scores, and the threshold")


def _perplexity(stats: Mapping[str, SplitStats]) -> Any:
    cuts = [
        {"split": name, "kind": "cut", "from": value, "label": f"{value:.0f}"}
        for name, stat in stats.items()
        for value in stat.perplexity_range or ()
    ]
    return _measured(stats, "perplexity", cuts).properties(title="Perplexity, and the range that its step let pass")


def _asks(stats: Mapping[str, SplitStats]) -> Any:
    import altair as alt

    rows = [
        {"split": name, "ask": ask, "share": count / stat.rows}
        for name, stat in stats.items()
        for ask, count in stat.asks.items()
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
        .properties(title="What instructions ask for", width=WIDTH, height=max(100, 10 * len(asks) * len(stats)))
    )
