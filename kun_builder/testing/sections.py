"""`check_section`: what the engine relies on in a section of recipes that a plugin owns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kun_builder.errors import RecipeError
from kun_builder.recipe.file import RecipeFile
from kun_builder.recipe.recipe import read_section
from kun_builder.testing.faults import declared, expect

if TYPE_CHECKING:
    from pydantic import BaseModel

    from kun_builder.declarations import Section


def check_section(section: Section, values: Mapping[str, Any] | None = None) -> BaseModel:
    """Check a section as the engine does, read it with `values` in it, and return the instance of its model.

    values: what a recipe says in the section, as YAML has it; by default nothing, as in a recipe that leaves it out.

    Checked: that the model is one which a plugin may register; that it reads `values`; that it refuses an unknown key;
    and that it makes a JSON schema, which editors of recipes need. Raises AssertionError.
    """
    declared("section", section)
    expect(isinstance(section.model.model_json_schema(), dict), f"section `{section.name}` makes no JSON schema")
    try:
        _read(section, {**(values or {}), "no_such_key_of_the_section": 1})
    except RecipeError as error:
        expect("no_such_key_of_the_section" in error.message, f"section `{section.name}` hides an unknown key")
    else:
        expect(False, f"section `{section.name}` takes a key that it does not have")
    try:
        return _read(section, values or {})
    except RecipeError as error:
        raise AssertionError(f"section `{section.name}`: {error.message}") from error


def _read(section: Section, values: Mapping[str, Any]) -> BaseModel:
    file = RecipeFile(Path("recipe.yaml"), yaml.safe_dump({section.name: dict(values)}, allow_unicode=True))
    found = read_section(file, section.name, section.model)
    file.check()
    return found
