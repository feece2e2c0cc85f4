"""A whole build against a server: what was asked is not asked again, and nothing is lost, whatever happens."""

import hashlib
import signal
import subprocess
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from places import KUN_BUILD, STAGES
from servers.llm_server import Faults
from servers.llm_simulator import simulator
from small_corpus import corpus

from kun_builder.errors import FatalError, ModelError, RecipeError
from kun_builder.models.journal.journal import Journal
from kun_builder.recipe.recipe import load_recipe
from kun_builder.result.finished import open_finished
from kun_builder.result.loading import check_loads
from kun_builder.result.present import write_presentation
from kun_builder.run.runner import build
from kun_builder.status import Status

pytestmark = pytest.mark.usefixtures("own_cache")

FAST = {"speed": 50.0}


def recipe_file(tmp_path, url, threshold=0.2, rows=40, shard_rows=16):
    corpus(tmp_path / "data", rows)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: three\nshard_rows: {shard_rows}\n"
        f"models: {{chat: {{engine: openai, endpoints: ['{url}'], wait: 5, revision: r1}}}}\n"
        "splits: {web: {source: lines, path: data/a.jsonl}}\n"
        f"plugins: {{dirs: ['{STAGES}']}}\n"
        f"stages: [clean, same, ask, {{judge: {{threshold: {threshold}}}}}, rewrite]\n",
        "utf-8",
    )
    return path


def built(path, registry, **options):
    recipe = load_recipe(path, registry, output=path.parent / "run")
    said = []
    report = build(recipe, registry, status=Status(say=said.append), **options)
    return report, said


def test_every_row_has_one_outcome_and_a_reason(tmp_path, registry):
    """Read, dropped, quarantined and kept rows add up, and each rejected row is in rejected/ with its reason."""
    with simulator(**FAST) as server:
        report, _ = built(recipe_file(tmp_path, server.url), registry)
    report.check()
    split = report.splits["web"]
    reasons = {
        (count.label, reason): rows
        for count in split.stages
        for reason, rows in {**count.dropped, **count.quarantined}.items()
    }
    assert reasons.pop(("judge", "low_score")) > 0
    assert reasons == {
        ("read", "broken_json"): 1,
        ("read", "no_text"): 1,
        ("clean", "bad"): 1,
        ("same", "duplicate"): 1,
    }
    rejected = pq.read_table(tmp_path / "run/rejected/web.parquet")
    assert split.read == 40 == split.kept + rejected.num_rows
    assert None not in rejected["_reason"].to_pylist()
    kept = pq.read_table(tmp_path / "run/dataset/data/web-00000-of-00001.parquet")
    assert kept.num_rows == split.kept
    assert kept.column_names == ["instruction", "output"]


def test_a_finished_run_does_nothing_and_says_so(tmp_path, registry):
    """Running again after success asks nobody anything, not even whether the server is there."""
    with simulator(**FAST) as server:
        first, _ = built(recipe_file(tmp_path, server.url), registry)
    second, said = built(tmp_path / "recipe.yaml", registry)
    assert second == first
    assert "nothing to do" in said[0]


@pytest.mark.parametrize(
    ("files", "damage"),
    [
        ("kept/*.parquet", Path.unlink),
        ("kept/*.parquet", lambda file: file.write_bytes(file.read_bytes()[:-9])),
        ("dataset/*/*.parquet", Path.unlink),
        ("dataset/*/*.parquet", lambda file: file.write_bytes(b"")),
    ],
)
def test_a_result_that_is_lost_or_damaged_is_written_again(tmp_path, registry, files, damage):
    """It comes from the finished shards: no model answers anything, though the run was finished."""
    with simulator(**FAST) as server:
        first, _ = built(recipe_file(tmp_path, server.url), registry)
        answered = server.counts()["different"]
        found = {file: file.read_bytes() for file in (tmp_path / "run").glob(files)}
        for file in found:
            damage(file)
        again, said = built(tmp_path / "recipe.yaml", registry)
        assert server.counts()["different"] == answered
    assert again.splits == first.splits
    assert {file: file.read_bytes() for file in found} == found
    assert not any("nothing to do" in line for line in said)


