"""Reading and what dataset stages divide, on all machines of a Ray cluster: the same rows as on one."""

from __future__ import annotations

import functools
import json
import os
import pickle
import random

import pytest
from simulated_builds import dataset

from kun_builder.errors import RunError, SourceError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import Cluster, load_recipe
from kun_builder.run import parts, workspace
from kun_builder.run.executors.ray_cluster import connected
from kun_builder.run.executors.ray_crew import RayCrew
from kun_builder.run.runner import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a worker's start takes seconds of a processor, of which a busy machine has few
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files and sockets to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LOAD = pickle.dumps(functools.partial(load_plugins, (), ()))
DIED = RunError("a process died")


@pytest.fixture
def at_work(cluster):
    """A function that opens a block in which the cluster's crew calls another; `shared` are files that all must see."""

    def opened(function, *shared):
        return RayCrew(LOAD, shared).at_work(function, 2, DIED)

    with connected(Cluster(address=cluster.address), ()):
        yield opened


BROKEN = """
from kun_builder.errors import SourceError
raise SourceError("a.jsonl is broken", hint="get it again")
"""
ONCE = """
import os
try:
    os.mkdir(path)
except FileExistsError:
    pass
else:
    os._exit(1)
"""


def test_functions_run_on_all_machines(at_work):
    """In processes of both nodes, with results in the futures."""
    with at_work(os.getppid) as submit:
        futures = [submit() for _ in range(8)]
        assert len({future.result(300) for future in futures}) == 2


def test_what_a_function_raises_is_told_as_ones_own(at_work):
    """An error for the user comes without a traceback of the other machine."""
    with pytest.raises(SourceError) as caught, at_work(exec) as submit:
        submit(BROKEN).result(300)
    assert (type(caught.value), caught.value.message, caught.value.hint) == (
        SourceError,
        "a.jsonl is broken",
        "get it again",
    )


def test_a_function_whose_worker_dies_is_called_again(at_work, tmp_path):
    """Once is bad luck; again and again ends the run with the crew's own error."""
    with at_work(exec) as submit:
        submit(ONCE, {"path": str(tmp_path / "called")}).result(300)
    assert (tmp_path / "called").exists()
    with pytest.raises(RunError, match="a process died"), at_work(os._exit) as submit:
        submit(1).result(300)


def test_a_machine_that_does_not_see_the_run_folder_is_named(at_work, tmp_path):
    """Before it does anything."""
    with (
        pytest.raises(RunError, match=r"not alike: on .* there is no .*/absent"),
        at_work(os.mkdir, tmp_path / "absent") as submit,
    ):
        submit(str(tmp_path / "made")).result(300)
    assert not (tmp_path / "made").exists()


def recipe(folder, more=""):
    folder.mkdir()
    draw = random.Random(7)
    characters = [chr(draw.randrange(0x4E00, 0x9000)) for _ in range(600)]
    texts = ["".join(draw.choices(characters, k=300)) for _ in range(90)]
    lines = [json.dumps({"text": draw.choice(texts)}, ensure_ascii=False) for _ in range(200)]
    (folder / "in.jsonl").write_text("\n".join(lines), "utf-8")
    (folder / "recipe.yaml").write_text(
        f"splits: {{rows: {{source: generic, path: {folder / 'in.jsonl'}}}}}\nstages: [dedup]\nshard_rows: 30\n{more}"
    )
    return folder


def test_reading_and_near_duplicates_are_divided_among_the_machines(tmp_path, monkeypatch, cluster):
    """Spans of a file and partitions of buckets: the same rows, drops and counts as from one process."""
    registry = load_plugins()

    def built(folder):
        report = build(load_recipe(folder / "recipe.yaml", registry, output=folder / "run"), registry)
        return dataset(folder), report.splits

    alone = built(recipe(tmp_path / "alone"))
    monkeypatch.setattr(parts, "SPAN", 20_000)
    monkeypatch.setattr(workspace, "_SMALL", 0)
    divided = []
    real = RayCrew.at_work
    monkeypatch.setattr(RayCrew, "at_work", lambda *args: divided.append(args[2]) or real(*args))
    assert built(recipe(tmp_path / "all", f"executor: ray\nray: {{address: '{cluster.address}'}}\n")) == alone
    assert alone[1]["rows"].kept < 100
    assert divided == [2, 2]  # reading, and the decisions of `dedup`; the keys of so few rows are one piece
