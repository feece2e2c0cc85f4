"""The stage `review`: the run stops until people have judged, drops what they find bad, and asks nothing twice."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from kun_builder.errors import RunError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.result.review import open_review
from kun_builder.result.review_store import open_store
from kun_builder.run.runner import build
from kun_builder.status import Status

PLUGIN = """
from kun_builder import RowStage, hookimpl

kun_api = 1


async def ask(row, generate, *, mark: str = "？"):
    return {**row, "instruction": f"什么是{row['text'][:2]}{mark}"}


async def answer(row, generate):
    return {**row, "output": row["text"]}


@hookimpl
def kun_stages():
    return [
        RowStage(name="ask", run=ask, adds={"instruction": "string"}),
        RowStage(name="answer", run=answer, adds={"output": "string"}),
    ]
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Builds a recipe with the given stages over two splits of ten texts each."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/asking.py").write_text(PLUGIN, "utf-8")
    for split in ("one", "two"):
        lines = [json.dumps({"text": f"{split}的第{n}段文字。"}, ensure_ascii=False) for n in range(10)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines), "utf-8")

    def built(*stages, output="run", **settings):
        splits = {split: {"source": "generic", "path": f"{split}.jsonl"} for split in ("one", "two")}
        recipe = {"name": "x", "splits": splits, "plugins": {"dirs": ["plugins"]}, "stages": stages, **settings}
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
        registry = load_plugins([tmp_path / "plugins"])
        loaded = load_recipe(tmp_path / "recipe.yaml", registry, output=tmp_path / output)
        return build(loaded, registry, status=Status())

    return built


def judge(path, good=lambda number: True, reviewer="me"):
    """Judge all that waits in `path`; returns it."""
    review = open_review(path)
    assert review.waiting
    with open_store(review, reviewer) as store:
        for number in range(len(review.pairs)):
            store.say(number, good(number), [] if good(number) else ["needs_context"])
    return review


def waits(run, *stages, **settings):
    with pytest.raises(RunError, match="the run waits for people") as refused:
        run(*stages, **settings)
    return refused.value


def test_stops_and_goes_on(run, tmp_path):
    """The run ends before the next stage and says how to judge; then it goes on without the rows that were bad."""
    stages = ("ask", {"review": {"sample": 6}}, "answer")
    error = waits(run, *stages)
    assert "6 rows are to be judged, 0 are" in error.message
    assert f"kun-build review {tmp_path / 'run'}`" in error.hint
    assert not (tmp_path / "run/report.json").exists()
    review = judge(tmp_path / "run", good=lambda number: number > 1)
    assert [set(pair) >= {"id", "instruction", "text"} for pair in review.pairs] == [True] * 6
    assert all(pair["instruction"] and not pair["output"] for pair in review.pairs)
    report = run(*stages)
    assert sum(split.kept for split in report.splits.values()) == 18
    tables = [pq.read_table(tmp_path / f"run/rejected/{split}.parquet").to_pylist() for split in ("one", "two")]
    dead = {row["id"]: (row["_stage"], row["_reason"], row["_value"]) for table in tables for row in table}
    assert dead == {pair["id"]: ("review", "judged_bad", "needs_context") for pair in review.pairs[:2]}
    assert list((tmp_path / "run").rglob("waiting.json")) == [], "and nothing waits any more"
    status = Status()
    assert run(*stages).signature == report.signature, status


def test_some_are_not_enough(run, tmp_path):
    """As long as one verdict is missing, the run waits, for the same rows; several people may share them."""
    stages = ("ask", {"review": {"sample": 4}}, "answer")
    waits(run, *stages)
    review = open_review(tmp_path / "run")
    for number, reviewer in enumerate(("wang", "li", "zhao")):
        with open_store(review, reviewer) as store:
            store.say(number, True)
    assert "4 rows are to be judged, 3 are" in waits(run, *stages).message
    again = open_review(tmp_path / "run")
    assert [pair["id"] for pair in again.pairs] == [pair["id"] for pair in review.pairs]
    with open_store(again, "li") as store:
        store.say(3, True)
    run(*stages)


