"""Progress of a training, and its loss as a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kun_builder.result.plots import PALETTE, WIDTH, styled
from kun_builder.status import Status

if TYPE_CHECKING:
    from transformers import TrainerCallback


def progress(status: Status, phase: str) -> TrainerCallback:
    """A callback that tells `status` of steps and losses."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc] # mypy does not look into transformers
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            status.begin(phase, state.max_steps, "steps")
            status.done = state.global_step

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            status.done = state.global_step

        def on_evaluate(
            self, args: Any, state: Any, control: Any, metrics: Mapping[str, float] | None = None, **kwargs: Any
        ) -> None:
            if metrics and state.is_world_process_zero:
                status.say(f"step {state.global_step} of {state.max_steps}: held-out loss {metrics['eval_loss']:.3f}")

    return Progress()


def losses(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The trainer's log as points `{step, loss, of}`, `of` being `training` or `held-out`; the latest of each step."""
    points: dict[tuple[str, int], dict[str, Any]] = {}
    for entry in history:
        for name, of in (("loss", "training"), ("eval_loss", "held-out")):
            if name in entry:
                step = int(entry["step"])
                points[of, step] = {"step": step, "loss": float(entry[name]), "of": of}
    return list(points.values())


def loss_curve(points: Sequence[Mapping[str, Any]], title: str) -> dict[str, Any]:
    """Vega-Lite specification of the loss over the steps."""
    import altair as alt

    chart = (
        alt.Chart(alt.InlineData(values=[dict(point) for point in points]))
        .mark_line(point=True, strokeWidth=2)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1, labelOverlap=True)),
            y=alt.Y("loss:Q", title="loss, nats per token of the completion", scale=alt.Scale(zero=False)),
            color=alt.Color("of:N", scale=alt.Scale(domain=["training", "held-out"], range=PALETTE[:2]), title=None),
        )
        .properties(title=title, width=WIDTH, height=240)
    )
    return styled(chart.to_dict())
