"""What results depend on is in the key of what made them: plugins, prompts and the content of files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from servers.llm_simulator import simulator

from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.result.present import write_presentation
from kun_builder.run import source_shards
from kun_builder.run.plan import make_plan
from kun_builder.run.runner import build
from kun_builder.status import Status
from kun_builder.types import ModelInfo

PLUGIN = (Path(__file__).parents[1] / "stages/three.py").read_text("utf-8")
PASSAGE = "the quick brown fox jumps over the lazy dog and then it runs back home to sleep until noon"
OTHER = "a slow green turtle walks under the busy bridge and later it swims far away from us all today"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A plugins folder of its own, so that it can be changed, and a corpus."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/three.py").write_text(PLUGIN, "utf-8")
    texts = [PASSAGE, OTHER, *(f"第{number}段文字" for number in range(6))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return tmp_path


def load(stages, url="http://127.0.0.1:9"):
    """A recipe with these stages, and what it can name: both as a new process would have them."""
    Path("recipe.yaml").write_text(
        f"name: x\nmodels: {{chat: {{endpoints: ['{url}']}}}}\nsplits: {{web: {{source: lines, path: a.jsonl}}}}\n"
        f"plugins: {{dirs: [plugins]}}\nstages: {json.dumps(stages)}\n",
        "utf-8",
    )
    registry = load_plugins([Path("plugins")])
    return load_recipe(Path("recipe.yaml"), registry), registry


def keys(stages):
    """Keys of the segments."""
    return [segment.key({"chat": ModelInfo("m", "1")}) for segment in make_plan(*load(stages)).segments]


def rewrite(path, text):
    """Other content of the same size, at another time."""
    assert len(text) == path.stat().st_size
    changed = path.stat().st_mtime_ns + 10_000_000
    path.write_text(text)
    os.utime(path, ns=(changed, changed))


METHOD = ["ask", "judge", "rewrite"]


@pytest.mark.parametrize(
    ("stages", "changed"),
    [
        (["clean", {"decontaminate": {"benchmarks": ["file"]}}, "same", *METHOD], [True, False, False]),
        ([{"perplexity": {"model": "file"}}, *METHOD], [True, True, False]),
        (["clean", {"ask": {"prompt": "file"}}, "judge", "rewrite"], [False, True]),
    ],
    ids=["decontaminate", "perplexity", "prompt"],
)
def test_another_content_under_the_same_path_is_another_key(project, stages, changed):
    """Content counts, not its time: a file that was only touched changes nothing, another content its own step."""
    file = project / "file"
    file.write_text("[user]\nA {text}\n")
    before = keys(stages)
    rewrite(file, "[user]\nA {text}\n")
    assert keys(stages) == before
    rewrite(file, "[user]\nB {text}\n")
    assert [old != new for old, new in zip(before, keys(stages), strict=True)] == changed


def test_a_plugin_that_changed_has_other_keys(project):
    """The hash of a plugin's files is in the keys of its steps, and in no other's."""
    stages = ["normalize", "same", *METHOD]
    before = keys(stages)
    (project / "plugins/three.py").write_text(PLUGIN + "\n# changed\n", "utf-8")
    assert [old != new for old, new in zip(before, keys(stages), strict=True)] == [False, True, True]


def test_a_changed_list_is_used(project):
    """A build after the list of benchmarks changed drops what is on the new one; what was on the old one is kept."""
    file = project / "file"
    file.write_text(json.dumps({"question": OTHER}))
    stages = [{"decontaminate": {"benchmarks": ["file"]}}, *METHOD]
    dropped = []
    with simulator(speed=50.0) as server:
        for text in (OTHER, PASSAGE.ljust(len(OTHER))):
            rewrite(file, json.dumps({"question": text}))
            recipe, registry = load(stages, server.url)
            report = build(recipe, registry, status=Status())
            dropped.append(report.splits["web"].stages[1].dropped)
            rows = pq.read_table("runs/x/rejected/web.parquet").to_pylist()
            assert [row["text"] for row in rows if row["_reason"] == "contaminated"] == [text.strip()]
    assert dropped == [{"contaminated": 1}] * 2


def test_plugins_are_in_lock_report_and_card(project):
    """Name, version and hash of each plugin that took part are in recipe.lock.yaml, in the report and on the card."""
    with simulator(speed=50.0) as server:
        recipe, registry = load(["normalize", *METHOD], server.url)
        report = build(recipe, registry, status=Status())
    locked = yaml.safe_load((project / "runs/x/recipe.lock.yaml").read_text("utf-8"))["lock"]["plugins"]
    assert set(locked) == {"three", "kun-clean", "kun-openai"}
    content = PLUGIN.encode()
    digest = hashlib.sha256(f"three.py\0{len(content)}\0".encode() + content).hexdigest()[:16]
    assert locked["three"]["digest"] == digest
    assert (locked["kun-clean"]["package"], locked["kun-clean"]["version"]) == ("kun-builder", report.version)
    assert {step.plugin: step.digest for step in report.steps}["three"] == digest
    assert all(step.digest and step.package for step in report.steps)
    assert report.splits["web"].plugin == f"three {digest}"
    write_presentation(project / "runs/x")
    card = (project / "runs/x/dataset/README.md").read_text("utf-8")
    assert f"| read `web` | | `three {digest}` |" in card
    assert f"`kun-clean {report.version} {locked['kun-clean']['digest']}`" in card


def test_the_key_of_rows_as_read_is_of_their_values_alone():
    """How Arrow holds them makes no difference: within a longer table, or with bytes behind a null. It stays the same
    from version to version, so that shards of a folder that an earlier one has written are found again."""
    hidden = pa.StringArray.from_buffers(
        3, pa.py_buffer(np.array([0, 3, 6, 9], np.int32)), pa.py_buffer("一二三".encode()), pa.py_buffer(b"\5")
    )
    names, texts = pa.array(["甲", "乙丙", "丁"]), pa.array(["一", None, "三"])
    numbers, none = pa.array([0, None, 2], pa.int64()), pa.nulls(3, pa.string())
    for text in (texts, hidden):
        columns = [names, names, names, numbers, numbers, text, *[none] * 4]
        table = pa.table(columns, source_shards.SCHEMA)
        longer = pa.concat_tables([table, table, table]).combine_chunks()
        for same in (table, longer.slice(3, 3)):
            assert source_shards._digest(same) == "e72265b9e6810287c8e2906802ff3ea3"
    assert source_shards._digest(source_shards.SCHEMA.empty_table()) == "590ccb73c8a4de29c964c2b9942276ea"