def test_all_rows(run, tmp_path):
    """`sample: null` waits for every row; texts without an instruction can be judged, too."""
    stages = ({"review": {"sample": None}}, "ask", "answer")
    waits(run, *stages)
    review = judge(tmp_path / "run", good=lambda number: number % 2 == 0)
    assert len(review.pairs) == 20
    assert not any(pair["instruction"] for pair in review.pairs)
    assert sum(split.kept for split in run(*stages).splits.values()) == 10


def test_other_words_are_judged_anew(run, tmp_path):
    """A verdict is about words: when a stage before changes them, the run waits again."""
    waits(run, "ask", {"review": {"sample": 3}}, "answer")
    judge(tmp_path / "run")
    run("ask", {"review": {"sample": 3}}, "answer")
    changed = ({"ask": {"mark": "吗？"}}, {"review": {"sample": 3}}, "answer")
    assert "3 rows are to be judged, 0 are" in waits(run, *changed).message
    judge(tmp_path / "run")
    run(*changed)


def test_a_changed_verdict_changes_the_result(run, tmp_path):
    """What people say is part of what a run depends on."""
    stages = ("ask", {"review": {"sample": 3}}, "answer")
    waits(run, *stages)
    review = judge(tmp_path / "run")
    assert sum(split.kept for split in run(*stages).splits.values()) == 20
    with open_store(review, "me") as store:
        store.say(0, False)
    assert sum(split.kept for split in run(*stages).splits.values()) == 19


def test_too_few_good_ones_end_it(run, tmp_path):
    """`least_good` ends the run before the next stage costs anything; a lower one goes on with the same verdicts."""
    asked = {"sample": 4, "least_good": 0.8}
    waits(run, "ask", {"review": asked}, "answer")
    judge(tmp_path / "run", good=lambda number: number < 3)
    with pytest.raises(RunError, match="3 of 4 rows that people judged are good, and the recipe asks for 80%"):
        run("ask", {"review": asked}, "answer")
    report = run("ask", {"review": {**asked, "least_good": 0.75}}, "answer")
    assert sum(split.kept for split in report.splits.values()) == 19


def test_more_rows_wait_for_nobody(run, tmp_path):
    """The rows that are drawn are the same, however many others there are: a larger build lives on their verdicts."""
    (tmp_path / "one.jsonl").write_text((tmp_path / "one.jsonl").read_text("utf-8").split("\n")[0], "utf-8")
    stages = ("ask", {"review": {"sample": 8}}, "answer")
    waits(run, *stages)
    judge(tmp_path / "run")
    lines = [json.dumps({"text": f"one的第{n}段文字。"}, ensure_ascii=False) for n in range(10)]
    (tmp_path / "one.jsonl").write_text("\n".join(lines), "utf-8")
    run(*stages)


def test_verdicts_beside_the_recipe(run, tmp_path):
    """A folder that the recipe names serves another run, which waits for nobody; `review` finds what waits in it."""
    stages = ("ask", {"review": {"sample": 5, "verdicts": "said"}}, "answer")
    assert "kun-build review said`" in waits(run, *stages).hint
    judge(tmp_path / "said")
    run(*stages)
    run(*stages, output="other")


def test_twice(run, tmp_path):
    """Each use of the stage has verdicts of its own."""
    stages = ("ask", {"review": {"sample": 2}}, "answer", {"review": {"sample": 3}})
    waits(run, *stages)
    judge(tmp_path / "run")
    assert "3 rows are to be judged, 0 are" in waits(run, *stages).message
    review = judge(tmp_path / "run")
    assert review.run == "run review-2"
    assert all(pair["output"] for pair in review.pairs)
    run(*stages)
