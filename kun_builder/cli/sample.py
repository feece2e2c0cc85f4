"""`kun-build plan --sample N`: build a few rows, and reckon what the whole will take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from kun_builder.cli.output import Output, console, make_table

if TYPE_CHECKING:
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Registry
    from kun_builder.result.estimate import Estimate, Interval


def show_sample(recipe: Recipe, registry: Registry, rows: int, out: Output) -> None:
    """Build `rows` rows, shared evenly by the splits, beside the recipe's run folder, and print the estimate."""
    from dataclasses import asdict

    from kun_builder.cli.progress import progress
    from kun_builder.result.estimate import estimate
    from kun_builder.result.finished import open_run
    from kun_builder.run.runner import build
    from kun_builder.status import Status

    output = recipe.output.with_name(f"{recipe.output.name}-sample")
    alone = [  # nobody judges a sample that is only for reckoning
        stage for stage in recipe.stages if not any(o.role == "verdicts" for o in registry.stages[stage.name].options)
    ]
    few = {"limit": -(-rows // len(recipe.splits)), "output": output, "stages": tuple(alone)}
    small = recipe.model_copy(update=few)
    status = Status()
    with progress(status, out):
        build(small, registry, status=status)
    found = estimate(open_run(output), recipe.models)
    share = min(1.0, recipe.target / found.kept.value) if recipe.target and found.kept.value else 1.0
    for line in beyond(recipe.budget.model_dump(), found, share):
        out.note(line)
    if out.format == "json":
        out.json(asdict(found))
    else:
        _draw(found, out)


def beyond(budget: Mapping[str, float | None], found: Estimate, share: float = 1.0) -> Iterator[str]:
    """Yield a line for each limit of the budget that the run will probably exceed.

    share: the part of the whole that a `target` needs, 0 to 1.
    """
    figures = list(found.models.values())
    tokens = [model[name] for model in figures for name in ("prompt_tokens", "completion_tokens")]
    parts = {"money": [m["cost"] for m in figures], "tokens": tokens, "hours": [found.hours] if found.hours else []}
    for name, limit in budget.items():
        low, value, high = (share * sum(getattr(part, key) for part in parts[name]) for key in ("low", "value", "high"))
        if limit is not None and value > limit:
            takes = f"{value:,.6g} ({low:,.6g} to {high:,.6g})"
            yield f"the budget will not do: {name} {limit:,.6g}, and the run takes {takes}"


def _draw(found: Estimate, out: Output) -> None:
    table = make_table(("model", "figure", ">whole", ">from", ">to"))
    for model, figures in found.models.items():
        for name, interval in figures.items():
            if name != "cost" or interval.high:
                table.add_row(model, name, *_numbers(interval))
    table.add_row("", "rows kept", *_numbers(found.kept))
    if found.hours:
        table.add_row("", "hours, at this pace", *_numbers(found.hours))
    console().print(table)
    out.note(f"from {found.sampled:,} of {found.records:,} records; 95 % intervals")


def _numbers(interval: Interval) -> list[str]:
    values = (interval.value, interval.low, interval.high)
    return [f"{value:,.0f}" if interval.value >= 100 else f"{value:,.2f}" for value in values]
