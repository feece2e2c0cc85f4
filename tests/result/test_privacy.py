"""What runs leave behind is the user's own, and foreign text steers no terminal and draws no pictures in a card."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun_builder.cli.output import visible
from kun_builder.drops import RESULT_COLUMNS, VERDICT
from kun_builder.files import replace_file
from kun_builder.models.journal.journal import Journal
from kun_builder.result.markdown import inside_html, words
from kun_builder.run.folder import DatasetWriter, RunFolder, write_rejected
from kun_builder.run.shards import Shard


@pytest.fixture(autouse=True)
def open_umask():
    """The most open setting: nothing is private by luck."""
    before = os.umask(0)
    yield
    os.umask(before)


def others(path: Path) -> int:
    """Permissions of everybody but the user."""
    return stat.S_IMODE(path.stat().st_mode) & 0o077


def test_journal_is_private(tmp_path):
    """A journal that is made is its user's alone; one that is there keeps the permissions that somebody gave it."""
    Journal.open(tmp_path / "a/journal")
    assert others(tmp_path / "a/journal") == 0
    (tmp_path / "shared").mkdir(mode=0o770)
    Journal.open(tmp_path / "shared")
    assert others(tmp_path / "shared") == 0o070


def test_folders_with_text_are_private(tmp_path):
    """Shards and rejected rows, which have raw text, are in folders that others cannot enter."""
    import pyarrow as pa

    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.begin(fresh=False)
    write_rejected(folder, "a", [], pa.schema([(name, pa.string()) for name in RESULT_COLUMNS]))
    assert others(folder.shards) == others(folder.rejected) == 0


@pytest.mark.parametrize("withheld", [False, True])
def test_files_with_text_are_private_wherever_they_are_copied(tmp_path, withheld):
    """Rejected rows and texts that may not be passed on are in files of the user's alone; what may be is as usual."""
    import pyarrow as pa

    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    schema = pa.schema([(name, pa.string()) for name in ("id", "split", "text", *RESULT_COLUMNS, *VERDICT)])
    shard = Shard("a", 0, tmp_path / "a.arrow", "key", 1)
    with pa.OSFile(str(shard.path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        stream.write_table(
            pa.Table.from_pylist([{"id": "a/f:0", "text": "甲", "instruction": "问", "output": "答"}], schema)
        )
    writer = DatasetWriter(folder, "parquet")
    writer.write_split("a", [shard], {}, withheld=withheld)
    writer.finish()
    folder.rejected.mkdir()
    (folder.rejected / "a.parquet").write_bytes(b"of an earlier version, open to all")
    write_rejected(folder, "a", [shard], schema)
    assert others(folder.rejected / "a.parquet") == 0
    assert (others(folder.kept_files("a")[0]) == 0) == withheld
    published = sorted(folder.dataset.rglob("*.parquet"))
    assert [others(path) for path in published] == [0o066, 0o066]


def test_private_files(tmp_path):
    """The report is written for the user alone; a recipe that is edited is as open as the user makes files."""
    replace_file(tmp_path / "report.json", b"{}", private=True)
    replace_file(tmp_path / "recipe.yaml", b"{}")
    assert others(tmp_path / "report.json") == 0
    assert others(tmp_path / "recipe.yaml") == 0o066


@given(st.text())
def test_messages_steer_no_terminal(text):
    """Whatever a name or a server's words hold: no control character but line ends reaches the terminal."""
    assert all(c.isprintable() or c in "\n\t" for c in visible(text))


def test_name_with_an_escape_sequence(tmp_path):
    """A recipe whose name would clear the screen is named in an error that does not."""
    command = [Path(sys.executable).with_name("kun-build"), "plan", "\x1b[2J\x1b]0;owned\x07.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=200)
    assert done.returncode == 1
    assert b"\\x1b[2J" in done.stderr
    assert not {b"\x1b", b"\x07"} & {bytes([byte]) for byte in done.stderr + done.stdout}


@pytest.mark.parametrize("exists", [False, True])
def test_name_with_a_line_end(tmp_path, exists):
    """A line end in the name of a recipe or of its folder is escaped: no name looks like a message of ours."""
    folder = tmp_path / "a\nError: b"
    folder.mkdir()
    if exists:
        (folder / "c\nHint: d.yaml").write_text("models: 3\nwrong: 4\n")
    command = [Path(sys.executable).with_name("kun-build"), "plan", folder / "c\nHint: d.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert "a\\nError: b/c\\nHint: d.yaml" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith(("Error: b", "Hint: d"))]
    assert len([line for line in done.stderr.splitlines() if "d.yaml:" in line]) >= (2 if exists else 1)


@pytest.mark.parametrize("show", [words, inside_html])
def test_no_emoji_by_name(show):
    """`:smile:` in a corpus stays text in a card; times and addresses stay as they are."""
    assert ":smile:" not in show("so :smile: and :+1:")
    assert ":+1:" not in show("so :smile: and :+1:")
    assert "10:30:45" in show("at 10:30:45")
