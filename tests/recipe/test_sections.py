"""A section of recipes belongs to the plugin that declares it, wherever the plugin comes from."""

from __future__ import annotations

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict

from kun_builder import Section
from kun_builder.errors import PluginError, RecipeError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.recipe.schema import json_schema
from kun_builder.testing import check_section

PLUGIN = """
from pydantic import BaseModel, ConfigDict
from kun_builder import Section, hookimpl

kun_api = 1

class Rhyme(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ending: str = "ang"

class Verse(BaseModel):
    {config}
    feet: int{default}
    rhyme: Rhyme = Rhyme()

@hookimpl
def kun_sections():
    return [Section(name="{name}", model={model})]
"""
STRICT = 'model_config = ConfigDict(extra="forbid")'
RECIPE = "splits: {web: {source: generic, path: in.txt}}\nstages: [normalize]\n"


@pytest.fixture
def open_with(tmp_path):
    """Loads plugins with that of a stranger, and a recipe with some lines at its end."""

    def load(
        lines="", *, name="verse", model="Verse", default=" = 5", config='model_config = ConfigDict(extra="forbid")'
    ):
        (tmp_path / "plugins").mkdir(exist_ok=True)
        code = PLUGIN.format(name=name, model=model, default=default, config=config)
        (tmp_path / "plugins/verses.py").write_text(code)
        (tmp_path / "in.txt").write_text("月食")
        (tmp_path / "recipe.yaml").write_text(RECIPE + lines)
        registry = load_plugins((tmp_path / "plugins",))
        return registry, load_recipe(tmp_path / "recipe.yaml", registry)

    return load


def test_a_strangers_section(open_with):
    """It is read into the plugin's own model, with its defaults where the recipe says nothing."""
    assert open_with("verse: {rhyme: {ending: ong}}")[1].sections["verse"].model_dump() == {
        "feet": 5,
        "rhyme": {"ending": "ong"},
    }
    assert open_with()[1].sections["verse"].feet == 5


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("verse: {feet: many}", "recipe.yaml:3: `feet` must be a valid integer, not 'many'"),
        ("verse:\n  rhyme: {endng: x}", "recipe.yaml:4: unknown key `endng`; did you mean `ending`?"),
        ("vers: {}", "recipe.yaml:3: unknown key `vers`; did you mean `verse`?"),
        ("verse: 3", "recipe.yaml:3: `verse` must be a mapping, not 3"),
    ],
)
def test_a_wrong_section(open_with, lines, said):
    """What is wrong in it is said with its line, like everything else in a recipe."""
    with pytest.raises(RecipeError) as refused:
        open_with(lines)
    assert said in refused.value.message


def test_the_schema_has_it(open_with):
    """The JSON schema of recipes is composed of the engine's part and those of the plugins."""
    schema = jsonschema.Draft202012Validator(json_schema(open_with()[0]))
    recipe = {"splits": {"web": {"source": "generic", "path": "x"}}, "stages": ["normalize"]}
    assert not list(
        schema.iter_errors({**recipe, "verse": {"rhyme": {"ending": "x"}}, "training": {"label": {"base": "b"}}})
    )
    assert list(schema.iter_errors({**recipe, "verse": {"rhyme": {"endng": "x"}}}))
    assert list(schema.iter_errors({**recipe, "training": {"label": {"bse": "b"}}}))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "splits"}, "section `splits`: `splits` is a key of every recipe"),
        ({"name": "training"}, "two plugins give the section `training`"),
        ({"model": "3"}, "its `model` is 3, not a class"),
        ({"config": ""}, "its model takes any key"),
        ({"default": ""}, "its field `feet` has no default"),
    ],
)
def test_a_section_that_cannot_work(open_with, wrong, said):
    """It stops the start, with the plugin's name."""
    with pytest.raises(PluginError, match="plugin `verses`") as refused:
        open_with(**wrong)
    assert said in refused.value.message


class _Feet(BaseModel):
    model_config = ConfigDict(extra="forbid")
    feet: int = 5


class _Loose(BaseModel):
    feet: int = 5


def test_the_kit():
    """`check_section` gives the instance, and says what the engine would refuse."""
    assert check_section(Section(name="verse", model=_Feet), {"feet": 7}) == _Feet(feet=7)
    with pytest.raises(AssertionError, match="`feet` must be a valid integer"):
        check_section(Section(name="verse", model=_Feet), {"feet": "x"})
    with pytest.raises(AssertionError, match="takes any key"):
        check_section(Section(name="verse", model=_Loose))
