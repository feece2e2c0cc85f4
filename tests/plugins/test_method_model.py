"""Label, score and polish with the real embedded model."""

import asyncio

import pytest
from kun_method import label, polish, refine, score
from kun_method.form import is_request

from kun_builder import Drop, ModelSpec
from kun_builder.engines.llamacpp import kun_engines
from kun_builder.models.generator import open_models
from kun_builder.models.journal.journal import Journal
from kun_builder.run.rows import RowGenerate
from kun_builder.status import Status

TEXT = (
    "蝙蝠在黑暗中靠回声辨别方向。它从口鼻发出人耳听不见的超声波，声波碰到墙壁或飞虫便反射回来。"
    "蝙蝠根据回声到达的早晚和强弱，判断前方物体的远近和大小。"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a stage on a row, over the embedded model."""
    with asyncio.Runner() as runner:
        engines = {engine.name: Entry(engine) for engine in kun_engines()}
        journal = Journal.open(tmp_path_factory.mktemp("journal"))
        models = open_models({"chat": ModelSpec(name="chat", context_length=1024)}, engines, journal, Status())
        generator = runner.run(models.__aenter__())
        try:
            yield lambda stage, row: runner.run(stage.run(row, RowGenerate(generator, 0, [], {})))
        finally:
            runner.run(models.__aexit__(None, None, None))


class Entry:
    def __init__(self, value):
        self.value = value


@pytest.mark.model
@pytest.mark.slow
def test_a_text_becomes_a_pair(run):
    """The embedded model asks for what the text tells, finds its question good, and answers it from the text."""
    row = {"id": "wanjuan/part.jsonl:0", "text": TEXT}
    for stage in (label.stage, score.stage, polish.stage, refine.stage):
        row = run(stage, row)
    assert is_request(row["instruction"])
    assert "蝙蝠" in row["instruction"]
    assert row["score"] > 0.5
    assert "超声波" in row["output"] or "回声" in row["output"]
    assert row["raw_answer"] == TEXT


@pytest.mark.model
@pytest.mark.slow
def test_a_broken_instruction_scores_lower(run):
    """The embedded model tells an instruction from its own characters in another order."""
    scores = []
    for instruction in ("蝙蝠为什么能在黑暗中辨别方向？", "向方么黑蝠辨能？暗在别为中什蝠"):
        try:
            scores.append(run(score.stage, {"id": "x", "instruction": instruction})["score"])
        except Drop as drop:
            scores.append(drop.added["score"])
    assert scores[0] > scores[1]
