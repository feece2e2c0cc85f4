"""`preset:` in a recipe: which stages run where none are named, with the real plugins."""

import textwrap

import pytest
import yaml
from click.testing import CliRunner

from kun_builder.cli.main import cli
from kun_builder.errors import PluginError, RecipeError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.recipe.schema import json_schema

REGISTRY = load_plugins()
KUN = "preset: kun\n"
SMALL = "models: {chat: {}}\nsplits: {web: {source: generic, path: web.jsonl}}\n"


def stages(tmp_path, text, registry=REGISTRY):
    """The stages of a recipe, as (name, options)."""
    path = tmp_path / "recipe.yaml"
    path.write_text(SMALL + text, "utf-8")
    return [(stage.name, stage.options) for stage in load_recipe(path, registry).stages]


def test_pairs_are_verified_by_default(tmp_path):
    """A recipe that names no stages has two candidates per text, and `verify` at the end."""
    found = stages(tmp_path, "")
    assert found == stages(tmp_path, "preset: verified\n")
    assert found[-1][0] == "verify"
    assert dict(found)["label"]["candidates"] == 2
    assert dict(found)["label"]["outline"] is True
    verify = dict(found)["verify"]
    assert (verify["least_coverage"], verify["least_answered"]) == (0.5, 0.8)  # for what the whole text answers


def test_kun_stays_as_published(tmp_path):
    """`preset: kun` judges instructions alone: no outline, one candidate, a free rewriting, no look at the pair."""
    found = stages(tmp_path, "preset: kun\n")
    assert [name for name, _ in found][-5:] == ["label", "refine", "score", "polish", "refine"]
    assert (dict(found)["label"]["outline"], dict(found)["label"]["candidates"]) == (False, 1)
    assert dict(found)["polish"]["whole"] is False


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("preset: kun\nstages: [normalize]\n", "`preset` and `stages` say the same thing twice"),
        ("preset: humpback\n", "`preset` must be 'verified' or 'kun', not 'humpback'"),
        ("preset: [kun]\n", "`preset` must be 'verified' or 'kun'"),
    ],
)
def test_a_wrong_preset_is_named(tmp_path, text, complaint):
    """Both at once, or a preset that there is not, ends the recipe with what there is."""
    with pytest.raises(RecipeError, match="preset") as caught:
        stages(tmp_path, text)
    assert complaint in str(caught.value)


STRANGER = """
    from kun_builder import Preset, hookimpl

    @hookimpl
    def kun_presets():
        return [Preset(name="house", stages={stages}, title="Clean, and short.")]
"""


@pytest.fixture
def stranger(tmp_path):
    """Loads all plugins with one in a folder, which gives the preset `house` with these stages."""

    def load(stages, disable=()):
        (tmp_path / "plugins").mkdir(exist_ok=True)
        (tmp_path / "plugins/ours.py").write_text(textwrap.dedent(STRANGER).format(stages=stages), "utf-8")
        return load_plugins([tmp_path / "plugins"], disable)

    return load


def test_a_strangers_preset(tmp_path, stranger):
    """A plugin gives a preset of other plugins' stages; a recipe names it, and so does the schema for editors."""
    registry = stranger("('normalize', {'length': {'max_tokens': 9}})")
    normalize, length = stages(tmp_path, "preset: house\n", registry)
    assert (normalize[0], length[0], length[1]["max_tokens"]) == ("normalize", "length", 9)
    assert json_schema(registry)["properties"]["preset"]["enum"] == ["house", "verified", "kun"]
    assert stages(tmp_path, "", registry) == stages(tmp_path, "preset: verified\n", registry)


def test_a_fault_in_a_preset_names_its_plugin(tmp_path, stranger):
    """What is wrong with the stages of a preset is said at the line that names it, with the plugin that gave it."""
    registry = stranger("('normalise', {'length': {'max_token': 9}})")
    with pytest.raises(RecipeError) as caught:
        stages(tmp_path, "preset: house\n", registry)
    unknown, option = sorted(caught.value.message.splitlines(), reverse=True)
    start = f"{tmp_path / 'recipe.yaml'}:3: "
    assert unknown.startswith(f"{start}unknown stage `normalise` of preset `house` (plugin `ours`)")
    assert option.startswith(f"{start}stage `length` of preset `house` (plugin `ours`): ")


def test_without_the_plugin_of_the_default(tmp_path, stranger):
    """Where the plugin of the default preset is left out, a recipe has to name stages, or another preset."""
    registry = stranger("('normalize',)", disable=["kun-method"])
    assert stages(tmp_path, "preset: house\n", registry) == [("normalize", dict(stages(tmp_path, KUN)[0][1]))]
    with pytest.raises(RecipeError, match="`stages` must be given: no plugin here gives the preset `verified`"):
        stages(tmp_path, "", registry)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("()", "preset `house`: its `stages` are ()"),
        ("'normalize'", "preset `house`: its `stages` are 'normalize'"),
        ("('normalize', {'a': {}, 'b': {}})", "preset `house`: its `stages` have {'a': {}, 'b': {}}"),
        ("('normalize', 3)", "preset `house`: its `stages` have 3"),
    ],
)
def test_a_preset_of_another_form_stops_the_start(stranger, wrong, complaint):
    """The stages of a preset are a list of what a recipe's `stages:` would be."""
    with pytest.raises(PluginError) as caught:
        stranger(wrong)
    assert complaint in caught.value.message
    assert caught.value.message.startswith("plugin `ours` of ")


def test_plugins_explains_a_preset():
    """`kun-build plugins kun` says what it is for and which stages it stands for."""
    done = CliRunner().invoke(cli, ["plugins", "kun"])
    assert (done.exit_code, done.stderr) == (0, "")
    head, _, same = done.stdout.partition("The same as:")
    assert head.startswith("preset kun: plugin kun-method of kun-builder")
    assert "Judges instructions alone" in head
    assert "{preset: kun}" in head
    shown = yaml.safe_load(textwrap.dedent(same.lstrip("\n")))["stages"]
    assert shown == list(REGISTRY.presets["kun"].value.stages)
