"""`recipe.lock.yaml`: what really ran, as a recipe that runs again.

It has all options, the prompts in full, and a section `lock` with the versions of everything. It has no secret: in the
place of a key stands the name of its environment variable. It has no address, no header and no executor either, since
which server answered, and which machines worked, says nothing about what was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from kun_builder import __version__
from kun_builder.prompts import Prompt
from kun_builder.recipe.file import Dumper
from kun_builder.recipe.options import plain_value
from kun_builder.recipe.parts import MODEL_OPTIONS
from kun_builder.recipe.recipe import Recipe
from kun_builder.recipe.registry import Entry, Registry
from kun_builder.types import ModelInfo, ModelSpec

_HEADER = """\
# What really ran: every option, every prompt in full, and under `lock` the versions of everything.
# It is a recipe again. Keys, headers and addresses of servers are not in it: set the variables, give `--endpoint URL`.
"""


def lock(recipe: Recipe, registry: Registry, models: Mapping[str, ModelInfo]) -> str:
    """The text of `recipe.lock.yaml`; `models` are those that were asked, and who they said they are."""
    document: dict[str, Any] = {
        **recipe.model_dump(mode="json", include={"name", "shard_rows", "seed", "format"}),
        **recipe.model_dump(mode="json", include={"plugins"}, exclude_defaults=True),
        "models": {name: _model(spec, recipe.variables.get(name)) for name, spec in recipe.models.items()},
        "splits": {
            name: {"source": split.source, "path": list(split.path), **split.declared, **plain_value(split.options)}
            for name, split in recipe.splits.items()
        },
        "stages": [
            {stage.name: plain_value(stage.options)} if stage.options else stage.name for stage in recipe.stages
        ],
        "lock": {
            "kun_builder": __version__,
            "limit": recipe.limit,
            "plugins": _plugins(recipe, registry),
            "models": {name: {"id": info.id, "revision": info.revision} for name, info in models.items()},
            "prompts": _prompts(recipe),
        },
        **recipe.model_dump(mode="json", include={"publish"}, exclude_defaults=True),
    }
    return _dump(document)


def with_publish(text: str, recipe: Recipe) -> str:
    """The lock file `text` with what `recipe` says of publishing, which no row depends on."""
    document = yaml.safe_load(text)
    document.pop("publish", None)
    document |= recipe.model_dump(mode="json", include={"publish"}, exclude_defaults=True)
    return _dump(document)


def _dump(document: Mapping[str, Any]) -> str:
    return _HEADER + yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def _model(spec: ModelSpec, variable: str | None) -> dict[str, Any]:
    """What was set for a model: its engine, and every option whose value is not the default."""
    options = [o for o in MODEL_OPTIONS if o.name not in ("api_key", "headers", "endpoints", "endpoints_file", "cost")]
    given = {o.name: getattr(spec, o.name) for o in options if getattr(spec, o.name) != o.default}
    if variable:
        given["api_key"] = variable
    if spec.cost_in or spec.cost_out:
        given["cost"] = {"input": spec.cost_in, "output": spec.cost_out}
    return {**given, **plain_value(spec.options)}


def _plugins(recipe: Recipe, registry: Registry) -> dict[str, dict[str, str]]:
    used: list[Entry[Any]] = [registry.sources[split.source] for split in recipe.splits.values()]
    used += [registry.stages[stage.name] for stage in recipe.stages]
    used += [registry.engines[spec.engine] for spec in recipe.models.values()]
    owners = [owner for entry in used for owner in (entry.owner, *entry.owner.with_)]
    return {o.name: {"package": o.package, "version": o.version, "digest": o.digest} for o in owners}


def _prompts(recipe: Recipe) -> list[dict[str, str]]:
    return [
        {"stage": stage.name, "option": option, "name": value.name, "digest": value.digest}
        for stage in recipe.stages
        for option, value in stage.options.items()
        if isinstance(value, Prompt)
    ]
