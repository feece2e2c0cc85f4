"""Reading, batches and rows at the same time: requests leave before the last record is read."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from places import STAGES
from servers.llm_simulator import simulator
from small_corpus import corpus

from kun_builder.errors import PluginError, SourceError, Stopped
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.run.plan import make_plan
from kun_builder.run.runner import build
from kun_builder.status import Status

SLOW = """
import time
from pathlib import Path
from kun_builder import Record, Source, hookimpl

kun_api = 1

def read(path, start, *, pause: float = 0.0, gate: int = 35):
    folder = Path(path).parent
    for number in range(start, 60):
        if number == gate:
            wait_for(folder / "gate")
        with (folder / "read").open("a") as log:
            print(number, file=log)
        time.sleep(pause)
        yield Record(number, {"text": f"第{number}篇"})

def wait_for(gate):
    for _ in range(12_000):
        if gate.exists():
            return
        time.sleep(0.01)
    raise TimeoutError("nobody opened the gate")

@hookimpl
def kun_sources():
    return [Source(name="slow", read=read, parse=lambda record: record["text"], license="CC0-1.0")]
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A function that writes a recipe whose source gives 60 records and waits before one of them."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/slow.py").write_text(SLOW, "utf-8")
    (tmp_path / "input").touch()

    def write(url, options="", stages="clean, ask, {judge: {threshold: 0.0}}, rewrite", more=""):
        (tmp_path / "recipe.yaml").write_text(
            f"name: slow\nshard_rows: 10\n"
            f"models: {{chat: {{engine: openai, endpoints: ['{url}'], wait: 5, revision: r1}}}}\n"
            f"splits: {{slow: {{source: slow, path: input{options}}}{more}}}\n"
            f"plugins: {{dirs: [plugins, '{STAGES}']}}\nstages: [{stages}]\n",
            "utf-8",
        )
        return tmp_path / "recipe.yaml"

    return write


def built(path, status=None):
    """The report of a build in this process."""
    registry = load_plugins([path.parent / "plugins", STAGES])
    return build(load_recipe(path, registry, output=path.parent / "run"), registry, status=status or Status())


def wait_for(what):
    """Wait until `what()` is true."""
    end = time.monotonic() + 110
    while not what():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.02)


def data(folder):
    """Bytes of the finished data and of what was rejected."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def test_models_are_asked_before_all_is_read(tmp_path, recipe):
    """The rows of shards that are on disk have all their answers while the reader still waits; in the end the result is
    the same as if it never had."""
    opened = []

    def open_gate():
        wait_for(lambda: server.counts()["answered"] >= 90)
        opened.append((status.reading.phase, status.reading.done, status.done))
        (tmp_path / "gate").touch()

    status = Status()
    with simulator(speed=50.0) as server:
        opener = threading.Thread(target=open_gate)
        opener.start()
        report = built(recipe(server.url), status)
        opener.join()
        whole = data(tmp_path / "run")
        (tmp_path / "run").rename(tmp_path / "first")
        again = built(tmp_path / "recipe.yaml")
    assert opened[0][:2] == ("read slow", 35)
    assert opened[0][2] <= 30
    assert (status.reading, status.done, status.total) == (None, 60, 60)
    assert report.splits["slow"].kept == 60
    assert report.splits == again.splits
    assert report.idle == {}
    assert data(tmp_path / "run") == whole


def test_a_build_killed_while_it_reads_and_asks_goes_on(tmp_path, recipe):
    """After kill -9 neither a shard that was read nor one that was answered is done again."""
    folder = tmp_path / "run"
    with simulator(speed=50.0) as server:
        path = recipe(server.url)
        command = [Path(sys.executable).with_name("kun-build"), path, "--output", folder, "--quiet"]
        killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for(lambda: len(list(folder.glob("shards/ask*/*.json"))) == 3 or killed.poll() is not None)
        killed.send_signal(signal.SIGKILL)
        _, said = killed.communicate()
        assert killed.returncode == -signal.SIGKILL, said
        before = {file: file.stat().st_mtime_ns for file in folder.glob("shards/*/*.arrow")}
        (tmp_path / "gate").touch()
        read = (tmp_path / "read").read_text().split()
        assert read == [str(number) for number in range(35)]
        (tmp_path / "read").unlink()
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=200)
        assert done.returncode == 0, done.stderr
        counts = server.counts()
    assert (tmp_path / "read").read_text().split() == [str(number) for number in range(30, 60)]
    assert len(before) == 9
    assert before == {file: file.stat().st_mtime_ns for file in before}
    assert (counts["different"], counts["repeated"]) == (180, 0)


def test_a_run_that_is_told_to_end_while_it_reads_waits_for_its_answers(tmp_path, recipe):
    """The reading ends, nothing more is asked, and what was asked is answered and counted."""
    status = Status()

    def tell():
        wait_for(lambda: server.counts()["answered"] > 20)
        status.ending = "enough"

    with simulator(speed=10.0, slots=8) as server:
        told = threading.Thread(target=tell)
        told.start()
        with pytest.raises(Stopped, match="enough"):
            built(recipe(server.url, ", pause: 0.2, gate: -1"), status)
        told.join()
        counts = server.counts()
    assert (status.requests, status.in_flight) == (counts["answered"], 0)
    assert 20 < counts["answered"] < 180
    assert len((tmp_path / "read").read_text().split()) < 60


def test_an_error_at_the_end_of_the_input_loses_no_answer(tmp_path, recipe, monkeypatch):
    """A source that fails at last ends the run by its name; when it is mended, what was answered is not asked again."""
    with simulator(speed=50.0) as server:
        path = recipe(server.url, ", gate: 35")
        plugin = tmp_path / "plugins/slow.py"
        plugin.write_text(SLOW.replace("wait_for(folder", "fail(folder") + _FAIL, "utf-8")
        with pytest.raises(PluginError, match=r"source `slow`.*the last file is bad"):
            built(path)
        answered = server.counts()["answered"]
        assert answered >= 90
        plugin.write_text(SLOW, "utf-8")
        (tmp_path / "gate").touch()
        report = built(path)
        counts = server.counts()
    assert report.splits["slow"].kept == 60
    assert (counts["different"], counts["repeated"]) == (180, 0)
    assert sum(usage.reused for usage in report.usage) == 0  # finished shards are taken as they are


_FAIL = """
def fail(gate):
    for _ in range(12_000):
        if len(list(gate.parent.glob("run/shards/ask*/*.json"))) == 3:
            raise OSError("the last file is bad")
        time.sleep(0.01)
