"""`kun-build plan RECIPE`: what would run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.machine import forbid_downloads
from kun_builder.cli.options import Command, open_recipe, output_options, recipe_argument, run_options
from kun_builder.cli.output import Output, console, make_table

if TYPE_CHECKING:
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Registry
    from kun_builder.report import StepFacts
    from kun_builder.run.plan import Plan, Segment
    from kun_builder.types import ModelSpec


@click.command(
    cls=Command,
    examples=(
        "kun-build plan recipe.yaml",
        "kun-build plan recipe.yaml --json",
        "kun-build plan recipe.yaml --sample 50    what the whole will take",
    ),
)
@recipe_argument
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="Build N rows, and reckon what the whole will take."
)
@run_options
@output_options
def command(recipe: Path, sample: int | None, out: Output, **options: Any) -> None:
    """Check RECIPE (./recipe.yaml) and show its segments, stages with all options, models and keys.

    The key of a segment stands for all that its result depends on besides its input; that of one which asks models
    is known only when they have been asked who they are. Below stands for which stages servers are idle by design,
    since those have to see all rows first. Asks no model and reads no input; where a file is missing, it says so in the
    end and exits with 1.

    With --sample, N rows drawn over the whole input are built in a run folder of their own, and tokens, hours and money
    of the whole are reckoned from them, each with its 95 % interval. Their answers are kept: the whole does not pay
    for them again.
    """
    from kun_builder.run.inputs import input_keys
    from kun_builder.run.plan import make_plan

    forbid_downloads()
    checked, registry = open_recipe(recipe, out, **options)
    if sample:
        from kun_builder.cli.sample import show_sample

        show_sample(checked, registry, sample, out)
        return
    plan = make_plan(checked, registry)
    if out.format == "json":
        out.json(_describe(checked, plan, registry))
    elif out.format == "quiet":
        for segment in plan.segments:
            out.text(segment.label)
    else:
        _draw(_describe(checked, plan, registry))
    input_keys(checked, registry)  # raises for files that are missing, before the build is due


def _listed(spec: ModelSpec) -> list[str]:
    return [f"in {spec.endpoints_file}"] if spec.endpoints_file else []


def _describe(recipe: Recipe, plan: Plan, registry: Registry) -> dict[str, Any]:
    """The plan as plain data."""
    return {
        "name": recipe.name,
        "output": recipe.output_at or str(recipe.output),
        "executor": recipe.executor,
        "placement": _placement(recipe, plan, registry) if recipe.executor == "ray" else {},
        "limit": recipe.limit,
        "models": {
            name: {
                "engine": spec.engine,
                "model": spec.model,
                "endpoints": list(spec.endpoints or _listed(spec)),
                "limits": dict(spec.limits),
            }
            for name, spec in recipe.models.items()
        },
        "splits": {
            name: {"source": split.source, "path": list(split.path), "options": _shown(split.options)}
            for name, split in recipe.splits.items()
        },
        "segments": [_segment(segment) for segment in plan.segments],
        "idle_until": [segment.label for segment in plan.barriers],
    }


def _placement(recipe: Recipe, plan: Plan, registry: Registry) -> dict[str, str]:
    """Where the kinds of segments run on a Ray cluster."""
    from kun_builder.models.connect import collects

    workers = str(recipe.ray.actors or "one for each node")
    if collects((recipe.models[name] for name in plan.models), registry.engines):
        workers = "1, since requests are collected into batches"
    return {
        "cluster": recipe.ray.address or "one on this machine, which ends with the run",
        "batches": "shards on all nodes, one for each processor",
        "rows": f"workers with their own connections: {workers}",
        "reading": "files and spans on all nodes; this process puts them together",
        "dataset": "what the stage divides on all nodes, its verdicts and all writing in this process",
    }


def _segment(segment: Segment) -> dict[str, Any]:
    asked = sorted({name for step in segment.steps for name in step.asked})
    return {
        "kind": segment.kind,
        "key": None if asked else segment.key({}),
        "models": asked,
        "stages": [_who(step.facts()) | {"options": _shown(step.options)} for step in segment.steps],
    }


def _who(step: StepFacts) -> dict[str, Any]:
    """Who a step is, as far as one line has room for it."""
    shown = {name: getattr(step, name) for name in ("label", "stage", "plugin", "package")}
    return {**shown, "version": step.package_version, "models": list(step.models)}


def _shown(options: Any) -> dict[str, Any]:
    from kun_builder.prompts import Prompt

    return {
        name: f"<prompt {value.name} {value.digest}>" if isinstance(value, Prompt) else value
        for name, value in options.items()
    }


def _draw(plan: dict[str, Any]) -> None:
    console().print(f"{plan['name']} -> {plan['output']}, executor {plan['executor']}")
    for what, where in plan["placement"].items():
        console().print(f"  {what}: {where}")
    models = make_table(("model", "engine", "id", "endpoints"))
    for name, model in plan["models"].items():
        limits = [f"each at most {most:,.10g} {name.replace('_', ' ')}" for name, most in model["limits"].items()]
        where = [" ".join(model["endpoints"]) or "embedded", *limits]
        models.add_row(name, model["engine"], model["model"] or "(default)", "\n".join(where))
    splits = make_table(("split", "source", "path", "options"))
    for name, split in plan["splits"].items():
        splits.add_row(name, split["source"], " ".join(split["path"]), _options(split["options"]))
    stages = make_table((">segment", "kind", "stage", "asks", "options", "plugin", "key"))
    for number, segment in enumerate(plan["segments"], 1):
        for stage in segment["stages"]:
            first = stage is segment["stages"][0]
            key = segment["key"] or "once models are asked"
            stages.add_row(
                str(number) if first else "",
                segment["kind"] if first else "",
                stage["label"],
                " ".join(stage["models"]),
                _options(stage["options"]),
                f"{stage['plugin']} {stage['version']}",
                key if first else "",
            )
    for table in (models, splits, stages):
        console().print(table)
    if plan["models"]:
        console().print(_when_asked(plan["idle_until"], plan["limit"]))


def _when_asked(idle_until: Sequence[str], limit: int | None) -> str:
    """When servers have work, for people."""
    if idle_until:
        names = " and then ".join(f"`{label}`" for label in idle_until)
        return f"Servers are idle by design until all rows are seen by {names}"
    if limit is not None:
        return "Servers are asked once a split is read to its end: the rows of a limit are drawn over all of it"
    return "Servers are asked as soon as the first shard is read and cleaned, while the rest is still read"


def _options(options: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in options.items())
