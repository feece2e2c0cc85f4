"""fineweb-zh and chat-logs, from `kun-build plugins` to a dataset that loads."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import kun_chat_logs
import kun_fineweb_zh
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import KUN_BUILD
from servers.agreeable import agreeable

RECIPE = """
models: {{chat: {{endpoints: ['{url}'], tokenizer: characters}}}}
splits:
  web: {{source: fineweb-zh, path: pages, min_score: 0.6}}
  logs: {{source: chat-logs, path: logs}}
stages: [normalize, label, score, polish]
"""


def run(*command, cwd, **environment):
    done = subprocess.run(
        [KUN_BUILD, *command], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", [kun_fineweb_zh, kun_chat_logs])
def test_a_plugin_is_a_short_file_that_opens_with_a_sample(module):
    """One row stands at the top, little code below it, and the card has its licence."""
    lines = Path(module.__file__).read_text("utf-8").splitlines()
    assert lines[2].startswith('{"')
    assert len(lines) < 80
    assert module.kun_api == 1
    assert all(source.license for source in module.kun_sources())


@pytest.mark.parametrize("name", ["fineweb-zh", "chat-logs"])
def test_the_example_is_a_recipe(tmp_path, name):
    """What `kun-build plugins NAME` shows as an example is taken by `kun-build plan`."""
    (shown,) = run("plugins", name, "--json", cwd=tmp_path)
    assert shown["package"] == "kun-builder"
    (tmp_path / "data").mkdir()
    for kind in ("parquet", "jsonl"):
        (tmp_path / "data" / f"part.{kind}").touch()
    (tmp_path / "recipe.yaml").write_text(f"models: {{chat: {{}}}}\n{shown['example']}\n", "utf-8")
    assert run("plan", "--json", cwd=tmp_path)


@pytest.mark.slow
def test_build(tmp_path, monkeypatch):
    """A build of both keeps what has a score and what is an answer; the rest is in the funnel with its reason."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "logs").mkdir()
    pages = [{"text": f"第{n}页：被子要在晴天的上午摊开来晒。", "score": n / 10, "source": "CCI3"} for n in range(10)]
    pq.write_table(pa.Table.from_pylist(pages), tmp_path / "pages/0.parquet")
    turns = [{"role": "assistant", "content": f"第{n}次：鸡蛋羹要用小火蒸十分钟。"} for n in range(3)]
    lines = [{"messages": turns}, {"response": None, "error": {"code": "batch_expired"}}]
    (tmp_path / "logs/a.jsonl").write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    with agreeable() as url:
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(url=url), "utf-8")
        report = run("--json", cwd=tmp_path, KUN_CACHE=str(tmp_path / "cache"))
    read = {name: split["stages"][0] for name, split in report["splits"].items()}
    assert read["web"]["dropped"] == {"low_score": 6}
    assert read["logs"]["quarantined"] == {"no_chat": 1}
    from datasets import load_dataset

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    loaded = load_dataset(str(next((tmp_path / "runs").iterdir()) / "dataset"), cache_dir=str(tmp_path / "hf"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"web": 4, "logs": 3}
    assert sorted(loaded["logs"]["output"]) == [turn["content"] for turn in turns]
