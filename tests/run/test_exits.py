"""Plugins that end the process in which they run: the user is told which stage it was, and where."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PLUGIN = """
import os
from kun_builder import BatchStage, RowStage, Source, hookimpl

kun_api = 1

def parse(record):
    return record["text"]

async def ask(row, generate):
    if os.environ["AT"] == "ask":
        os._exit(7)
    return {**row, "instruction": "?", "output": "!"}

def cut(table):
    if os.environ["AT"] == "cut":
        os._exit(7)
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
from kun_builder.run.executors import batches

batches.SMALL, batches.cores = {small}, lambda: 2

if __name__ == "__main__":
    from kun_builder.cli.main import main

    main()
"""


@pytest.mark.parametrize(
    ("at", "small", "code", "line"), [("ask", 99, 7, 12), ("cut", 99, 7, 17), ("cut", 0, 1, 17)], ids=str
)
def test_a_stage_that_ends_the_process_is_named(tmp_path, at, small, code, line):
    """Stage, plugin, file and line are told, whether the process of the run ends or one of its workers."""
    plugin = tmp_path / "plugins/ends.py"
    plugin.parent.mkdir()
    plugin.write_text(PLUGIN, "utf-8")
    (tmp_path / "run.py").write_text(BUILD.format(small=small), "utf-8")
    (tmp_path / "texts.jsonl").write_text('{"text": "茶"}\n' * 9, "utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "name: x\nshard_rows: 4\nmodels: {}\nplugins: {dirs: [plugins]}\nstages: [cut, ask]\n"
        "splits: {web: {source: lines, path: texts.jsonl}}\n",
        "utf-8",
    )
    environment = {**os.environ, "AT": at, "KUN_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "run.py", "recipe.yaml"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stderr
    assert f"Error: stage `{at}` of plugin `ends` (ends.py)" in run.stderr
    assert f"ended the process by os._exit(7) at {plugin}:{line}" in run.stderr
    assert ("a worker process died" in run.stderr) == ("exit code 7" in run.stderr) == (code == 1)
    assert "Traceback" not in run.stderr
