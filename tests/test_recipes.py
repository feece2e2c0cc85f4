"""Every recipe of docs/recipes builds a dataset, from small inputs with a simulated server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipe_inputs import write_inputs
from servers.agreeable import agreeable, chat
from servers.batches import batch_api

from kun_builder.recipe.recipe import load_recipe
from kun_builder.run.plan import make_plan
from kun_builder.run.runner import build
from kun_builder.run.target import build_target

FOLDER = Path(__file__).parents[1] / "docs/recipes"
RECIPES = sorted(path.name for path in FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer of single characters, with a chat template, in the place of those that are on the Hub."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    plain = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="?")
    fast.chat_template = "{% for message in messages %}{{ message['role'] }}\n{{ message['content'] }}\n\n{% endfor %}"
    fast.save_pretrained(folder)
    return folder


@contextmanager
def server_of(recipe: dict[str, Any]) -> Iterator[str]:
    """The address of a server that speaks what the models of `recipe` are asked by. One that is asked in batches must
    have had the requests of rows in batches, each of them once."""
    if all(model.get("engine") != "openai-batch" for model in recipe["models"].values()):
        with agreeable() as url:
            yield url
        return
    with batch_api(lambda body: (200, chat(body))) as api:
        yield api.url
    asked = [json.dumps(body) for body in api.lines]
    assert len(set(asked)) == len(asked) > len(api.batches) > 1
    assert len(api.singles) < 20, "only what is asked at the start to get to know the model"


def test_all_are_listed():
    """The page names each recipe, and each says at its head how it is run."""
    page = (FOLDER / "README.md").read_text("utf-8")
    assert [name for name in RECIPES if f"[{name}]({name})" not in page] == []
    for name in RECIPES:
        assert f"kun-build docs/recipes/{name}" in (FOLDER / name).read_text("utf-8").partition("\nname:")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds(name, registry, inputs, tokenizer, tmp_path, monkeypatch):
    """It is valid as it stands; with the inputs in their places and a server at its models, rows of each split are
    kept, and none is lost because a stage or a server failed."""
    monkeypatch.chdir(inputs)
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-test")
    make_plan(load_recipe(FOLDER / name, registry), registry)
    text = yaml.safe_load((FOLDER / name).read_text("utf-8"))
    for model in text["models"].values():
        model["tokenizer"] = str(tokenizer)
        if model.get("engine") == "openai-batch":
            model |= {"linger": 0.5, "poll": 0.1}  # the simulated batches need no day
    if text.get("executor") == "ray":
        pytest.importorskip("ray")
        text["ray"] = {"cpus": 2}  # a cluster that ends with the run
    path = tmp_path / name
    path.write_text(yaml.safe_dump({**text, "journal": str(tmp_path / "journal")}), "utf-8")
    with server_of(text) as url:
        recipe = load_recipe(path, registry, output=tmp_path / "run", endpoints=(url,))
        report = (build_target if recipe.target else build)(recipe, registry)
    for split in report.splits.values():
        assert split.kept > 0
        assert not any(count.quarantined for count in split.stages)
