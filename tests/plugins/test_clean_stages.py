"""What all cleaning stages have in common."""

from __future__ import annotations

import json
import pickle

import pyarrow as pa
import pytest
from datasets import Dataset
from kun_clean import kun_stages

from kun_builder import BatchStage
from kun_builder.drops import VERDICT
from kun_builder.recipe.options import takes_workspace
from kun_builder.run.worker import arrow_type

STAGES = {stage.name: stage for stage in kun_stages()}
OPTIONS = {"length": {"tokenizer": "characters"}, "chunk": {"tokenizer": "characters"}}
TEXTS = [
    "北京是中华人民共和国的首都，也是全国的政治中心和文化中心。",
    "The quick brown fox jumps over the lazy dog, and then sleeps in the sun for a while.",
    "  \u200b ",
    "短",
    "春天来了，公园里的花都开了。\r\n\r\n\r\n孩子们在草地上奔跑，老人们在树下下棋。" * 4,
    "北京是中华人民共和国的首都，也是全国的政治中心和文化中心！",
]


@pytest.fixture(scope="module", autouse=True)
def _benchmark(tmp_path_factory):
    """A benchmark that has one of the texts."""
    path = tmp_path_factory.mktemp("bench") / "bench.jsonl"
    path.write_text(json.dumps({"question": TEXTS[0]}), encoding="utf-8")
    OPTIONS["decontaminate"] = {"benchmarks": (str(path),)}


def rows(texts):
    ids = pa.array([f"wudao/a.json:{row}" for row in range(len(texts))], pa.string())
    return pa.table({"id": ids, "split": pa.array(["wudao"] * len(texts)), "text": pa.array(texts, pa.string())})


def shard(stage, table):
    """The half of a stage that works on a shard."""
    function = stage.run if isinstance(stage, BatchStage) else stage.measure
    return function(table, **OPTIONS.get(stage.name, {}))


def test_stages_come_in_the_order_that_a_recipe_uses_them():
    """Cheap stages come before expensive ones, and all that look at one row before those that look at many."""
    assert list(STAGES) == ["normalize", "pii", "language", "chunk", "length", "perplexity", "dedup", "decontaminate"]


@pytest.mark.parametrize("name", STAGES)
def test_empty_shard_keeps_the_declared_schema(name):
    """A shard without rows leaves each stage with every column that the stage declares, of the declared type."""
    table = shard(STAGES[name], rows([]))
    assert table.num_rows == 0
    for column, kind in STAGES[name].adds.items():
        assert table.schema.field(column).type == arrow_type(kind)


@pytest.mark.parametrize("name", STAGES)
def test_result_is_the_same_for_any_shards(name):
    """A stage says the same of a row whatever other rows are in its shard, and each time that it is asked."""
    table = rows(TEXTS)
    whole = shard(STAGES[name], table).drop_columns(
        [c for c in VERDICT if c in shard(STAGES[name], table).column_names]
    )
    single = [shard(STAGES[name], table.slice(row, 1)) for row in range(len(TEXTS))]
    for row, part in enumerate(single):
        assert part.select(whole.column_names).to_pylist() == whole.slice(row, 1).to_pylist()


@pytest.mark.parametrize("name", STAGES)
def test_no_row_disappears(name):
    """Stages mark rows and remove none: what is kept and what is dropped add up to what came in."""
    table = shard(STAGES[name], rows(TEXTS))
    outcomes = table["_outcome"].to_pylist() if "_outcome" in table.column_names else [None] * table.num_rows
    assert table["id"].to_pylist() == rows(TEXTS)["id"].to_pylist()
    assert outcomes.count(None) + outcomes.count("dropped") == len(TEXTS)


@pytest.mark.parametrize("name", STAGES)
def test_stages_survive_pickling(name):
    """A stage can be sent to another process."""
    assert pickle.loads(pickle.dumps(STAGES[name])) == STAGES[name]


@pytest.mark.parametrize("name", ["perplexity", "dedup"])
def test_dataset_stage_takes_a_dataset_without_rows(name):
    """With no living row left, a dataset stage drops nothing."""
    stage = STAGES[name]
    table = shard(stage, rows([])).select([*stage.columns, *stage.adds])
    workspace = [None] if takes_workspace(stage.run) else []
    assert list(stage.run(Dataset(table), *workspace)) == []
