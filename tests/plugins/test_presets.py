"""`preset:` in a recipe: which stages run where none are named, with the real plugins."""

import pytest

from kun_builder.errors import RecipeError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe

REGISTRY = load_plugins()
SMALL = "models: {chat: {}}\nsplits: {web: {source: generic, path: web.jsonl}}\n"


def stages(tmp_path, text):
    """The stages of a recipe, as (name, options)."""
    path = tmp_path / "recipe.yaml"
    path.write_text(SMALL + text, "utf-8")
    return [(stage.name, stage.options) for stage in load_recipe(path, REGISTRY).stages]


def test_pairs_are_verified_by_default(tmp_path):
    """A recipe that names no stages has two candidates per text, and `verify` at the end."""
    found = stages(tmp_path, "")
    assert found == stages(tmp_path, "preset: verified\n")
    assert found[-1][0] == "verify"
    assert dict(found)["label"]["candidates"] == 2
    assert dict(found)["label"]["outline"] is True


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
