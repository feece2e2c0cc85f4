"""A run replaces nothing that no run has made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from finished_runs import make_run

from kun_builder.errors import RecipeError, RunError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.run.folder import RunFolder
from kun_builder.run.ownership import MARKER, NAMES, Ownership


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fresh", [False, True])
def test_stranger(tmp_path, name, fresh):
    """Whatever has the name of something that a run makes is named, and stays as it is."""
    (tmp_path / name / "read").mkdir(parents=True)
    (tmp_path / name / "read/mine.json").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(RunError, match=f"{name} would be replaced") as refused:
        RunFolder(tmp_path).begin(fresh=fresh)
    assert "--output" in refused.value.hint
    assert tree(tmp_path) == before


def test_link_to_elsewhere(tmp_path):
    """A link is somebody's, too, also where it leads nowhere."""
    (tmp_path / "dataset").symlink_to(tmp_path / "gone")
    with pytest.raises(RunError, match="dataset"):
        Ownership(tmp_path).check()


def test_appears_during_the_run(tmp_path):
    """What somebody puts there while a run is under way is not replaced at its end."""
    folder = RunFolder(tmp_path)
    folder.begin(fresh=False)
    (tmp_path / "kept").mkdir()
    with pytest.raises(RunError, match="kept would be replaced"):
        folder.owned.claim("kept", "dataset")
    folder.owned.claim("dataset")
    (tmp_path / "dataset").mkdir()
    folder.owned.claim("dataset")


def test_finished_run_from_before(tmp_path):
    """A finished run of an earlier version has no marker, and is known by its report."""
    run = make_run(tmp_path / "run", {"wudao": 3})
    RunFolder(run).begin(fresh=True)
    assert json.loads((run / MARKER).read_text())["written"] == sorted(NAMES)
    RunFolder(run).begin(fresh=True)


def test_unfinished_run_from_before(tmp_path):
    """A run of an earlier version that has only read so far goes on; not where somebody's dataset is beside it."""
    (tmp_path / "shards/read").mkdir(parents=True)
    (tmp_path / ".lock").write_text("1")
    (tmp_path / "dataset").mkdir()
    with pytest.raises(RunError, match=r"shards, .*dataset would be"):
        RunFolder(tmp_path).begin(fresh=False)
    (tmp_path / "dataset").rmdir()
    RunFolder(tmp_path).begin(fresh=False)


def test_damaged_marker(tmp_path):
    """A marker that cannot be read permits nothing."""
    (tmp_path / MARKER).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        RunFolder(tmp_path).begin(fresh=False)


def test_build_beside_a_strangers_dataset(tmp_path):
    """`--output .` in a folder with somebody's `dataset/` and `kept/` ends with an error, before a row is read."""
    for name in ("dataset", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')
    (tmp_path / "recipe.yaml").write_text(
        "models: {chat: {endpoints: ['http://127.0.0.1:9']}}\nsplits: {a: {source: generic, path: in.jsonl}}\n"
    )
    command = [Path(sys.executable).with_name("kun-build"), "recipe.yaml", "--output", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "dataset would be replaced" in done.stderr
    assert "Traceback" not in done.stderr
    assert {tree(tmp_path)[f"{name}/mine.txt"] for name in ("dataset", "kept")} == {b"mine"}
    assert not (tmp_path / "shards").exists()


def test_a_path_that_was_an_address_is_no_folder(tmp_path):
    """Where only folders are taken, an address is refused with the cure: `s3:` is no folder that appears instead. A
    journal at an address that cannot be written is told with its line."""
    (tmp_path / "recipe.yaml").write_text("splits: {a: {source: generic, path: in.jsonl}}\nstages: [normalize]\n")
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')
    registry = load_plugins()
    with pytest.raises(RunError, match="the run folder s3:/bucket/run is an address") as refused:
        load_recipe(tmp_path / "recipe.yaml", registry, output=Path("s3://bucket/run"))
    assert "--output" in refused.value.hint
    with (tmp_path / "recipe.yaml").open("a") as file:
        file.write("journal: https://example.org/kun\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml:3: `journal`: https://example.org/kun can only be read"):
        load_recipe(tmp_path / "recipe.yaml", registry)


def test_what_is_kept_at_addresses_is_worked_at_on_this_machine(tmp_path, own_cache):
    """Run folder and journal at addresses are folders of the cache; the journal of a run is beside it unless the recipe
    says where it is."""
    (tmp_path / "recipe.yaml").write_text("splits: {a: {source: generic, path: in.jsonl}}\nstages: [normalize]\n")
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')
    registry = load_plugins()
    recipe = load_recipe(tmp_path / "recipe.yaml", registry, output="s3://bucket/run/")
    assert (recipe.output_at, recipe.journal_at) == ("s3://bucket/run", "s3://bucket/run/journal")
    assert recipe.output.is_relative_to(tmp_path / "cache/mirrors")
    assert recipe.output.name == "run"
    assert recipe.journal.is_relative_to(tmp_path / "cache/mirrors")
    with (tmp_path / "recipe.yaml").open("a") as file:
        file.write("journal: hf://buckets/org/kun\n")
    recipe = load_recipe(tmp_path / "recipe.yaml", registry)
    assert (recipe.output_at, recipe.journal_at) == ("", "hf://buckets/org/kun")
    assert recipe.output == Path("runs") / recipe.name
