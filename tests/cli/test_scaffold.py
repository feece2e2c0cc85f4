"""`kun-build plugins new` writes packages that install, are found, pass their own tests and build a dataset."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from places import KUN_BUILD
from servers.agreeable import agreeable

from kun_builder.cli.scaffold import renamed

ROOT = Path(__file__).parents[2]


def run(*command, cwd, **environment):
    """Run a command to its end; what it printed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def scaffold(folder, name, kind):
    """A new package in `folder`, with its models on a server."""
    run(KUN_BUILD, "plugins", "new", name, "--kind", kind, cwd=folder)
    return folder / f"kun-{name}"


def served(package, url):
    """Ask the models of the package's recipe at a server."""
    path = package / "recipe.yaml"
    text = re.sub(r"chat: .*", f"chat: {{endpoints: ['{url}'], tokenizer: characters}}", path.read_text("utf-8"))
    path.write_text(text, "utf-8")


@pytest.mark.parametrize("kind", ["source", "stage", "engine", "command"])
def test_nothing_of_the_template_is_left(tmp_path, kind):
    """The new package has its own name everywhere, and a source is a module of at most 25 lines."""
    package = scaffold(tmp_path, "old-poems", kind)
    files = [path for path in package.rglob("*") if path.is_file()]
    assert {path.relative_to(package).as_posix() for path in files} >= {
        *("pyproject.toml", "README.md", "recipe.yaml", "kun_old_poems.py", "tests/test_old_poems.py"),
        "data/documents.jsonl",
    }
    for path in files:
        assert "example" not in path.read_text("utf-8").lower(), path
    if kind == "source":
        assert len((package / "kun_old_poems.py").read_text("utf-8").splitlines()) <= 25
    assert renamed("for an example: `example` of kun_example", "x-y") == "for an x-y: `x-y` of kun_x_y"


def test_wrong_name_and_full_folder(tmp_path):
    """A name that is none is wrong usage; a folder with something in it is left alone."""
    command = [KUN_BUILD, "plugins", "new", "Old Poems", "--kind", "source"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "`Old Poems` cannot name a plugin: use lower-case letters, digits and `-`" in done.stderr
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    command = [KUN_BUILD, "plugins", "new", "poems", "--kind", "source", "--dir", "there"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: there is not empty\nHint: give another folder with `--dir`\n"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["source", "stage", "command"])
def test_new_plugin_passes_its_tests_and_builds(tmp_path, kind):
    """As it stands, the package passes its tests, and its recipe makes a dataset of every sample document."""
    package = scaffold(tmp_path, "poems", kind)
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package, PYTHONPATH=".")
    with agreeable() as url:
        served(package, url)
        printed = run(KUN_BUILD, "--plugins-dir", ".", "--json", cwd=package, KUN_CACHE=str(tmp_path / "cache"))
    assert [split["kept"] for split in json.loads(printed)["splits"].values()] == [6]


@pytest.mark.slow
def test_new_engine_passes_its_tests_and_builds(tmp_path):
    """The engine's package brings a server to try it with; its recipe makes a dataset of what that answers."""
    package = scaffold(tmp_path, "poems", "engine")
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package, PYTHONPATH=".")
    server = subprocess.Popen([sys.executable, "tests/server.py"], cwd=package)
    try:
        printed = run(KUN_BUILD, "--plugins-dir", ".", "--json", cwd=package, KUN_CACHE=str(tmp_path / "cache"))
    finally:
        server.terminate()
        server.wait()
    (split,) = json.loads(printed)["splits"].values()
    assert split["kept"] == 6


TANG = '''\
"""Tang poems: CSV files in BIG5, in a zip file.

題目,作者,內容
靜夜思,李白,床前明月光，疑是地上霜。……
"""

import csv, io, zipfile
from itertools import islice
from kun_builder import Record, Source, hookimpl

def parse(record, *, title: bool = True):
    return "\\n".join([record["題目"], record["內容"]] if title else [record["內容"]])

def read(input, start):
    try:
        with zipfile.ZipFile(input) as archive:
            files = [io.TextIOWrapper(archive.open(name), "big5") for name in archive.namelist()]
            for index, row in islice(enumerate(row for file in files for row in csv.DictReader(file)), start, None):
                yield Record(index, row)
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
        yield Record(start, error=f"broken_file: {error}")

@hookimpl
def kun_sources():
    return [Source(name="tang", parse=parse, read=read, files=("*.zip",), license="public domain")]
'''
TEST = '''\
"""The poems."""

import kun_tang
from kun_builder.testing import check_source


def test_poems():
    """Every poem is read."""
    assert len(check_source(kun_tang.kun_sources()[0], "data")) == 3
'''
POEMS = """\
題目,作者,內容
靜夜思,李白,床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。
登鸛雀樓,王之渙,白日依山盡，黃河入海流。欲窮千里目，更上一層樓。
春曉,孟浩然,春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_stranger_reads_a_corpus_of_an_unusual_format(tmp_path):
    """In a fresh environment with the built wheel, a stranger's plugin for BIG5 CSV in zip is installed, passes its
    tests, builds, and the result loads."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT, cwd=tmp_path)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    (wheel,) = tmp_path.glob("*.whl")
    run(python, "-m", "pip", "install", "-q", "--no-compile", wheel, "pytest", cwd=tmp_path)
    kun_build = tmp_path / "venv/bin/kun-build"
    run(kun_build, "plugins", "new", "tang", "--kind", "source", cwd=tmp_path)
    package = tmp_path / "kun-tang"
    assert len(TANG.splitlines()) <= 25
    (package / "kun_tang.py").write_text(TANG, "utf-8")
    (package / "tests/test_tang.py").write_text(TEST, "utf-8")
    (package / "data/documents.jsonl").unlink()
    with zipfile.ZipFile(package / "data/poems.zip", "w") as archive:
        archive.writestr("poems.csv", POEMS.encode("big5"))
    run(python, "-m", "pip", "install", "-q", package, cwd=tmp_path)
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package)
    assert "kun-tang 0.1.0" in run(kun_build, "plugins", "tang", cwd=tmp_path)
    with agreeable() as url:
        served(package, url)
        run(kun_build, cwd=package, KUN_CACHE=str(tmp_path / "cache"))
    code = (
        "import kun_builder, datasets\n"
        "rows = datasets.load_dataset('runs/kun-tang/dataset', split='sample')\n"
        "print(kun_builder.__file__)\nprint(*rows['output'], sep='\\n')"
    )
    where, *outputs = run(python, "-c", code, cwd=package).splitlines()
    assert Path(where).is_relative_to(tmp_path / "venv")
    assert [line for line in outputs if "床前明月光" in line]
