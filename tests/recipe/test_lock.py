"""A recipe changed at one key, written out as a lock, and described by the schema."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import OWNER, REGISTRY, SMALL, complaints, label

from kun_builder import Prompt, RowStage
from kun_builder.errors import RecipeError
from kun_builder.recipe.file import Dumper, RecipeFile
from kun_builder.recipe.lock import lock, with_publish
from kun_builder.recipe.options import options_of
from kun_builder.recipe.recipe import load_recipe
from kun_builder.recipe.schema import json_schema
from kun_builder.types import ModelInfo

# --- one changed key -------------------------------------------------------------------------------------------

FULL = {
    "name": "kun",
    "models": {"chat": {"engine": "openai", "endpoints": ["http://a:1"], "timeout": 3.0, "threads": 2}},
    "splits": {
        "one": {"source": "generic", "path": "x", "field": "content"},
        "two": {"source": "wudao", "path": ["y", "z"], "encoding": "utf-8"},
    },
    "stages": [
        "normalize",
        {"length": {"max_tokens": 100, "by": "tokens"}},
        {"label": {"model": "chat", "n": 2}},
        {"refine": {"columns": ["instruction"]}},
    ],
    "shard_rows": 10,
    "plugins": {"dirs": ["a"], "disable": ["b"]},
    "publish": {"repo": "a/b", "private": True},
}


KEYS = [
    (("name",),), (("models",),), (("splits",),), (("stages",),), (("shard_rows",),), (("plugins",),), (("publish",),),
    (("models", "chat", "engine"),), (("models", "chat", "endpoints"),), (("models", "chat", "timeout"),),
    (("models", "chat", "threads"),), (("splits", "one", "source"),), (("splits", "one", "path"),),
    (("splits", "one", "field"),), (("splits", "two", "encoding"),), (("stages", 1, "length"),),
    (("stages", 1, "length", "max_tokens"),), (("stages", 1, "length", "by"),), (("stages", 2, "label", "n"),),
    (("stages", 3, "refine"),), (("stages", 3, "refine", "columns"),), (("plugins", "dirs"),),
    (("plugins", "disable"),), (("publish", "repo"),), (("publish", "private"),),
]  # fmt: skip


@given(
    place=st.sampled_from([key for (key,) in KEYS]),
    junk=st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=3),
    at=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_a_changed_key_is_found_at_its_line(tmp_path_factory, place, junk, at):
    """Whatever key of a recipe is misspelt, there is a complaint at its line that names it."""
    data = copy.deepcopy(FULL)
    holder = data
    for part in place[:-1]:
        holder = holder[part]
    old = place[-1]
    new = old[: at % (len(old) + 1)] + junk + old[at % (len(old) + 1) :]
    items = [(new if key == old else key, value) for key, value in holder.items()]
    holder.clear()
    holder.update(items)
    text = yaml.dump(data, sort_keys=False)
    line = next(
        n for n, row in enumerate(text.splitlines(), 1) if row.lstrip(" -'").startswith((f"{new}:", f"{new}':"))
    )
    path = tmp_path_factory.mktemp("r") / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, REGISTRY)
    here = [row for row in caught.value.message.splitlines() if row.startswith(f"{path}:{line}: ")]
    assert any(f"`{new}`" in row for row in here)


def test_the_full_recipe_itself_is_right(recipe):
    """What the test above changes has nothing wrong in it."""
    assert recipe(yaml.dump(FULL, sort_keys=False)).name == "kun"


# --- lock and schema -------------------------------------------------------------------------------------------


def test_lock_is_a_recipe_again(recipe):
    """A lock has every option and prompt, says what ran, and loads as the same recipe."""
    made = recipe(yaml.dump(FULL, sort_keys=False), limit=9)
    infos = {"chat": ModelInfo("Qwen/Qwen3-8B", "abc123")}
    text = lock(made, REGISTRY, infos)
    said = yaml.safe_load(text)["lock"]
    assert said["models"] == {"chat": {"id": "Qwen/Qwen3-8B", "revision": "abc123"}}
    assert said["plugins"] == {"kun-test": {"package": "kun-tests", "version": "1.0", "digest": OWNER.digest}}
    assert said["prompts"][0]["digest"] == Prompt("Ask: {text}\n").digest
    assert said["limit"] == 9
    assert "http://a:1" not in text
    again = recipe(text)
    assert (again.splits, again.stages, again.shard_rows) == (made.splits, made.stages, made.shard_rows)
    assert again.models["chat"].options == made.models["chat"].options
    again = recipe(text, endpoints=("http://a:1",), limit=9)
    assert again.models == made.models
    assert lock(again, REGISTRY, infos) == text


def test_publishing_is_renewed_in_a_lock(recipe):
    """What a recipe says of publishing can be put into a lock file later; all else in it stays byte for byte."""
    text = lock(recipe(yaml.dump(FULL, sort_keys=False)), REGISTRY, {})
    bare = recipe(yaml.dump({**FULL, "publish": {}}, sort_keys=False))
    assert with_publish(text, recipe(text)) == text
    assert "publish:" not in with_publish(text, bare)
    assert with_publish(with_publish(text, bare), recipe(text)) == text


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"], include_characters="\t\n"), min_size=1).filter(
    lambda text: "${" not in text
)


@given(prompt=TEXT, name=TEXT, number=st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None, max_examples=40)
def test_lock_keeps_any_text_and_number(tmp_path_factory, prompt, name, number):
    """Prompts, strings and numbers come back from a lock exactly as they went in."""
    path = tmp_path_factory.mktemp("r") / "r.yaml"
    prompt = Prompt(prompt.replace("{", "") + "\n")
    stages = [{"label": {"prompt": prompt.text}}, {"strict": {"threshold": number}}]
    splits = {"a": {"source": "generic", "path": "x", "field": name}}
    path.write_text(json.dumps({"models": {"chat": {}}, "splits": splits, "stages": stages}), encoding="utf-8")
    made = load_recipe(path, REGISTRY)
    assert made.stages[0].options["prompt"] == prompt
    again = tmp_path_factory.mktemp("r") / "r.lock.yaml"
    again.write_text(lock(made, REGISTRY, {}), encoding="utf-8")
    loaded = load_recipe(again, REGISTRY)
    assert (loaded.stages, loaded.splits["a"].options) == (made.stages, made.splits["a"].options)


INT64 = st.integers(1 - 2**63, 2**63 - 1)


@given(
    st.recursive(
        st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | st.text("ab1e:#'\"-.~ \n{[é文"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab:# ", min_size=1), inner, max_size=3),
    )
)
@settings(deadline=None, max_examples=40)
def test_what_is_dumped_is_read_back(tmp_path_factory, value):
    """Any plain data that is written is read back the same."""
    path = tmp_path_factory.mktemp("r") / "r.yaml"
    path.write_text(yaml.dump({"value": value}, Dumper=Dumper, allow_unicode=True, sort_keys=False), encoding="utf-8")
    assert RecipeFile.read(path).data == {"value": value}


def test_schema_accepts_what_the_loader_accepts(recipe):
    """The JSON schema is valid, knows every option, and agrees with the loader on good and bad recipes."""
    schema = json_schema(REGISTRY)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    lock_text = lock(recipe(yaml.dump(FULL, sort_keys=False)), REGISTRY, {})
    for good in (FULL, yaml.safe_load(SMALL), yaml.safe_load(lock_text)):
        assert list(check.iter_errors(good)) == []
    for place, value in (
        (("formt",), 1),
        (("format",), "jsnl"),
        (("models", "chat", "threds"), 1),
        (("models", "chat", "engine"), "lamacpp"),
        (("models", "chat", "api_key"), "sk-1"),
        (("splits", "one", "source"), "genric"),
        (("splits", "one", "fild"), "x"),
        (("stages", 0), "normalise"),
        (("stages", 0), "strict"),
        (("stages", 1, "length", "max_tokens"), "3"),
        (("stages", 1, "length", "max_token"), 3),
        (("stages", 1, "labl"), {}),
        (("publish", "privat"), True),
    ):
        bad = copy.deepcopy(FULL)
        holder = bad
        for part in place[:-1]:
            holder = holder[part]
        holder[place[-1]] = value
        assert list(check.iter_errors(bad)), place
        assert complaints(recipe, yaml.dump(bad, sort_keys=False)), place
    options = schema["properties"]["stages"]["items"]["anyOf"][1]["properties"]["length"]["anyOf"][0]["properties"]
    assert options["max_tokens"] == {"type": "integer", "minimum": 1, "default": 512}


def test_stage_values_are_real_stages():
    """The options that a recipe checks are those that a plugin's stage has."""
    stage = RowStage(name="label", run=label)
    assert [option.role for option in options_of(stage.run, ("row", "generate"))] == ["model", "", "", ""]
