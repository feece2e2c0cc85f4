"""Stages on a Ray cluster of two nodes: the same rows as on one machine, whoever dies on the way."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest
from servers.batches import batch_api
from servers.llm_simulator import simulator
from simulated_builds import PLUGINS, build_command, dataset, on_disk, write_recipe

from kun_builder.errors import RunError, Stopped
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.run.executors import batches
from kun_builder.run.executors.rows import NEIGHBOURS
from kun_builder.run.mirror import mirrored
from kun_builder.run.runner import build
from kun_builder.status import Status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a worker's start takes seconds of a processor, of which a busy machine has few
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files and sockets to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROWS = 300


def recipe(folder, url, ray="", *, rows=ROWS, shard_rows=30, model="", more=""):
    """Batches before the requests; `ray` is the address of a cluster."""
    more += f"executor: ray\nray: {{address: '{ray}', actors: 2}}\n" if ray else ""
    return write_recipe(folder, url, rows=rows, shard_rows=shard_rows, before=["normalize"], model=model, more=more)


def built(folder, status):
    """The report of a build in this process."""
    registry = load_plugins([PLUGINS])
    return build(load_recipe(folder / "recipe.yaml", registry, output=folder / "run"), registry, status=status)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same run on one machine: its data, and the counts of its report."""
    with simulator(slots=64, speed=20) as server:
        folder = recipe(tmp_path_factory.mktemp("local") / "x", server.url)
        report = built(folder, Status())
    return dataset(folder), report.splits


@contextmanager
def under_way(folder):
    """A build in a thread of its own, which a test that fails does not leave behind: its status and its future."""
    said = []
    status = Status(say=said.append)
    with ThreadPoolExecutor(1) as pool:
        try:
            yield status, said, pool.submit(built, folder, status)
        except BaseException:
            status.ending = "the test failed"
            raise


def workers(node):
    """Processes of the row workers of a node."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [child for child in raylet.children(recursive=True) if child.name().startswith("ray::RowWork")]


def wait_for(what, seconds=300):
    """The first value of `what()` that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come")


def test_a_cluster_makes_the_same_rows(tmp_path, monkeypatch, cluster, local):
    """Two nodes give bit for bit what one machine gives, ask nothing twice, and both take part."""
    monkeypatch.setattr(batches, "SMALL", 0)
    status = Status()
    with simulator(slots=32, speed=12) as server:
        folder = recipe(tmp_path / "x", server.url, cluster.address)
        report = built(folder, status)
        counts = server.counts()
    assert (dataset(folder), report.splits) == local
    assert (counts["different"], counts["repeated"]) == (3 * ROWS, 0)
    assert (status.requests, status.in_flight, report.machine) == (3 * ROWS, 0, "2 nodes, 2 cores (Ray)")
    answered = [one["answered"] for one in report.serving["endpoints"]["chat"]]
    assert sum(answered) == 3 * ROWS
    assert min(answered) >= NEIGHBOURS * 30 * 3  # what each is given at first; who is quicker gets more
    assert sum(one["requests"] for one in report.serving["usage"]) == 3 * ROWS
    report.check()


def test_a_cluster_makes_the_same_rows_in_a_bucket(tmp_path, cluster, local, bucket, machine):
    """Run and journal are at an address, with what every worker has got; another machine finds the run finished, and,
    if it has to write it anew, every answer."""
    address, objects = bucket

    def at_address():
        registry = load_plugins([PLUGINS])
        made = load_recipe(folder / "recipe.yaml", registry, output=address)
        with mirrored(made, status := Status()):
            return build(made, registry, status=status), status

    with simulator(slots=64, speed=20) as server:
        folder = recipe(tmp_path / "x", server.url, cluster.address)
        lines = (folder / "recipe.yaml").read_text("utf-8").splitlines(keepends=True)
        (folder / "recipe.yaml").write_text("".join(line for line in lines if not line.startswith("journal:")), "utf-8")
        machine("first")
        report, _ = at_address()
        there = {name: content for name, content in sorted(objects().items()) if name.startswith("dataset/")}
        files = {name.rpartition("/")[2]: content for name, content in there.items() if name.endswith(".parquet")}
        assert (files, report.splits) == local
        assert len({name[:30] for name in objects() if name.startswith("journal/")}) > 1  # a log of each worker
        machine("second")
        assert at_address()[0].created == report.created
        (folder / "recipe.yaml").write_text(
            (folder / "recipe.yaml").read_text("utf-8").replace("shard_rows: 30", "shard_rows: 40")
        )
        assert at_address()[1].requests == 0
        counts = server.counts()
    assert (counts["different"], counts["repeated"]) == (3 * ROWS, 0)


def test_a_run_that_is_told_to_end_ends_in_order(tmp_path, cluster):
    """Nothing more is asked, what is under way is answered and counted, and all shards come to their end at once."""
    status = Status()
    with simulator(slots=8, speed=2) as server:
        folder = recipe(tmp_path / "x", server.url, cluster.address)

        def tell():
            wait_for(lambda: server.counts()["answered"] > 60)
            status.ending = "enough"

        told = threading.Thread(target=tell)
        told.start()
        with pytest.raises(Stopped, match="the run is not finished: enough"):
            built(folder, status)
        told.join()
        counts = server.counts()
    assert 60 < counts["answered"] < 3 * ROWS
    assert (status.requests, status.in_flight) == (counts["answered"], 0)