def test_a_finished_run_asks_again_at_other_endpoints(tmp_path, registry):
    """Without a revision, another address may be another model: it is asked who it is."""
    with simulator(**FAST) as server:
        built(recipe_file(tmp_path, server.url), registry)
    with simulator(**{**FAST, "model": "another/model"}) as server:
        report, said = built(recipe_file(tmp_path, server.url), registry)
    assert {model["id"] for model in report.models.values()} == {"another/model"}
    assert "nothing to do" not in " ".join(said)


def test_another_threshold_asks_no_model_again(tmp_path, registry):
    """A lower threshold lets more rows through; only their further stages are asked."""
    with simulator(**FAST) as server:
        before, _ = built(recipe_file(tmp_path, server.url, threshold=0.0), registry)
        asked = server.stats()["answered"]
        after, _ = built(recipe_file(tmp_path, server.url, threshold=0.5), registry)
        assert server.stats()["answered"] == asked
    assert 0 < after.splits["web"].kept < before.splits["web"].kept
    assert sum(usage.requests for usage in after.usage) == 0


def test_fresh_asks_again(tmp_path, registry):
    """`--fresh` ignores finished shards and the answers of earlier runs."""
    with simulator(**FAST) as server:
        first, _ = built(recipe_file(tmp_path, server.url), registry)
        asked = server.stats()["answered"]
        second, _ = built(tmp_path / "recipe.yaml", registry, fresh=True)
        assert server.stats()["answered"] == 2 * asked
    assert second.splits == first.splits


def test_a_changed_input_is_read_again(tmp_path, registry):
    """A file that has grown since the last run is read again; what it held before is not asked again."""
    with simulator(**FAST) as server:
        built(recipe_file(tmp_path, server.url, rows=40), registry)
        asked = server.stats()["answered"]
        report, _ = built(recipe_file(tmp_path, server.url, rows=48), registry)
        assert 0 < server.stats()["answered"] - asked <= 3 * 8
    assert report.splits["web"].read == 48


def test_rows_that_a_server_refuses_are_quarantined(tmp_path, registry):
    """A 400 on one input costs that row, with the server's word, and no other."""
    with simulator(**FAST, faults=Faults(rejected=0.1)) as server:
        report, _ = built(recipe_file(tmp_path, server.url), registry)
    rejected = pq.read_table(tmp_path / "run/rejected/web.parquet").to_pylist()
    refused = [row for row in rejected if row["_reason"] == "request_rejected"]
    assert refused
    assert all("400" in row["_value"] for row in refused)
    report.check()


