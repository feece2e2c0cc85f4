"""Runs whose inputs are in a bucket: the rows are those of the same files on disk, and keys stay in the environment."""

from __future__ import annotations

import functools
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers.s3 import KEY, SECRET

from kun_builder import Source
from kun_builder.recipe.parts import SplitSpec
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.registry import Entry, Plugin
from kun_builder.run import crew as crew_module
from kun_builder.run import ingest as ingest_module
from kun_builder.run import parts
from kun_builder.run.crew import LocalCrew
from kun_builder.run.ingest import ReadSettings, ingest
from kun_builder.run.inputs import input_key
from kun_builder.run.source_shards import load_rows
from kun_builder.status import Status

LOAD = functools.partial(load_plugins, (), ())
CREW = LocalCrew(LOAD)


@pytest.fixture
def files(tmp_path):
    """Lines with dirt, packed lines and Parquet, in a folder."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    lines = [json.dumps({"text": f"第{number}篇，" * (number % 40)}, ensure_ascii=False) for number in range(400)]
    lines[7] = '{"text": "cut'
    (folder / "a.jsonl").write_text("\n".join(lines), "utf-8")
    (folder / "deep/b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[:50]).encode()))
    table = pa.table({"text": [f"第{n}行" * 30 for n in range(900)], "title": ["x" * (n % 90) for n in range(900)]})
    pq.write_table(table, folder / "c.parquet", row_group_size=100, compression="none")
    return folder


def _bucket(s3, name, folder):
    return s3.put(name, {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")})


def _ingest(paths, folder, crew=None):
    entry = LOAD().sources["generic"]
    splits = {"one": (SplitSpec("generic", tuple(paths), {"text": "text"}), entry)}
    result = ingest(splits, ReadSettings(folder=folder, shard_rows=99, status=Status(), crew=crew))["one"]
    return result, [load_rows(shard.path).to_pylist() for shard in result.shards]


def test_the_rows_of_a_bucket_are_those_of_a_folder(s3, files, tmp_path, monkeypatch):
    """Read by several processes in spans, the shards have the digests that one process makes of files; what did not
    change is not read again, and what did is, though size and name are the same."""
    monkeypatch.setattr(parts, "SPAN", 20_000)
    monkeypatch.setattr(crew_module, "cores", lambda: 2)
    address = _bucket(s3, "rows", files)
    local, rows = _ingest([str(files)], tmp_path / "local")
    used = []
    real = ingest_module.read_ahead
    monkeypatch.setattr(ingest_module, "read_ahead", lambda *args: used.append(len(args[0])) or real(*args))
    remote, same = _ingest([address], tmp_path / "remote", CREW)
    assert used[0] > 6
    assert same == rows
    assert [shard.key for shard in remote.shards] == [shard.key for shard in local.shards]
    again, _ = _ingest([address], tmp_path / "remote", CREW)
    assert (again, len(used)) == (remote, 1)
    changed = (files / "a.jsonl").read_bytes().replace("第9篇".encode(), "第8篇".encode())
    s3.client.put_object(Bucket="rows", Key="a.jsonl", Body=changed)
    anew, others = _ingest([address], tmp_path / "remote", CREW)
    assert (anew.key != remote.key, len(used)) == (True, 2)
    assert others != rows


def test_an_address_that_only_its_source_reads_is_left_to_it():
    """A source that finds its inputs itself may name them as it likes: nothing is asked of them."""
    source = Source(
        name="own", parse=lambda data: data, find=lambda path: [f"bogus://{path}"], read=lambda input, start: iter(())
    )
    assert input_key("one", SplitSpec("own", ("x",), {}), Entry(source, Plugin("test", "test")))


def test_a_build_from_a_bucket_shows_no_key(s3, files, tmp_path, kun, monkeypatch):
    """Rows, card and report are those of a build from files; the lock names the address, nothing has a key in it."""
    address = _bucket(s3, "build", files)
    monkeypatch.chdir(tmp_path)
    for name, path in (("local", files), ("remote", address)):
        (tmp_path / f"{name}.yaml").write_text(
            f"splits: {{one: {{source: generic, path: '{path}', license: cc0-1.0}}}}\nstages: [normalize]\n"
        )
        code, out, err = kun(f"{name}.yaml", "--output", f"runs/{name}")
        assert code == 0, err
        said = (
            out
            + err
            + "".join(
                path.read_bytes().decode("latin-1") for path in tmp_path.glob(f"runs/{name}/**/*") if path.is_file()
            )
        )
        assert KEY not in said
        assert SECRET not in said
    local, remote = (sorted((tmp_path / "runs" / name / "kept").glob("*")) for name in ("local", "remote"))
    assert [pq.read_table(path).to_pylist() for path in local] == [pq.read_table(path).to_pylist() for path in remote]
    assert f"- {address}\n" in (tmp_path / "runs/remote/recipe.lock.yaml").read_text()
    assert address not in "".join(path.read_text() for path in (tmp_path / "runs/remote/dataset").glob("*.md"))


def test_missing_keys_end_a_build_before_it_begins(s3, tmp_path, kun, monkeypatch):
    """The line of the recipe, the address and the variables are named."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        "splits:\n  one: {source: generic, path: 's3://nobody/x.jsonl'}\nstages: [normalize]\n"
    )
    code, _, err = kun("recipe.yaml")
    assert code == 1
    assert "recipe.yaml:2: s3://nobody/x.jsonl cannot be looked at: NoCredentialsError" in err
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in " ".join(err.split())
