"""Builds whose run folder is in a bucket, on a real S3 server: what they leave there, and who goes on with it.

Another machine is another cache (`KUN_CACHE`), since nothing else of a run stays on a machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import fsspec
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem
from servers.llm_simulator import simulator
from simulated_builds import write_recipe

from kun_builder.cache import mirror_folder
from kun_builder.readers import remote
from kun_builder.run import mirror, remote_hold

SOON = {"EVERY": 0.2}, {"RENEW": 0.5, "STALE": 60.0, "SETTLE": 0.1}
PROGRAM = f"""
from kun_builder.run import mirror, remote_hold
vars(mirror).update({SOON[0]})
vars(remote_hold).update({SOON[1]})
from kun_builder.cli.main import main
main()
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Seconds are short here."""
    monkeypatch.setattr(remote, "PAUSES", (0.01,) * 2)
    for module, seconds in zip((mirror, remote_hold), SOON, strict=True):
        for name, value in seconds.items():
            monkeypatch.setattr(module, name, value)


@pytest.fixture
def cleaning(tmp_path):
    """A recipe that asks no model."""
    lines = [json.dumps({"text": f"第{number}篇，" * (number % 40)}, ensure_ascii=False) for number in range(200)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"splits: {{one: {{source: generic, path: '{tmp_path}/in.jsonl'}}}}\nstages: [normalize]\nshard_rows: 50\n"
    )
    return recipe


def asking(tmp_path, url):
    """A recipe with three requests a row, whose journal is where the run folder is."""
    folder = write_recipe(tmp_path / "asking", url, rows=60, shard_rows=15, model=", concurrency: 8")
    recipe = folder / "recipe.yaml"
    lines = recipe.read_text("utf-8").splitlines(keepends=True)
    recipe.write_text("".join(line for line in lines if not line.startswith("journal:")), "utf-8")
    return recipe


def data(files):
    """The data of a dataset, by the names of its files."""
    return {name: content for name, content in files.items() if name.startswith("dataset/") and "parquet" in name}


def test_a_run_at_an_address_is_the_run_in_a_folder(kun, cleaning, bucket, machine, tmp_path, monkeypatch):
    """The same bytes are at the address; other machines find the run finished, read it, and add what they say of it."""
    address, objects = bucket
    machine("local")
    assert kun(cleaning, "--output", tmp_path / "local")[0] == 0
    machine("one")
    code, _, err = kun(cleaning, "--output", address)
    assert code == 0, err
    there = objects()
    assert data(there) == data(
        {
            str(path.relative_to(tmp_path / "local")): path.read_bytes()
            for path in (tmp_path / "local").rglob("*.parquet")
        }
    )
    assert {"report.json", "report.html", "recipe.lock.yaml", ".kun-build.json", "kept/one-00000-of-00001.parquet"} <= {
        *there
    }
    assert "holder.json" not in there
    machine("two")
    code, _, err = kun(cleaning, "--output", address)
    assert code == 0
    assert "nothing to do" in err
    machine("three")
    assert kun("report", address, "--no-open")[0] == 0
    assert not list(mirror_folder(address).glob("shards/*"))
    id = pq.read_table(mirror_folder(address) / "kept")["id"][0].as_py()
    code, out, _ = kun("explain", address, id)
    assert code == 0
    assert out.startswith(id)
    code, _, err = kun("export", address, "--shape", "pairs", "--output", tmp_path / "pairs")
    assert code == 1
    assert "holds texts and no pairs" in err
    monkeypatch.setattr("kun_builder.hub.push.check_access", lambda *args, **kwargs: None)  # there is no Hub here
    code, _, err = kun("push", address, "lab/new", "--dry-run")
    assert code == 1
    assert "the dataset is the text of these sources" in err
    assert data(objects()) == data(there)


def test_another_machine_goes_on_where_one_died(kun, bucket, machine, tmp_path):
    """While the first one lives, it is named to others. What it had answered is not asked again, but for the last
    moment; the rows are those of a run that nothing happened to."""
    address, objects = bucket
    with simulator(slots=8, speed=20) as server:
        whole = asking(tmp_path, server.url)
        machine("whole")
        assert kun(whole, "--output", tmp_path / "whole", "--quiet")[0] == 0
        expected = {path.name: path.read_bytes() for path in (tmp_path / "whole/dataset/data").iterdir()}
    with simulator(slots=8, speed=3) as server:
        recipe = tmp_path / "asking/recipe.yaml"
        text = recipe.read_text("utf-8")
        recipe.write_text(text.replace(text.split('endpoints: ["')[1].split('"')[0], server.url), "utf-8")
        command = [sys.executable, "-c", PROGRAM, recipe, "--output", address, "--quiet"]
        env = {**os.environ, "KUN_CACHE": str(tmp_path / "dead")}
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)
        while not (server.counts()["answered"] > 60 and any(name.startswith("journal/") for name in objects())):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGSTOP)  # so that it does not go on while another process starts
        machine("other")
        code, _, err = kun(recipe, "--output", address, "--quiet")
        assert code == 1
        assert f"another kun-build (process {process.pid} on " in err
        process.kill()
        process.communicate()
        while server.counts()["in_flight"]:
            time.sleep(0.02)
        died = server.counts()["answered"]
        fs, place = fsspec.url_to_fs(f"{address}/holder.json")
        fs.pipe_file(place, json.dumps({**json.loads(fs.cat_file(place)), "time": time.time() - 99}).encode())
        code, _, err = kun(recipe, "--output", address, "--quiet")
        assert code == 0, err
        counts = server.counts()
    assert 60 < died < 180
    assert counts["different"] == 180
    assert counts["answered"] - counts["different"] < died / 2
    there = objects()
    assert {name[13:]: content for name, content in there.items() if name.startswith("dataset/data/")} == expected
    assert "holder.json" not in there


@pytest.fixture
def failing(monkeypatch):
    """A storage that refuses to take objects: the first so many of those with this in their key."""
    left, real = Counter(), S3FileSystem._put_file

    async def put(self, path, place, **kwargs):
        for part in +left:
            if part in place:
                left[part] -= 1
                raise OSError("the storage is full")
        await real(self, path, place, **kwargs)

    monkeypatch.setattr(S3FileSystem, "_put_file", put)
    return left


def test_storage_that_fails_in_passing_is_asked_again(kun, cleaning, bucket, machine, failing):
    """The run is as if nothing had been."""
    address, objects = bucket
    machine("one")
    failing["kept/"] = 2
    code, _, err = kun(cleaning, "--output", address)
    assert code == 0, err
    assert not +failing
    assert {"report.json", "kept/one-00000-of-00001.parquet"} <= objects().keys()


def test_storage_that_fails_for_good_costs_nothing(kun, cleaning, bucket, machine, failing):
    """The error says where everything is; the same command goes on, and nothing is computed again."""
    address, objects = bucket
    machine("one")
    failing["kept/"] = 10**6
    code, _, err = kun(cleaning, "--output", address)
    said = " ".join(err.split())
    assert code == 1
    assert f"{address}/kept/one-00000-of-00001.parquet cannot be written: " in said
    assert "all that was made is on this machine, in " in said
    assert str(mirror_folder(address)) in said
    assert "the same command goes on from there" in said
    assert "Traceback" not in err
    assert "report.json" not in objects()
    failing.clear()
    code, _, err = kun(cleaning, "--output", address)
    assert code == 0, err
    assert "nothing to do" in err
    assert "report.json" in objects()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("https://example.org/run", "can only be read"),
        ("file:///srv/run", "give the path alone"),
        ("s3://key:secret@bucket/run", "keys come from the environment"),
        ("s3://", "names no folder"),
        ("bogus://bucket/run", "Protocol not known: bogus"),
    ],
)
def test_an_address_that_cannot_be_a_folder(kun, cleaning, machine, address, why):
    """It is said before anything is done, and no password is repeated."""
    machine("one")
    code, _, err = kun(cleaning, "--output", address)
    assert code in (1, 2)
    assert why in " ".join(err.split())
    assert "secret" not in err
    assert "Traceback" not in err


def test_a_bucket_that_is_not_there(kun, s3, cleaning, machine):
    """It is named before the first row is read."""
    machine("one")
    code, _, err = kun(cleaning, "--output", "s3://no-such-bucket-anywhere/mine")
    assert code == 1
    assert "s3://no-such-bucket-anywhere/mine/holder.json cannot be written: there is no such bucket" in err
