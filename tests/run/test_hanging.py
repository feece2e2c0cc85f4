"""Stages that hang: a row is taken off them where that is possible; else they are named, and Ctrl-C ends the run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from servers.llm_simulator import simulator

from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.run.executors import watchdog
from kun_builder.run.runner import build
from kun_builder.status import Status

PLUGIN = """
import asyncio, os, time
from kun_builder import BatchStage, ModelName, RowStage, Source, hookimpl

kun_api = 1

def parse(record):
    return record["text"]

async def ask(row, generate, *, model: ModelName = "chat"):
    answer = await generate(model, row["text"], max_new_tokens=20, on_length="keep")
    if "waits" in row["text"]:
        await asyncio.Event().wait()
    if "blocks" in row["text"] and os.path.exists("hang"):
        time.sleep(1000)
    return {**row, "instruction": "?", "output": answer.text}

def cut(table):
    while "cuts" in table["text"].to_pylist() and os.path.exists("hang"):
        time.sleep(0.1)
    return table

@hookimpl
def kun_sources():
    return [Source(name="lines", parse=parse, license="cc0-1.0")]

@hookimpl
def kun_stages():
    return [RowStage(name="ask", run=ask, adds={"instruction": "string", "output": "string"}),
            BatchStage(name="cut", run=cut)]
"""
BUILD = """
from kun_builder.run.executors import batches, watchdog

watchdog.LOOK, watchdog.SLOW, watchdog.GRACE, batches.SMALL = 0.5, 0.5, 1.0, {small}

if __name__ == "__main__":
    from kun_builder.cli.main import main

    main()
"""


def project(folder, url, texts):
    """A recipe, its corpus and its plugin."""
    (folder / "plugins").mkdir()
    (folder / "plugins/sticky.py").write_text(PLUGIN, "utf-8")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    (folder / "recipe.yaml").write_text(
        f"name: x\nshard_rows: 4\nplugins: {{dirs: [plugins]}}\nstages: [cut, ask]\n"
        f"models: {{chat: {{engine: openai, endpoints: ['{url}']}}}}\n"
        "splits: {web: {source: lines, path: texts.jsonl}}\n",
        "utf-8",
    )
    return folder / "recipe.yaml"


@pytest.mark.parametrize("speed", [50.0, 0.5])
def test_a_row_that_waits_for_ever_is_quarantined(tmp_path, monkeypatch, speed):
    """A row that makes no progress outside of a model costs itself, however slow the model is for the others."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(watchdog, "LOOK", 0.05)
    monkeypatch.setattr(watchdog, "HANG", 0.2)
    texts = [f"{'waits' if number in (1, 6) else 'goes'} {number}" for number in range(9)]
    with simulator(speed=speed) as server:
        path = project(tmp_path, server.url, texts)
        registry = load_plugins([tmp_path / "plugins"])
        report = build(load_recipe(path, registry, output=tmp_path / "run"), registry, status=Status())
    assert report.splits["web"].kept == 7
    rejected = pq.read_table(tmp_path / "run/rejected/web.parquet").to_pylist()
    assert [(row["text"], row["_stage"], row["_outcome"], row["_reason"]) for row in rejected] == [
        ("waits 1", "ask", "quarantined", "hung"),
        ("waits 6", "ask", "quarantined", "hung"),
    ]
    assert rejected[0]["_value"] == "no progress outside of a model: stage `ask` of plugin `sticky` (sticky.py)"
    report.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "small", "named"),
    [
        ("blocks", 10_000, "stage `ask` of plugin `sticky` (sticky.py) holds up the models' event loop"),
        ("cuts", 10_000, "stage `cut` of plugin `sticky` (sticky.py) is still at the same rows after"),
        ("cuts", 0, "stage `cut` of plugin `sticky` (sticky.py) is still at the same rows after"),
    ],
    ids=["event-loop", "batch", "batch-in-a-process"],
)
def test_a_stage_that_cannot_be_ended_is_named_and_ctrl_c_ends_the_run(tmp_path, monkeypatch, text, small, named):
    """The stage is named while it hangs; Ctrl-C ends the run at once, and the next one goes on where it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    Path("build.py").write_text(BUILD.format(small=small), "utf-8")
    Path("hang").touch()
    said = Path("said")
    with simulator(speed=50.0) as server:
        path = project(tmp_path, server.url, [*(f"goes {number}" for number in range(8)), text])
        with said.open("w") as stream:
            run = subprocess.Popen([sys.executable, "build.py", "recipe.yaml"], stdout=stream, stderr=stream)
        limit = time.monotonic() + 200
        while named not in said.read_text() or not server.counts()["answered"]:
            assert run.poll() is None, said.read_text()
            assert time.monotonic() < limit, said.read_text()
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        assert run.wait(100) == 130, said.read_text()
        assert named in said.read_text()
        assert "run the same command again to go on" in said.read_text()
        before = server.counts()["answered"]  # of a held-up loop, requests that were not sent yet are not
        assert 1 <= before <= (9 if text == "blocks" else 8)  # the rows of the shards that are through `cut`
        Path("hang").unlink()
        registry = load_plugins([tmp_path / "plugins"])
        report = build(load_recipe(path, registry), registry)
        assert server.counts()["different"] == 9
    assert report.splits["web"].kept == 9
