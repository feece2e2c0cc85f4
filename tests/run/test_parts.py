"""Inputs read by several processes: the same shards, bit for bit, as one process makes."""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kun_builder.errors import KunError
from kun_builder.recipe.parts import SplitSpec
from kun_builder.recipe.plugins import load_plugins
from kun_builder.run import crew as crew_module
from kun_builder.run import ingest as ingest_module
from kun_builder.run import parts
from kun_builder.run.crew import LocalCrew
from kun_builder.run.ingest import ReadSettings, ingest
from kun_builder.run.source_shards import run_table
from kun_builder.status import Status

LOAD = functools.partial(load_plugins, (), ())
CREW = LocalCrew(LOAD)


@pytest.fixture
def splits(tmp_path, monkeypatch):
    """Two splits: lines with dirt and an array in files; Parquet, and compressed lines."""
    monkeypatch.setattr(parts, "SPAN", 2000)
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [json.dumps({"text": f"第{number}篇，" * (number % 40)}, ensure_ascii=False) for number in range(400)]
    lines[7] = lines[211] = '{"text": "cut'
    lines[13] += "\r"
    (folder / "a.jsonl").write_text("\n".join(lines), "utf-8")
    (folder / "b.json").write_text("[" + ",".join(lines[20:60]) + "]", "utf-8")
    pq.write_table(pa.table({"text": [f"第{n}行" * 30 for n in range(90)]}), folder / "c.parquet", row_group_size=20)
    (folder / "d.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[:50]).encode()))
    sources = LOAD().sources
    return {
        "one": (SplitSpec("skypile", (str(folder / "a.jsonl"), str(folder / "b.json")), {}), sources["skypile"]),
        "two": (
            SplitSpec("generic", (str(folder / "c.parquet"), str(folder / "d.jsonl.gz")), {"text": "text"}),
            sources["generic"],
        ),
    }


def _read(splits, folder, crew=None, status=None):
    results = ingest(splits, ReadSettings(folder=folder, shard_rows=37, status=status or Status(), crew=crew))
    assert not list(folder.glob(".*"))
    return results, {path.name: path.read_bytes() for path in folder.iterdir()}


def test_several_processes_make_the_same_shards(tmp_path, splits, monkeypatch):
    """Files, spans of lines and row groups read side by side give the bytes that one process gives."""
    monkeypatch.setattr(crew_module, "cores", lambda: 3)
    used = []
    real = ingest_module.read_ahead
    monkeypatch.setattr(ingest_module, "read_ahead", lambda *args: used.append(len(args[0])) or real(*args))
    status = Status()
    alone, files = _read(splits, tmp_path / "alone")
    assert not used
    several, same = _read(splits, tmp_path / "several", CREW, status)
    assert used[0] > 10
    assert same == files
    assert [result.counts for result in several.values()] == [result.counts for result in alone.values()]
    assert status.reading.done == status.reading.total
    for name in [*files][::3]:  # a run that was killed goes on
        (tmp_path / "several" / name).unlink()
    for split in splits:
        (tmp_path / "several" / f"{split}.json").unlink(missing_ok=True)
    assert _read(splits, tmp_path / "several", CREW)[1] == files


def test_a_text_taken_as_it_is_makes_the_same_shards(tmp_path, splits):
    """A source that names its field gives the bytes that it gives when each record is handed to its `parse`."""
    dirt = b'\n{"text": null}\n{"text": " "}\n{"text": 7}\n{"title": "x"}\n{"text": "y"}'
    path = tmp_path / "in" / "a.jsonl"
    path.write_bytes(path.read_bytes() + dirt)
    slow = {
        name: (spec, replace(entry, value=replace(entry.value, verbatim=None)))
        for name, (spec, entry) in splits.items()
    }
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "run_table", lambda *run: taken.append(run) or run_table(*run))
        result, files = _read(splits, tmp_path / "fast")
        assert sum(len(texts) for _, _, texts in taken) > 400
        taken.clear()
        assert _read(slow, tmp_path / "slow")[1] == files
    assert not taken
    assert result["one"].counts.quarantined == {"broken_json": 2, "missing_field": 1, "text_not_string": 1}


def test_an_error_of_another_process_is_told_as_ones_own(tmp_path, splits, monkeypatch):
    """What ends the reading ends it with the same words, and leaves nothing behind but finished shards."""
    monkeypatch.setattr(crew_module, "cores", lambda: 2)
    said = []
    for crew in (None, CREW):
        wrong = {"two": (SplitSpec("generic", splits["two"][0].path, {"text": "{body}"}), splits["two"][1])}
        with pytest.raises(KunError) as caught:
            _read(wrong, tmp_path / str(bool(crew)), crew)
        said.append(caught.value.message)
    assert said[0] == said[1]


def test_one_large_file_that_cannot_be_cut_is_named(tmp_path, splits):
    """Where other processes could not help, the user is told why only one reads."""
    said = []
    status = Status(say=said.append)
    spec = SplitSpec("skypile", (str(tmp_path / "in" / "b.json"),), {})
    _read({"one": (spec, splits["one"][1])}, tmp_path / "out", CREW, status)
    assert "b.json is read by one process" in said[0]
