"""Whole builds by a batch API: the rows of all shards wait together, and each depth of requests is one batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from servers.batches import batch_api

ROWS = 60


def answer(body):
    """A question for a text, a text for a question."""
    said = f"{body['messages'][-1]['content'][-30:]}……"
    usage = {"prompt_tokens": 1000, "completion_tokens": 500}
    return 200, {"choices": [{"message": {"content": said}, "finish_reason": "stop"}], "usage": usage}


STAGES = """
from kun_builder import ModelName, RowStage, hookimpl

kun_api = 1


async def run(row, generate, *, model: ModelName = "chat"):
    first = await generate(model, [{"role": "user", "content": "问：" + row["text"]}])
    second = await generate(model, [{"role": "user", "content": "答：" + first.text}])
    return {**row, "instruction": first.text, "output": second.text}


@hookimpl
def kun_stages():
    return [RowStage(name="twice", run=run, adds={"instruction": "string", "output": "string"})]
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe of two requests a row over fifteen shards. A batch is sent when all rows have asked, however slowly."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "twice.py").write_text(STAGES, "utf-8")
    lines = "".join(json.dumps({"text": f"第{n}篇，讲怎么保存茶叶。"}, ensure_ascii=False) + "\n" for n in range(ROWS))
    (tmp_path / "a.jsonl").write_text(lines, "utf-8")

    def written(url):
        path = tmp_path / "recipe.yaml"
        path.write_text(
            "name: batched\nshard_rows: 4\nplugins: {dirs: [.]}\n"
            f"models: {{chat: {{engine: openai-batch, endpoints: ['{url}'], model: m, linger: 600, poll: 0.1,"
            f" concurrency: {ROWS}, cost: {{input: 0.5, output: 1.0}}}}}}\n"
            "splits: {web: {source: generic, path: a.jsonl}}\nstages: [twice]\n",
            "utf-8",
        )
        return path

    return written


def started(path):
    command = [sys.executable, "-c", "from kun_builder.cli.main import main; main()", str(path)]
    command += ["--output", str(path.parent / "run")]
    with (path.parent / "log.txt").open("a") as log:
        return subprocess.Popen(command, cwd=path.parent, stdout=log, stderr=log)


@pytest.mark.slow
def test_a_killed_build_ends_with_every_request_asked_once(recipe, tmp_path):
    """Killed while the first batch runs, and again before the second is noted: two batches, each row asked twice."""
    with batch_api(answer, ["never"]) as api:
        path = recipe(api.url)
        first = started(path)
        while not api.polls:
            assert first.poll() is None, (tmp_path / "log.txt").read_text()
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert (len(api.batches), len(api.lines)) == (1, ROWS), "rows of all shards wait together"
        api.batches["batch-0"]["plan"] = "completed"
        second = started(path)
        api.kill = second.pid
        assert second.wait(200) == -signal.SIGKILL
        assert started(path).wait(200) == 0, (tmp_path / "log.txt").read_text()
        assert (len(api.batches), len(api.lines)) == (2, 2 * ROWS)
    assert pq.read_table(tmp_path / "run/kept").num_rows == ROWS
    report = json.loads((tmp_path / "run/report.json").read_bytes())
    (usage,) = report["usage"]
    assert usage["requests"] + usage["reused"] == 2 * ROWS
    assert usage["cost"] == pytest.approx(usage["requests"] * (1000 * 0.5 + 500 * 1.0) / 1e6)
    noted = [json.loads(path.read_bytes())["batch"] for path in (tmp_path / "cache").glob("batches/*/*.json")]
    assert noted == ["batch-0"], "the third process has used its answers out of the journal"


def test_on_a_cluster_one_worker_asks(recipe, kun):
    """The plan says so, whatever the recipe wants: a batch has the requests of all rows."""
    path = recipe("http://127.0.0.1:9")
    path.write_text(path.read_text("utf-8") + "executor: ray\nray: {actors: 4}\n", "utf-8")
    code, out, err = kun("plan", path, "--json")
    assert code == 0, err
    assert json.loads(out)["placement"]["rows"].endswith(": 1, since requests are collected into batches")