def test_a_budget_ends_a_run_and_a_larger_one_goes_on(tmp_path, cluster, local):
    """What all workers spend is counted, they ask nothing more when it is too much, and what was paid for is kept."""
    status = Status()
    with simulator(slots=4, speed=4) as server:
        folder = recipe(tmp_path / "x", server.url, cluster.address, more="budget: {tokens: 5e4}\n")
        with pytest.raises(RunError, match="the budget of the run is used up: tokens"):
            built(folder, status)
        answered = server.counts()["answered"]
        spent = json.loads((folder / "run/.spent.json").read_bytes())["tokens"]
        assert (status.requests, status.in_flight) == (answered, 0)
        assert spent == status.prompt_tokens + status.completion_tokens >= 50_000
        assert answered < 2 * ROWS
        here = (folder / "recipe.yaml").read_text("utf-8").partition("executor: ray")[0]
        (folder / "recipe.yaml").write_text(here, "utf-8")
        with pytest.raises(RunError, match="the budget of the run is used up: tokens"):
            built(folder, Status())
        assert server.counts()["answered"] == answered
    with simulator(slots=64, speed=20) as server:
        (folder / "recipe.yaml").write_text(re.sub('http://[^"]*', server.url, here).replace("5e4", "1e9"), "utf-8")
        report = built(folder, Status())
        assert server.counts()["answered"] == 3 * ROWS - answered
    assert (dataset(folder), report.splits) == local


def test_a_batch_api_gets_the_rows_of_all_shards_at_once(tmp_path, cluster):
    """One worker asks, whatever `actors` says, and has enough shards: each depth of requests is one batch."""

    def answer(body):
        said = f"{body['messages'][-1]['content'][-30:]}……"
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        return 200, {"choices": [{"message": {"content": said}, "finish_reason": "stop"}], "usage": usage}

    with batch_api(answer) as api:
        model = ", engine: openai-batch, linger: 600, poll: 0.1, concurrency: 60"
        folder = recipe(tmp_path / "x", api.url, cluster.address, rows=60, shard_rows=4, model=model)
        report = built(folder, Status())
        sizes = [len(api.files[batch["input_file_id"]].splitlines()) for batch in api.batches.values()]
    assert sizes == [60, 60, 60]
    assert report.splits["rows"].kept == 60


def test_a_worker_and_a_node_die(tmp_path, cluster, local):
    """Nothing is lost; only what was in flight on the dead one is asked again."""
    kills = []
    head, other = cluster.head_node, next(iter(cluster.worker_nodes))
    with simulator(slots=32, speed=2) as server:
        folder = recipe(tmp_path / "x", server.url, cluster.address)
        with under_way(folder) as (status, said, run):
            wait_for(lambda: server.counts()["answered"] > 60)
            kills.append(time.monotonic())
            [worker] = workers(head)
            worker.kill()
            wait_for(lambda: [line for line in said if "died" in line])
            at = server.counts()["answered"]
            wait_for(lambda: server.counts()["answered"] > at + 60)
            kills.append(time.monotonic())
            assert len(workers(other)) == 1
            cluster.remove_node(other, allow_graceful=False)
            run.result(400)
        counts, repeated = server.counts(), server.repeated()
    assert (dataset(folder), status.done, status.in_flight) == (local[0], ROWS, 0)
    assert sum("died and was started again on" in line for line in said) >= 2
    assert counts["different"] == 3 * ROWS
    # At most 64 rows' worth of answers, those of the last moments, had not been written down by the one that died.
    assert len(repeated) <= 2 * 64
    early = [at for at, _, _ in repeated if not any(-1.0 < kill - at < 3.0 for kill in kills)]
    assert not early, [kills, early]


def test_a_killed_driver_is_started_again(tmp_path, cluster, local):
    """A build whose own process is killed goes on where it was; what had been written down is not asked again."""
    with simulator(slots=32, speed=3) as server:
        folder = recipe(tmp_path / "x", server.url, cluster.address)
        command = build_command(folder)
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: server.counts()["answered"] > 200)
        orphans = [worker for node in (cluster.head_node, *cluster.worker_nodes) for worker in workers(node)]
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert orphans
        assert not psutil.wait_procs(orphans, timeout=300)[1]  # nobody needs to tell them
        wait_for(lambda: not server.counts()["in_flight"])
        killed, known = server.counts()["answered"], on_disk(folder)
        again = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=400)
        counts, repeated = server.counts(), server.repeated()
    assert again.returncode == 0, again.stderr
    assert dataset(folder) == local[0]
    assert counts["different"] == 3 * ROWS
    assert not [one for one in repeated if one.begins in known]
    # Each of 64 rows of each worker may have had an answer that was not on disk yet.
    assert killed - 2 * 64 <= len(known)
    assert len(repeated) == killed - len(known)
    assert all(one.number <= killed for one in repeated)
