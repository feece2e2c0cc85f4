"""Stages that see all rows, in whole runs: on any column of text, as often as a recipe likes."""

import json

import pyarrow.parquet as pq
import pytest

from kun_builder.errors import RecipeError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.result.explain import explain
from kun_builder.result.finished import open_run
from kun_builder.run import machine
from kun_builder.run.crew import LocalCrew
from kun_builder.run.plan import make_plan
from kun_builder.run.runner import build
from kun_builder.run.workspace import LocalWorkspace, Resources, workspace
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
    assert {name: stats.clusters for name, stats in open_run(tmp_path / "run").stats.items()} == {
        "one": {TEXTS["one"][0].split("|")[0]: 2},
        "two": {},
    }


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


def test_a_workspace_is_empty_at_first_and_gone_in_the_end(tmp_path):
    """What a killed run left is removed; so is the folder, however the stage ends; progress is told in rows."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work/old").write_text("")
    status = Status()

    def used():
        with workspace(tmp_path / "work", 200, Resources(memory=1 << 30, status=status)) as work:
            assert list(work.folder.iterdir()) == []
            assert (work.memory, work.workers) == (1 << 30, 1)
            (work.folder / "new").write_text("")
            work.progress(0.25)
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011  # the one above
        used()
    assert not (tmp_path / "work").exists()
    assert status.done == 50


def test_half_of_the_memory_is_used_where_the_recipe_does_not_say(tmp_path, monkeypatch):
    """The machine's memory, or its container's where that is less."""
    monkeypatch.setattr(machine, "_physical", lambda: 8 << 30)
    monkeypatch.setattr(machine, "_CONTAINERS", (str(tmp_path / "none"), str(tmp_path / "memory.max")))
    for said, expected in (("max\n", 4 << 30), (f"{2 << 30}\n", 1 << 30), (f"{1 << 60}\n", 4 << 30)):
        (tmp_path / "memory.max").write_text(said)
        with workspace(tmp_path / "work", 1, Resources()) as work:
            assert work.memory == expected


def double(number):
    if number == 9:
        raise ValueError("nine")
    return 2 * number


@pytest.mark.slow
def test_a_workspace_has_processes(tmp_path):
    """Results come back in the order of the items; what a process raises comes to the stage."""
    work = LocalWorkspace(tmp_path, 1 << 30, 2, 10, Status(), LocalCrew(dict))
    assert list(work.map(double, range(9))) == list(range(0, 18, 2))
    with pytest.raises(ValueError, match="nine"):
        list(work.map(double, range(12)))


@pytest.mark.parametrize(("said", "size"), [("8GB", 8 * 10**9), ("512MiB", 512 << 20), (1 << 30, 1 << 30)])
def test_memory_of_a_recipe(load, tmp_path, said, size):
    """`memory` is a number of bytes or has a unit."""
    load("dedup")
    recipe = json.loads((tmp_path / "recipe.yaml").read_text("utf-8")) | {"memory": said}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    assert load_recipe(tmp_path / "recipe.yaml", load_plugins([tmp_path / "plugins"])).memory == size
