"""`check_preset` gives the stages of a preset as a recipe has them, or says what a recipe would be refused for."""

from __future__ import annotations

import textwrap

import pytest
from kun_method.presets import KUN, VERIFIED

from kun_builder import Preset
from kun_builder.testing import check_preset

SHORT = ("normalize", {"length": {"max_tokens": 99, "tokenizer": "characters"}}, "label", "polish")

OWN = """
    from kun_builder import BatchStage, hookimpl

    kun_api = 1


    def run(table, *, least: int = 3):
        return table


    @hookimpl
    def kun_stages():
        return [BatchStage(name="ours", run=run)]
"""


def short(*stages, title="Short answers."):
    return Preset(name="short", title=title, stages=stages)


@pytest.mark.parametrize("preset", [KUN, VERIFIED], ids=lambda preset: preset.name)
def test_the_methods_own_presets_pass(preset):
    """Each has all options of its stages, those of the preset and those by default, for the recipe's only model."""
    found = check_preset(preset, models=["writer"])
    names = [next(iter(one)) if isinstance(one, dict) else one for one in preset.stages]
    assert [label.removesuffix("-2") for label in found] == names
    assert found["refine-2"]["columns"] == ("output",)
    assert found["score"]["model"] == "writer"


def test_stages_of_a_folder_and_presets_that_only_clean(tmp_path):
    """A stage of a plugin that is not installed is found in its folder; texts need no stage that makes pairs."""
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN), "utf-8")
    found = check_preset(short("normalize", {"ours": {"least": 5}}), dirs=[tmp_path])
    assert found["ours"] == {"least": 5}


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        (short(), r"its `stages` are \(\)"),
        (short(*SHORT, title=""), "preset `short` has no `title`"),
        (
            short("normalise", *SHORT),
            r"^short:\d+: unknown stage `normalise` of preset `short`.* did you mean `normalize`",
        ),
        (
            short({"length": {"max_token": 9}}, *SHORT[2:]),
            "stage `length` of preset `short`.*unknown option `max_token`",
        ),
        (short("label", {"polish": {"model": "judge"}}), "`model` is `judge`, which is no model of this recipe"),
        (short("normalize", "label"), "no stage of the recipe adds `output`; .*`polish`"),
    ],
    ids=["empty", "title", "stage", "option", "model", "pairs"],
)
def test_what_a_recipe_would_be_refused_for(preset, said):
    """A preset that no recipe could name fails with the words that the recipe's author would read."""
    with pytest.raises(AssertionError, match=said):
        check_preset(preset)


def test_a_preset_may_need_several_models():
    """A preset that names its models passes where the recipe has them."""
    found = check_preset(
        short({"label": {"model": "writer"}}, {"polish": {"model": "editor"}}), models=["writer", "editor"]
    )
    assert (found["label"]["model"], found["polish"]["model"]) == ("writer", "editor")
