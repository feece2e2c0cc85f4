"""Stages that see all rows, in whole runs: on any column of text, as often as a recipe likes."""

import json

import pyarrow.parquet as pq
import pytest

from kun_builder.errors import RecipeError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.result.explain import explain
from kun_builder.result.finished import open_run
from kun_builder.run.plan import make_plan
from kun_builder.run.runner import build
from kun_builder.status import Status

PLUGIN = """
from kun_builder import RowStage, hookimpl

kun_api = 1


async def ask(row, generate):
    question, answer = row["text"].split("|")
    return {**row, "instruction": question, "output": answer}


@hookimpl
def kun_stages():
    return [RowStage(name="ask", run=ask, adds={"instruction": "string", "output": "string"})]
"""
TEXTS = {
    "one": [
        "月食的时候月亮为什么会发红？|因为影子。",
        "鸡蛋羹要怎么蒸才会细嫩？|小火慢蒸。",
        "月食的时候月亮为什么会发红？|因为影子！",
    ],
    "two": ["月食的时候，月亮为什么会发红|大气折射。", "三角洲是怎样形成的？|泥沙沉积。"],
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A recipe with the given stages, and the registry, over two splits of questions and answers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/questions.py").write_text(PLUGIN, "utf-8")
    for split, texts in TEXTS.items():
        lines = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines), "utf-8")

    def loaded(*stages):
        splits = {split: {"source": "generic", "path": f"{split}.jsonl"} for split in TEXTS}
        recipe = {"name": "x", "splits": splits, "plugins": {"dirs": ["plugins"]}, "stages": stages}
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
        registry = load_plugins([tmp_path / "plugins"])
        return load_recipe(tmp_path / "recipe.yaml", registry, output=tmp_path / "run"), registry

    return loaded


def outcomes(tmp_path):
    """Stage, reason and value of every rejected row by its id."""
    tables = [pq.read_table(path) for path in sorted((tmp_path / "run/rejected").glob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    return {row["id"]: (row["_stage"], row["_reason"], row["_value"]) for row in rows}


def test_instructions_are_compared_behind_the_stage_that_writes_them(tmp_path, load):
    """A second `dedup` looks at another column, across splits, and names the row that stays; `explain` shows both."""
    report = build(*load("dedup", "ask", {"dedup": {"column": "instruction"}}), status=Status())
    report.check()
    first, copy, other = (
        f"{name}:{row}" for name, row in (("one/one.jsonl", 0), ("one/one.jsonl", 2), ("two/two.jsonl", 0))
    )
    assert outcomes(tmp_path) == {
        copy: ("dedup", "duplicate", first),
        other: ("dedup-2", "duplicate", first),
    }
    assert explain(open_run(tmp_path / "run"), first)["stands_for"] == [
        {"id": copy, "step": "dedup", "reason": "duplicate"},
        {"id": other, "step": "dedup-2", "reason": "duplicate"},
    ]
    assert explain(open_run(tmp_path / "run"), other)["outcome"]["value"] == first
    assert explain(open_run(tmp_path / "run"), other)["stands_for"] == []


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ({"max_per_cluster": 2}, {"two/two.jsonl:0"}),
        ({"max_per_cluster": 3}, set()),
        ({"scope": "split"}, {"one/one.jsonl:2"}),
    ],
)
def test_a_cluster_may_keep_several_or_some_of_each_split(tmp_path, load, options, dropped):
    """`max_per_cluster` is how many rows stay of those that ask alike; with `scope: split`, each split is by itself."""
    build(*load("ask", {"dedup": {"column": "instruction", **options}}), status=Status())
    assert set(outcomes(tmp_path)) == dropped


def test_two_in_a_row_do_not_mix_what_they_measure(tmp_path, load):
    """Neighbouring stages that measure under one name each see their own figures."""
    recipe, registry = load("ask", {"dedup": {"column": "output"}}, {"dedup": {"column": "instruction"}})
    assert [segment.label for segment in make_plan(recipe, registry).segments] == [
        "ask", "dedup-measure", "dedup", "dedup-2-measure", "dedup-2",
    ]  # fmt: skip
    build(recipe, registry, status=Status())
    stages = {row: stage for row, (stage, *_) in outcomes(tmp_path).items()}
    assert stages == {"one/one.jsonl:2": "dedup", "two/two.jsonl:0": "dedup-2"}


@pytest.mark.parametrize(
    ("column", "near"), [("instruction", ""), ("txt", "; did you mean `text`?"), ("perplexity", "")]
)
def test_a_column_that_is_not_there_yet_is_refused_before_anything_runs(load, column, near):
    """`column` must be text and come from an earlier stage; the error names stage, column and cure."""
    with pytest.raises(RecipeError) as caught:
        make_plan(*load("perplexity", {"dedup": {"column": column}}, "ask"))
    assert f"stage `dedup`: `column` is `{column}`, and there is no such text before it{near}" in caught.value.message
    assert "put it behind the stage that adds it" in caught.value.hint
