"""Awkward machines: closed streams, other encodings, folders that cannot be written; each with a real process."""

import errno
import json
import multiprocessing
import os
import socket
import subprocess

import pytest
from places import KUN_BUILD
from servers.agreeable import agreeable

from kun_builder.cache import cache_folder
from kun_builder.cli.machine import explained
from kun_builder.errors import RunError
from kun_builder.run.executors.batches import can_share


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Runs a shell line beside a recipe over two rows; `KB` is the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    rows = [json.dumps({"text": f"{n}号文字，说的是第{n}件事情。"}, ensure_ascii=False) for n in range(2)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    (tmp_path / "plain").write_text("x")

    def run(line, **env):
        with agreeable() as url:
            (tmp_path / "recipe.yaml").write_text(
                f"name: small\nmodels: {{chat: {{endpoints: ['{url}'], model: agreeable}}}}\n"
                "splits: {web: {source: generic, path: rows.jsonl}}\nstages: [label, polish]\n"
            )
            line = line.replace("KB", str(KUN_BUILD))
            done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=100, env={**os.environ, **env})
        return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")

    return run


@pytest.mark.parametrize(
    ("line", "env"),
    [
        ("KB <&-", {}),
        ("KB >&-", {}),
        ("KB 2>&-", {}),
        ("KB <&- >&- 2>&-", {}),
        ("KB 2>/dev/full", {}),
        ("KB 2> >(true)", {}),
        ("KB", {"PYTHONIOENCODING": "latin-1"}),
        ("KB", {"PYTHONIOENCODING": "ascii:strict"}),
    ],
)
def test_streams_that_are_closed_or_take_few_characters_cost_nothing(shell, tmp_path, line, env):
    """The run is built and presented, and its exit status is 0."""
    status, said = shell(line, **env)
    assert status == 0, said
    assert "Traceback" not in said
    assert (tmp_path / "runs/small/report.html").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("KB --output plain", ("plain: File exists", "--output")),
        ("ulimit -f 1; KB", ("File too large", "ulimit -f")),
        ("ulimit -v 400000; KB", ("390 MiB of addresses", "ulimit -v unlimited")),
        ("KB --output plain/x", ("plain/x: Not a directory", "--output")),
        (f"KB --output {'x' * 300}", ("File name too long", "--output")),
        ("KUN_CACHE=plain/cache KB", ("plain/cache", "KUN_CACHE")),
    ],
)
def test_a_place_that_cannot_be_written_is_named_with_its_cure(shell, line, words):
    """One error line with the place and one hint; no traceback."""
    status, said = shell(line)
    assert status == 1
    assert "Error: " in said
    assert "Traceback" not in said
    assert all(word in said for word in words), said


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    """A container runs as a number that has no name and no home: one line with the cure, also beside another fault."""
    monkeypatch.delenv("KUN_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(RunError, match="has no home folder"):
        cache_folder()
    _, cure = explained(OSError(errno.EROFS, "Read-only file system", "/some/place"))
    assert "--output" in cure


def test_a_home_that_cannot_be_written_is_told_as_the_place_of_the_cache(monkeypatch):
    """It is a folder above the cache that could not be made."""
    monkeypatch.setenv("KUN_CACHE", "/home/me/.cache/kun-builder")
    _, cure = explained(OSError(errno.EROFS, "Read-only file system", "/home/me/.cache"))
    assert "KUN_CACHE" in cure


def test_a_folder_that_was_deleted_under_a_command_is_told(shell):
    """One line, and no traceback, where the current folder is gone."""
    status, said = shell("R=$PWD/recipe.yaml; mkdir gone; cd gone; rmdir ../gone; KB $R")
    assert status == 1
    assert "Error: the folder in which this was called is no longer there" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("line", ["KB <(cat recipe.yaml)", "cat recipe.yaml | KB build /dev/stdin", "KB build -"])
def test_a_recipe_out_of_a_pipe_is_refused_with_the_cure(shell, line):
    """It is needed twice, and a pipe gives it once."""
    status, said = shell(line)
    assert status == 1
    assert "a recipe is read more than once" in said
    assert "write it to a file" in said


def test_a_full_disk_is_said_and_a_fault_of_ours_is_not_called_one():
    """Errors of the machine have a cure; others are not explained away."""
    message, cure = explained(OSError(errno.ENOSPC, "x"))
    assert "No space left" in message
    assert "make room" in cure
    assert explained(OSError(errno.EINVAL, "x")) is None


def test_without_shared_locks_batches_run_in_one_process(monkeypatch):
    """Where the system has no semaphores, that is found out before processes are started."""
    assert can_share()

    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(multiprocessing.get_context("spawn"), "Lock", refuse, raising=False)
    assert not can_share()


OFFLINE = {"KUN_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": ""}


@pytest.mark.parametrize("command", ["KB", "KB plan --sample 2"])
def test_offline_means_tokenizers_too(shell, command):
    """With `KUN_OFFLINE` a tokenizer that is not here is an error at once, and nobody is asked for it."""
    line = f"sed -i 's/\\[label/[{{length: {{tokenizer: org\\/nowhere}}}}, label/' recipe.yaml; {command}"
    with socket.create_server(("127.0.0.1", 0)) as hub:
        status, said = shell(line, **{**OFFLINE, "HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}"})
        hub.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has come
            hub.accept()
    assert status == 1
    assert "org/nowhere" in said
    assert "Traceback" not in said


def test_characters_are_a_tokenizer_of_a_model(shell):
    """`tokenizer: characters` on a model whose own cannot be had counts characters, as the hint of that error says."""
    status, said = shell("sed -i 's/\\[label/[{length: {min_tokens: 2}}, label/' recipe.yaml; KB", **OFFLINE)
    assert status == 1
    assert "no tokenizer can be had from agreeable" in said
    assert "`characters`" in said
    edit = "-e 's/\\[label/[{length: {min_tokens: 2}}, label/' -e 's/model: agreeable/&, tokenizer: characters/'"
    status, said = shell(f"sed -i {edit} recipe.yaml; KB", **OFFLINE)
    assert status == 0, said
    assert "2 read, 2 kept" in said


@pytest.mark.parametrize(
    "command", ["train label --seeds none.jsonl --output model", "evaluate label model", "align recipe.yaml"]
)
def test_training_without_its_extra_is_one_line_with_the_cure(shell, tmp_path, command):
    """Without the packages of the extra `train`, its commands say what is missing before they read anything."""
    block = "import sys\nsys.modules['trl'] = sys.modules['peft'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(block)
    status, said = shell(f"KB {command}", PYTHONPATH=str(tmp_path))
    assert status == 1
    assert "the extra `train`, of which peft, trl are not installed" in said
    assert 'pip install "kun-builder[train]"' in said
    assert len(said.splitlines()) == 2, said
