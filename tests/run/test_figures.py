"""Figures of workers elsewhere in one status, and what travels to them."""

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest

from kun_builder import RowStage
from kun_builder.drops import VERDICT
from kun_builder.errors import RunError
from kun_builder.models.usage import LiveUsage
from kun_builder.models.window import Window
from kun_builder.recipe.registry import Entry, Plugin
from kun_builder.report import StepCounts
from kun_builder.run.executors.base import Task
from kun_builder.run.executors.figures import Figures, Merged
from kun_builder.run.executors.travel import PACKAGE, pack, pack_plugins, unpack
from kun_builder.run.plan import Segment, Step
from kun_builder.run.shards import Shard, ShardRecord
from kun_builder.run.worker import make_job
from kun_builder.status import Passage, Status

USAGE = asdict(LiveUsage())


def figures(incarnation, done, dropped, requests, in_flight=0):
    usage = [{**USAGE, "stage": "ask", "model": "chat", "requests": requests, "prompt_tokens": requests}]
    usage[0]["completion_tokens"] = 2 * requests
    counters = dict.fromkeys(("reused", "retries", "prompt_tokens", "completion_tokens"), 0)
    counters |= {"done": done, "requests": requests, "in_flight": in_flight}
    passages = {"ask": Passage(True, come=done, left=done, passed=done - dropped, answers=requests)}
    return Figures(incarnation, "node", counters, Counter({"ask: odd": dropped}), passages, usage)


def record(rows, dropped):
    counts = StepCounts(label="ask", stage="ask", rows_in=rows, rows_out=rows - dropped, dropped={"odd": dropped})
    return ShardRecord("k", rows - dropped, rows, (counts,))


class Paid:
    """A budget that remembers."""

    def __init__(self):
        self.tokens = 0

    def add(self, model, answer):
        self.tokens += answer.prompt_tokens + answer.completion_tokens


def test_rows_of_a_worker_that_dies_are_counted_once():
    """Rows whose shard came back count, those under way count anew; what was asked was asked, and is paid."""
    status, budget = Status(), Paid()
    merged = Merged(status, budget)
    assert not merged.take(0, figures("a", 12, 3, 20, in_flight=5))
    assert not merged.take(1, figures("b", 4, 1, 6, in_flight=2))
    assert (status.done, status.drops, status.in_flight) == (16, {"ask: odd": 4}, 7)
    merged.returned(0, record(10, 2))
    assert merged.take(0, figures("c", 1, 0, 2, in_flight=1))
    assert (status.done, status.drops, status.in_flight) == (10 + 1 + 4, {"ask: odd": 2 + 1}, 3)
    assert (status.requests, budget.tokens) == (28, 3 * 28)
    assert [(one["requests"], one["completion_tokens"]) for one in merged.usage()] == [(28, 56)]
    merged.returned(0, record(10, 1))
    merged.returned(1, record(10, 5))
    merged.settle()
    assert (status.done, status.drops) == (30, {"ask: odd": 8})
    assert status.passages["ask"].answers == 28


def test_windows_of_processes_that_share_an_endpoint_divide_it():
    """A fixed limit is divided, and so is the queue that a server tells; nobody is left without a request."""
    assert [Window(10, sharers=n).limit for n in (1, 3, 20)] == [10, 3, 1]
    one, shared = Window(clock=lambda: 0.0), Window(clock=lambda: 0.0, sharers=4)
    for window in (one, shared):
        window.tells()
    assert (one.limit, shared.limit) == (32, 8)
    for _ in range(8):
        shared.start()
    shared.queue(16)  # of which 4 are its own, beside 4 at work
    assert shared.limit == 8
    assert not shared.searching


class Registry:
    """The plugins of another machine."""

    def __init__(self, **stages):
        self.stages = stages


def closure():
    async def run(row, generate):
        return row

    return RowStage(name="ask", run=run)


def task(folder, stage):
    path = folder / "shard.arrow"
    path.touch()
    schema = pa.schema([(name, pa.string()) for name in ("id", "text", *VERDICT)])
    job = make_job(Segment("rows", (Step("ask", stage, {}, Plugin("test", "test", "1")),)), schema)
    return Task(Shard("s", 0, path, "k", 3), folder / "out.arrow", "key", job)


def test_a_task_takes_its_stages_from_the_plugins_over_there(tmp_path):
    """A stage that is a closure travels by its name; all else of the task comes as it was."""
    mine, theirs = closure(), closure()
    sent = task(tmp_path, mine)
    got = unpack(pack(sent), Registry(ask=Entry(theirs, Plugin("test", "test", "1"))))
    assert got.job.steps[0].stage is theirs
    assert replace(got, job=sent.job) == sent
    assert got.job.schema == sent.job.schema


def test_a_machine_that_lacks_something_is_named(tmp_path):
    """Another version of a plugin, or a file that is not seen there, ends the run with what is missing."""
    packed = pack(task(tmp_path, closure()), [str(tmp_path / "token")])
    with pytest.raises(
        RunError, match=r"not alike: on .* there is no .*token; stage `ask` is another one \(test 1, code"
    ):
        unpack(packed, Registry(ask=Entry(closure(), Plugin("test", "test", "1", path=Path(__file__)))))
    with pytest.raises(RunError, match="there is no stage `ask`"):
        unpack(packed, Registry())


def test_plugins_folders_travel_whole(tmp_path):
    """Two folders of one name keep apart; caches stay at home."""
    for number in (0, 1):
        folder = tmp_path / str(number) / "plugins"
        (folder / "__pycache__").mkdir(parents=True)
        (folder / "mine.py").write_text(str(number))
    package = pack_plugins([tmp_path / "0/plugins", tmp_path / "1/plugins"], tmp_path / "made")
    assert package == tmp_path / "made" / PACKAGE
    found = sorted(str(path.relative_to(package)) for path in package.rglob("*") if path.is_file())
    assert found == ["0/mine.py", "1/mine.py", "__init__.py"]
    assert Path(package / "1/mine.py").read_text() == "1"
    assert pack_plugins([], tmp_path) is None