"""


def test_a_source_that_does_not_fit_is_told_before_the_first_request(tmp_path, recipe):
    """The second split's source can use none of its records: nobody is asked about the first one."""
    corpus(tmp_path / "data")
    (tmp_path / "data/a.jsonl").write_text('{"title": "x"}\n' * 20, "utf-8")
    (tmp_path / "gate").touch()
    with simulator(speed=50.0) as server:
        with pytest.raises(SourceError, match="split `two`: source `lines` could not use any of 20 records"):
            built(recipe(server.url, ", pause: 0.03", more=", two: {source: lines, path: data/a.jsonl}"))
        assert server.counts()["attempts"] == 0


def test_servers_are_idle_by_design_until_a_stage_has_seen_all_rows(tmp_path, recipe):
    """Plan and report name the dataset stages that models wait for, and the report how long that was."""
    (tmp_path / "gate").touch()
    with simulator(speed=50.0) as server:
        path = recipe(server.url, stages="same, clean, ask, {judge: {threshold: 0.0}}, rewrite, {same: {scope: all}}")
        registry = load_plugins([tmp_path / "plugins", STAGES])
        plan = make_plan(load_recipe(path, registry), registry)
        report = built(path)
    assert [[segment.label for segment in stretch] for stretch in plan.stretches] == [
        [],
        ["same"],
        ["clean", "ask+judge+rewrite"],
        ["same-2"],
    ]
    assert [segment.label for segment in plan.barriers] == ["same"]
    assert [*report.idle] == ["same"]
    rounded = 0.002  # each of the times below is rounded to a millisecond
    assert report.phases["read"] + report.phases["same"] - rounded <= report.idle["same"]
    assert report.idle["same"] + report.phases["ask+judge+rewrite"] <= report.seconds + rounded


def test_a_recipe_without_a_barrier_is_one_stretch(tmp_path, recipe):
    """Batches and the rows behind them go together."""
    path = recipe("http://127.0.0.1:1", stages="clean, ask, judge, rewrite")
    registry = load_plugins([tmp_path / "plugins", STAGES])
    plan = make_plan(load_recipe(path, registry), registry)
    assert [[segment.kind for segment in stretch] for stretch in plan.stretches] == [["batches", "rows"]]
    assert plan.barriers == ()