def test_answers_still_to_come_are_known_while_rows_are_under_way(tmp_path, registry):
    """Before the first row is finished, and until the last one is, answers had and to come are three for each row."""
    status, seen = Status(), []
    ended = threading.Event()

    def figures():
        passages = list(status.passages.values())
        return (status.answers, status.done, status.total, [(one.come, one.left, one.answers) for one in passages])

    def watch():
        while not ended.wait(0.01):
            before, left = figures(), status.answers_left()
            if left is not None and figures() == before:  # nothing has changed while it was read
                seen.append((status.total, before[1], left + before[0]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with simulator(speed=8.0) as server:
            recipe = load_recipe(recipe_file(tmp_path, server.url, threshold=0), registry, output=tmp_path / "run")
            report = build(recipe, registry, status=status)
    finally:
        ended.set()
        watcher.join()
    assert report.splits["web"].kept == 36
    assert any(done == 0 for _, done, _ in seen)
    assert all(answers == pytest.approx(3 * rows, abs=6) for rows, _, answers in seen)  # rows are between two steps


def test_a_server_that_is_not_there_ends_the_run_before_anything_is_read(tmp_path, registry):
    """A model that nobody serves is an error with the address, and nothing has been spent."""
    path = recipe_file(tmp_path, "http://127.0.0.1:9")
    with pytest.raises((ModelError, FatalError), match=r"127\.0\.0\.1:9"):
        built(path, registry)
    assert not list((tmp_path / "run/shards").iterdir())


def test_a_recipe_that_makes_no_output_is_refused(tmp_path, registry):
    """A recipe whose stages add no `output` is an error before the first request."""
    path = recipe_file(tmp_path, "http://127.0.0.1:9")
    path.write_text(path.read_text("utf-8").replace(", rewrite]", "]"), "utf-8")
    with pytest.raises(RecipeError, match="no stage of the recipe adds `output`"):
        built(path, registry)


def test_a_run_without_survivors_still_loads(tmp_path, registry):
    """A split of which no row is kept is an empty split with its columns, not an error."""
    with simulator(**FAST) as server:
        report, _ = built(recipe_file(tmp_path, server.url, threshold=1.1), registry)
    assert report.splits["web"].kept == 0
    table = pq.read_table(tmp_path / "run/dataset/data/web-00000-of-00001.parquet")
    assert table.column_names == ["instruction", "output"]


def test_a_split_without_survivors_does_not_keep_the_others_from_loading(tmp_path, registry):
    """`datasets` cannot load a split without rows: its files are there, but the metadata does not name it."""
    with simulator(**FAST) as server:
        path = recipe_file(tmp_path, server.url)
        (tmp_path / "data/none.jsonl").write_text('{"text": null}\n', "utf-8")
        splits = "splits: {web: {source: lines, path: data/a.jsonl}, none: {source: lines, path: data/none.jsonl}}"
        path.write_text(path.read_text("utf-8").replace("splits: {web: {source: lines, path: data/a.jsonl}}", splits))
        report, _ = built(path, registry)
    write_presentation(tmp_path / "run")
    assert report.splits["none"].kept == 0 < report.splits["web"].kept
    for config in ("default", "provenance"):
        loaded = load_dataset(str(tmp_path / "run/dataset"), config, cache_dir=str(tmp_path / "cache"))
        assert {name: len(rows) for name, rows in loaded.items()} == {"web": report.splits["web"].kept}
    assert check_loads(open_finished(tmp_path / "run"))["default"] == {"web": report.splits["web"].kept}
    moved = (tmp_path / "run").rename(tmp_path / "[run]")  # where `load_dataset` itself finds nothing
    assert check_loads(open_finished(moved))["default"] == {"web": report.splits["web"].kept}


def start(tmp_path):
    command = [
        KUN_BUILD,
        str(tmp_path / "recipe.yaml"),
        "--output",
        str(tmp_path / "run"),
    ]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(tmp_path):
    run = start(tmp_path)
    error = run.communicate()[1]
    assert run.returncode == 0, error


def digests(folder):
    files = sorted(folder.rglob("*.parquet"))  # the card beside them tells of the run, which was another one
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, registry):
    """Digests of a run of 600 rows that nobody has stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, simulator(speed=50.0) as server:
        patch.setenv("KUN_CACHE", str(folder / "cache"))
        built(recipe_file(folder, server.url, rows=600, shard_rows=100), registry)
    return digests(folder / "run/dataset")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on(tmp_path, whole, how):
    """After kill -9 or Ctrl-C the next run asks for exactly what is not on disk, and ends with the same bytes."""
    with simulator(speed=10.0) as server:
        recipe_file(tmp_path, server.url, rows=600, shard_rows=100)
        run = start(tmp_path)
        while run.poll() is None and server.stats()["answered"] < 400:
            time.sleep(0.02)
        run.send_signal(how)
        error = run.communicate()[1]
        assert run.returncode == (130 if how is signal.SIGINT else -how), error
        if how is signal.SIGINT:
            assert "run the same command again" in error
        while server.counts()["in_flight"]:  # for a moment it goes on answering, to nobody
            time.sleep(0.02)
        on_disk, asked = Journal.open().stats().generations, server.stats()["answered"]
        finish(tmp_path)
        stats = server.stats()
        assert stats["answered"] - asked == stats["different"] - on_disk
    assert digests(tmp_path / "run/dataset") == whole
