"""Pictures of an evaluation, as Vega-Lite specifications."""

from __future__ import annotations

from typing import Any

from kun_builder.result.plots import PALETTE, TEXT, WIDTH, styled
from kun_training.evaluation.label import LabelReport
from kun_training.evaluation.scorer import ScoreReport
from kun_training.evaluation.thresholds import Calibration


def label_picture(report: LabelReport) -> dict[str, Any]:
    """Gain in likelihood over the pairs, and how the generated instructions differ from the human ones."""
    import altair as alt

    rows = [
        {"trait": name.replace("_", " "), "of": of, "rate": value}
        for of, traits in (("generated", report.generated), ("human", report.human))
        for name, value in vars(traits).items()
        if name != "characters"
    ]
    colours = alt.Color("of:N", scale=alt.Scale(domain=["generated", "human"], range=PALETTE[:2]), title=None)
    bars = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            y=alt.Y("trait:N", sort=None, title=None),
            yOffset=alt.YOffset("of:N", sort=["generated", "human"]),
            x=alt.X("rate:Q", title=None, axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
            color=colours,
        )
        .properties(title="Generated and human instructions", width=WIDTH, height=200)
    )
    return styled((alt.vconcat(_gains(report), bars) if report.gains else bars).to_dict())


def _gains(report: LabelReport) -> Any:
    import altair as alt

    gains = alt.Chart(alt.InlineData(values=[{"gain": gain} for gain in report.gains]))
    bars = gains.mark_bar(color=PALETTE[0], binSpacing=1).encode(
        x=alt.X("gain:Q", bin=alt.Bin(maxbins=40), title="gain, nats per token of the human instruction"),
        y=alt.Y("count():Q", title="pairs", axis=alt.Axis(tickMinStep=1)),
    )
    zero = alt.Chart(alt.InlineData(values=[{"gain": 0}])).mark_rule(color=TEXT, strokeDash=[5, 3]).encode(x="gain:Q")
    return (bars + zero).properties(title="Likelihood against the untrained base", width=WIDTH, height=160)


def score_picture(report: ScoreReport) -> dict[str, Any]:
    """Scores by kind, the recommended threshold, and precision and recall over the threshold."""
    import altair as alt

    rows = [{"kind": kind, "score": score} for kind, scores in report.scores.items() for score in scores]
    ticks = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_tick(thickness=1, opacity=0.5, color=PALETTE[0])
        .encode(x=alt.X("score:Q", title="score"), y=alt.Y("kind:N", sort=None, title=None))
    )
    at = [{"score": report.recommended.threshold}]
    rule = (
        alt.Chart(alt.InlineData(values=at))
        .mark_rule(color=TEXT, strokeDash=[5, 3], strokeWidth=1.5)
        .encode(x="score:Q")
    )
    curve = [
        {"threshold": cut.threshold, "of": of, "share": getattr(cut, of)}
        for cut in report.cuts
        for of in ("precision", "recall")
    ]
    lines = (
        alt.Chart(alt.InlineData(values=curve))
        .mark_line(strokeWidth=2, interpolate="step-after")
        .encode(
            x=alt.X("threshold:Q", title="threshold"),
            y=alt.Y("share:Q", title=None, axis=alt.Axis(format="%")),
            color=alt.Color("of:N", scale=alt.Scale(domain=["precision", "recall"], range=PALETTE[:2]), title=None),
        )
        .properties(width=WIDTH, height=180)
    )
    scores = (ticks + rule).properties(title="Scores, and the recommended threshold", width=WIDTH, height=140)
    return styled(alt.vconcat(scores, lines).to_dict())


def thresholds_picture(found: Calibration) -> dict[str, Any]:
    """Precision and yield over each threshold, the others as chosen; dashed lines at the chosen ones."""
    import altair as alt

    charts = []
    for limit in found.after:
        curve = [
            {"value": point.value, "of": of, "share": getattr(point.figures, name)}
            for point in found.curves[limit.name]
            for of, name in (("precision", "precision"), ("good ones that pass", "recall"))
        ]
        names = ["precision", "good ones that pass"]
        colour = alt.Color("of:N", scale=alt.Scale(domain=names, range=PALETTE[:2]), title=None)
        share = alt.Y("share:Q", title=None, axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
        lines = alt.Chart(alt.InlineData(values=curve)).mark_line(strokeWidth=2, point=True)
        lines = lines.encode(x=alt.X("value:Q", title=limit.name, scale=alt.Scale(zero=False)), y=share, color=colour)
        at = alt.Chart(alt.InlineData(values=[{"value": limit.value}]))
        rule = at.mark_rule(color=TEXT, strokeDash=[5, 3], strokeWidth=1.5).encode(x="value:Q")
        charts.append((lines + rule).properties(title=limit.name, width=WIDTH, height=150))
    return styled(alt.vconcat(*charts).to_dict())
