"""Shards, the local executor and the result folder: finished work is never done again, and nothing is lost."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kun_builder import BatchStage, DatasetStage, drop_rows
from kun_builder.drops import VERDICT
from kun_builder.errors import PluginError
from kun_builder.recipe.registry import Plugin
from kun_builder.run.dataset_stage import run_dataset_stage
from kun_builder.run.executors.base import Task
from kun_builder.run.executors.batches import quiet_datasets, run_batch
from kun_builder.run.executors.local import LocalExecutor
from kun_builder.run.folder import DatasetWriter, RunFolder, rejected_schema, write_rejected
from kun_builder.run.line import Line
from kun_builder.run.plan import Segment, Step
from kun_builder.run.shards import Shard, read_record, write_empty
from kun_builder.run.worker import make_job
from kun_builder.status import Status

quiet_datasets()

OWNER = Plugin("test", "test-package", "1")
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "split", "text", "instruction", "output")]
    + [(name, pa.string()) for name in VERDICT]
)


def shard(folder, number, rows, split="wudao"):
    path = folder / "read" / f"{split}-{number:05d}.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_empty(path, SCHEMA)
    values = [
        {"id": f"{split}/f:{number}-{row}", "split": split, "text": str(row), "instruction": "问", "output": f"答{row}"}
        for row in range(rows)
    ]
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(values, schema=SCHEMA))
    return Shard(split, number, path, f"key{number}", rows)


def drop_odd(table):
    with open(table["text"].to_pylist()[0] + ".calls", "a") as calls:  # which shards were computed, seen from outside
        calls.write("x")
    return drop_rows(
        table, [int(text) % 2 == 1 for text in table["text"].to_pylist()], "odd", table["text"].to_pylist()
    )


def segment(kind, *stages, measure=False):
    return Segment(kind, tuple(Step(stage.name, stage, {}, OWNER, measure=measure) for stage in stages))


def odd_task(tmp_path, part):
    job = make_job(segment("batches", BatchStage(name="odd", run=drop_odd)), SCHEMA)
    return Task(part, tmp_path / "odd" / f"{part.number}.arrow", f"{part.key}-odd", job)


def records_of(tasks, status):
    """The records of tasks that come one by one, by their numbers."""
    with Line() as line:
        return dict(LocalExecutor(status, load=int).run(line.ahead(tasks), rows=False))


def computed(task):
    """The record of one task, computed if need be."""
    return records_of([task], Status())[0]


def test_a_finished_shard_is_not_computed_again(tmp_path, monkeypatch):
    """The second run of a task reads the record of the first and calls no stage."""
    monkeypatch.chdir(tmp_path)
    task = odd_task(tmp_path, shard(tmp_path, 0, 5))
    first = computed(task)
    assert (first.alive, first.rows) == (3, 5)
    assert computed(task) == first
    assert (tmp_path / "0.calls").read_text() == "x"


def test_a_shard_without_its_record_is_computed_again(tmp_path, monkeypatch):
    """A crash between a shard and its record leaves a shard that does not count."""
    monkeypatch.chdir(tmp_path)
    task = odd_task(tmp_path, shard(tmp_path, 0, 5))
    first = computed(task)
    task.output.with_suffix(".json").unlink()
    assert read_record(task.output, task.key) is None
    assert computed(task) == first
    assert (tmp_path / "0.calls").read_text() == "xx"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"\0" * len(data),
        lambda data: data.replace("答".encode(), b"\xff\xff\xff", 1),
        lambda data: data.replace("答".encode(), "签".encode(), 1),
    ],
)
def test_a_damaged_shard_is_computed_again(tmp_path, monkeypatch, damage):
    """What a full disk, a broken copy or a bad disk has left of a shard does not count, though its record is there."""
    monkeypatch.chdir(tmp_path)
    task = odd_task(tmp_path, shard(tmp_path, 0, 5))
    first, whole = computed(task), task.output.read_bytes()
    task.output.write_bytes(damage(whole))
    assert read_record(task.output, task.key) is None
    assert computed(task) == first
    assert task.output.read_bytes() == whole


def test_a_damaged_record_does_not_count(tmp_path, monkeypatch):
    """A count or a digest with another digit is noticed; a record of an earlier version, without digest, counts."""
    monkeypatch.chdir(tmp_path)
    task = odd_task(tmp_path, shard(tmp_path, 0, 5))
    first, path = computed(task), task.output.with_suffix(".json")
    whole = path.read_bytes()
    for damaged in (whole.replace(b'"alive":3', b'"alive":2'), whole[:-9], whole.replace(b'"dropped"', b'"dropqed"')):
        assert damaged != whole
        path.write_bytes(damaged)
        assert read_record(task.output, task.key) is None
    old = {name: value for name, value in json.loads(whole).items() if name not in ("digest", "seal")}
    path.write_text(json.dumps(old))
    assert read_record(task.output, task.key) == first


@pytest.mark.parametrize("name", ["0.arrow", "0.json"])
def test_a_shard_with_any_byte_changed_is_computed_again(tmp_path, monkeypatch, name):
    """The shard itself, or the record beside it, unless it still says all that was to be said."""
    monkeypatch.chdir(tmp_path)
    task = odd_task(tmp_path, shard(tmp_path, 0, 5))
    first = computed(task)
    known = (None, first) if name == "0.json" else (None,)
    file = task.output.with_name(name)
    whole = file.read_bytes()
    for at in range(0, len(whole), 3):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert read_record(task.output, task.key) in known
    file.write_bytes(whole)
    assert read_record(task.output, task.key)


def test_an_empty_shard_passes(tmp_path):
    """A shard without living rows is written with its schema, so that the next stage can read it."""
    task = odd_task(tmp_path, shard(tmp_path, 0, 0))
    assert run_batch(task).rows == 0
    assert Shard("wudao", 0, task.output, "k", 0).living().column_names == [
        "id",
        "split",
        "text",
        "instruction",
        "output",
    ]


@pytest.mark.slow
def test_many_shards_run_in_processes(tmp_path, monkeypatch):
    """Records come back with the numbers of their tasks, whichever process computed them, and are counted once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kun_builder.run.executors.batches.SMALL", 0)
    status = Status()
    tasks = [odd_task(tmp_path, shard(tmp_path, number, number)) for number in range(1, 8)]
    records = records_of(tasks, status)
    assert [records[number].rows for number in range(7)] == list(range(1, 8))
    assert status.drops["odd: odd"] == sum(number // 2 for number in range(1, 8))


def test_a_dataset_stage_drops_rows_by_file_position_and_is_not_run_twice(tmp_path):
    """Row numbers count the living rows over all shards; the verdict is kept and read again under the same key."""
    runs = []

    def third(dataset):
        runs.append(len(dataset))
        return [(row, "third", row) for row in range(len(dataset)) if row % 3 == 2]

    step = segment("dataset", DatasetStage(name="third", run=third)).steps[0]
    parts = [shard(tmp_path, 0, 4), shard(tmp_path, 1, 0), shard(tmp_path, 2, 3, split="skypile")]
    cut, counts = run_dataset_stage(step, parts, "k", tmp_path / "third")
    again, _ = run_dataset_stage(step, parts, "k", tmp_path / "third")
    assert cut == again
    assert runs == [7]
    verdicts = tmp_path / "third/k.json"
    verdicts.write_bytes(verdicts.read_bytes().replace(b"[2,", b"[1,", 1))  # damaged
    assert run_dataset_stage(step, parts, "k", tmp_path / "third")[0] == cut
    assert runs == [7, 7]
    verdicts.write_text(json.dumps(json.loads(verdicts.read_bytes())["cuts"]))  # as earlier versions wrote it
    assert run_dataset_stage(step, parts, "k", tmp_path / "third")[0] == cut
    assert [part.alive for part in cut] == [3, 0, 2]
    assert runs == [7, 7]
    assert [part.table()["id"].to_pylist() for part in cut] == [
        ["wudao/f:0-0", "wudao/f:0-1", "wudao/f:0-3"],
        [],
        ["skypile/f:2-0", "skypile/f:2-2"],
    ]
    assert all(count.adds_up for count in counts.values())
    assert cut[0].dead().select(["id", "_stage", "_reason", "_value"]).to_pylist() == [
        {"id": "wudao/f:0-2", "_stage": "third", "_reason": "third", "_value": "2"}
    ]


@pytest.mark.parametrize("said", [[(9, "far", 0)], [(0, "a", 0), (0, "b", 0)], [(-1, "near", 0)]])
def test_a_dataset_stage_that_names_wrong_rows_is_named(tmp_path, said):
    """A row number that is not there, or is there twice, stops the run with the stage's name."""
    step = segment("dataset", DatasetStage(name="wrong", run=lambda dataset: said)).steps[0]
    with pytest.raises(
        PluginError,
        match=r"stage `wrong` of plugin `test` \(test-package\) named a row twice, or one that is not there",
    ):
        run_dataset_stage(step, [shard(tmp_path, 0, 3)], "k", tmp_path / "wrong")


LOAD = """
import json, sys
from datasets import load_dataset
path = sys.argv[1]
whole = load_dataset(path)
print(json.dumps({
    "columns": whole["wudao"].column_names,
    "rows": {split: part.num_rows for split, part in whole.items()},
    "first": load_dataset(path, split="wudao")[0],
    "provenance": load_dataset(path, "provenance", split="wudao").column_names,
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_load_dataset_reads_the_result_in_a_fresh_process(tmp_path, file_format):
    """`load_dataset(path)` and `load_dataset(path, split=...)` give the splits with exactly two string columns."""
    folder = RunFolder(tmp_path / "run")
    writer = DatasetWriter(folder, file_format)
    steps = {"steps": [{"stage": "x"}]}
    assert writer.write_split("wudao", [shard(tmp_path, 0, 2), shard(tmp_path, 1, 1)], steps, withheld=False) == 3
    assert writer.write_split("skypile", [shard(tmp_path, 0, 1, split="skypile")], steps, withheld=False) == 1
    writer.finish()
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder.dataset)], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "columns": ["instruction", "output"],
        "rows": {"wudao": 3, "skypile": 1},
        "first": {"instruction": "问", "output": "答0"},
        "provenance": ["id", "split", "text", "instruction", "output", "steps"],
    }
    if file_format == "jsonl":
        assert (folder.dataset / "skypile.jsonl").read_text("utf-8") == '{"instruction":"问","output":"答0"}\n'


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_text_that_may_not_be_passed_on_is_kept_outside_the_publishable_folder(tmp_path, file_format):
    """A withheld split has its text in kept/, and nowhere in dataset/; another one has it in both."""
    folder = RunFolder(tmp_path / "run")
    writer = DatasetWriter(folder, file_format)
    for split in ("closed", "open"):
        writer.write_split(split, [shard(tmp_path, 0, 2, split=split)], {}, withheld=split == "closed")
    writer.finish()
    for split in ("closed", "open"):
        (file,) = (folder.dataset / "provenance").glob(f"{split}*")
        rows = (
            pq.read_table(file).to_pylist()
            if file_format == "parquet"
            else [*map(json.loads, file.read_bytes().splitlines())]
        )
        kept = pq.read_table(folder.kept_files(split)[0]).to_pylist()
        assert [row["id"] for row in rows] == [row["id"] for row in kept]
        assert all(row["text"] for row in kept)
        assert all(("text" in row, "text_sha256" in row) == (split == "open", split == "closed") for row in rows)


def test_a_large_split_rolls_over_files_without_losing_a_row(tmp_path, monkeypatch):
    """Rows beyond the limit of a file go on in the next; the files are numbered as load_dataset and the Hub expect."""
    monkeypatch.setattr("kun_builder.run.folder.ROWS_PER_FILE", 4)
    folder = RunFolder(tmp_path / "run")
    writer = DatasetWriter(folder, "parquet")
    writer.write_split("wudao", [shard(tmp_path, number, 3) for number in range(4)], {}, withheld=False)
    writer.finish()
    files = sorted((folder.dataset / "data").iterdir())
    assert [file.name for file in files] == [f"wudao-0000{number}-of-00003.parquet" for number in range(3)]
    assert [pq.read_metadata(file).num_rows for file in files] == [4, 4, 4]


def test_rejected_rows_of_all_segments_are_in_one_file(tmp_path, monkeypatch):
    """A row that died early has nulls where later stages would have written."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "run")
    task = odd_task(tmp_path, shard(tmp_path, 0, 5))
    record = run_batch(task)
    done = Shard("wudao", 0, task.output, task.key, record.alive)
    wide = SCHEMA.insert(0, pa.field("score", pa.float64()))
    assert write_rejected(folder, "wudao", [done], rejected_schema(wide)) == 2
    rejected = pq.read_table(folder.rejected / "wudao.parquet")
    assert rejected.select(["score", "id", "_reason", "_value"]).to_pylist() == [
        {"score": None, "id": f"wudao/f:0-{row}", "_reason": "odd", "_value": str(row)} for row in (1, 3)
    ]
