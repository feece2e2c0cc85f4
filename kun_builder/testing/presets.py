"""`check_preset`: what a recipe gets that names the preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from kun_builder.errors import RecipeError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.recipe.registry import Entry, Plugin
from kun_builder.run.plan import make_plan
from kun_builder.testing.faults import declared, expect
from kun_builder.types import Source

if TYPE_CHECKING:
    from kun_builder.declarations import Preset


def check_preset(
    preset: Preset, *, models: Sequence[str] = ("chat",), dirs: Sequence[str | Path] = ()
) -> dict[str, Mapping[str, Any]]:
    """Check a preset as a recipe that names it would find it; returns the options of each of its stages, in order, by
    the stage's name, numbered from the second use on: `refine`, `refine-2`.

    models: names of the models of that recipe; a single one is asked by every stage that names none. dirs: folders with
    plugins that are not installed and give stages of the preset, as `plugins: {dirs: [...]}` in a recipe.

    Checked: that it may be registered, with a title for `kun-build plugins`; that the stages are there, with options
    that they have; and that together they make a dataset: of pairs, or of texts if they only clean. No model is asked.
    Raises AssertionError.
    """
    declared("preset", preset)
    expect(preset.title, f"preset `{preset.name}` has no `title`: say in one sentence what comes of it")
    owner = Plugin("test", "test")
    source = Source(name="test", parse=str, license="cc0-1.0", redistributable=True)
    registry = replace(
        load_plugins(tuple(map(Path, dirs))),
        sources={"test": Entry(source, owner)},
        presets={preset.name: Entry(preset, owner)},
    )
    asked = {name: {"endpoints": ["http://127.0.0.1:9"]} for name in models}
    said = {"models": asked, "splits": {"texts": {"source": "test", "path": "test"}}, "preset": preset.name}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(yaml.safe_dump(said, allow_unicode=True), "utf-8")
        try:
            plan = make_plan(load_recipe(path, registry, output=Path(folder) / "run"), registry)
        except RecipeError as error:
            raise AssertionError(
                f"{error.message.replace(str(path), preset.name)}; {error.hint}".rstrip("; ")
            ) from error
    return {step.label: step.options for step in plan.steps}
