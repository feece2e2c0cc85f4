"""Before anything goes out, a fresh process tells whether `load_dataset` reads a finished run as its report says."""

from __future__ import annotations

import os

import pyarrow.parquet as pq
import pytest
from finished_runs import make_run

from kun_builder.errors import PublishError
from kun_builder.result.finished import open_run
from kun_builder.result.loading import check_loads

DATA = "dataset/data/wudao-00000-of-00001.parquet"


def rewrite(path, change):
    """Put what `change` makes of a Parquet file's table in its place."""
    table = change(pq.read_table(path).combine_chunks())
    path.unlink()
    pq.write_table(table, path)


def checked(run):
    """The error of the check."""
    with pytest.raises(PublishError) as refused:
        check_loads(open_run(run))
    return refused.value


def test_rows_of_each_configuration(tmp_path, monkeypatch):
    """The rows of every split are counted, also where a folder's name is a pattern and no link can be made."""
    run = make_run(tmp_path / "run [1]", {"wudao": 8, "skypile": 6})

    def refuse(*paths):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    rows = {"wudao": 8, "skypile": 6}
    assert check_loads(open_run(run)) == {"default": rows, "provenance": rows}


def test_a_run_without_rows(tmp_path):
    """Where no row was kept there is nothing to load, and the user is told where the reasons are."""
    refused = checked(make_run(tmp_path / "run", {"wudao": 0}))
    assert refused.message == "no row of the run was kept: there is nothing to publish"
    assert "rejected/" in refused.hint


def test_other_rows_than_the_report_says(tmp_path):
    """A configuration with fewer rows than were counted is named, with both numbers."""
    run = make_run(tmp_path / "run", {"wudao": 8})
    rewrite(run / DATA.replace("data/", "provenance/"), lambda table: table.slice(0, 5))
    said = "load_dataset finds {'wudao': 5} rows in provenance, but the report says {'wudao': 8}"
    assert checked(run).message == said


def test_other_columns_than_a_dataset_has(tmp_path):
    """The default configuration has the columns of a result, and no other."""
    run = make_run(tmp_path / "run", {"wudao": 8})
    rewrite(run / DATA, lambda table: table.append_column("text", table["output"]))
    said = "the columns of the dataset are {('instruction', 'output', 'text')}, not ('instruction', 'output')"
    assert checked(run).message == said


def test_a_file_that_nobody_can_read(tmp_path):
    """What `load_dataset` cannot read is told with the folder, its own last line, and the cure."""
    run = make_run(tmp_path / "run", {"wudao": 8})
    (run / DATA).write_bytes(b"PAR1 and no more PAR1")
    refused = checked(run)
    assert refused.message.startswith(f"load_dataset cannot read {run / 'dataset'}: ")
    assert "ArrowInvalid" in refused.message
    assert "run kun-build again" in refused.hint
