"""What README and CONTRIBUTING show works as it stands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from servers.agreeable import agreeable

import kun_builder
from kun_builder import readers, testing
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.run.plan import make_plan

ROOT = Path(__file__).parents[1]
POEMS = [
    {"title": "静夜思", "lines": ["床前明月光", "疑是地上霜", "举头望明月", "低头思故乡"]},
    {"title": "登鹳雀楼", "lines": ["白日依山尽", "黄河入海流", "欲穷千里目", "更上一层楼"]},
    {"title": "春晓", "lines": ["春眠不觉晓", "处处闻啼鸟", "夜来风雨声", "花落知多少"]},
]


def blocks(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_recipe_in_readme_is_valid(tmp_path, monkeypatch):
    """The recipe that README shows passes the checks that a build makes, with the built-in plugins."""
    monkeypatch.setenv("API_KEY", "planted")
    (recipe,) = blocks("README.md", "yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe, "utf-8")
    registry = load_plugins()
    plan = make_plan(load_recipe(path, registry), registry)
    assert plan.models == ("labeler", "chat")


@pytest.mark.slow
def test_contributing_from_nothing_to_a_dataset(tmp_path):
    """What it shows, saved under the names in the first lines, passes its commands; the dataset has every poem, and the
    wrapper keeps raw text here."""
    for language in ("python", "yaml"):
        for block in blocks("CONTRIBUTING.md", language):
            first, _, code = block.partition("\n")
            (tmp_path / first.removeprefix("# ")).write_text(code, "utf-8")
    (tmp_path / "poems.jsonl").write_text("".join(json.dumps(poem) + "\n" for poem in POEMS), "utf-8")
    changes = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "KUN_CACHE": str(tmp_path / "cache")}
    commands = [line[2:] for block in blocks("CONTRIBUTING.md", "console") for line in block.splitlines()]
    assert len(commands) == 3
    with agreeable() as url:
        commands[-1] += f" --endpoint {url}"
        model = tmp_path / "recipe.yaml"
        model.write_text(model.read_text("utf-8").replace("chat: {}", "chat: {tokenizer: characters}"), "utf-8")
        for command in commands:
            done = subprocess.run(
                command.split(), cwd=tmp_path, env={**os.environ, **changes}, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "runs/poems/report.json").read_text("utf-8"))
    assert report["splits"]["poems"]["kept"] == len(POEMS)
    assert report["splits"]["poems"]["redistributable"] is False
    assert report["splits"]["poems"]["plugin"].startswith("house ")
    assert len((tmp_path / "poems.py").read_text("utf-8").splitlines()) <= 20


def test_the_api_reference_is_up_to_date():
    """docs/api.md is what `make docs` would write now, and has every public name."""
    written = (ROOT / "docs/api.md").read_text("utf-8")
    assert subprocess.run([sys.executable, "docs/api.py"], cwd=ROOT, capture_output=True, text=True).stdout == written
    headings = re.findall(r"^### `(\w+)`$", written, re.MULTILINE)
    assert headings == [name for module in (kun_builder, readers, testing) for name in sorted(module.__all__)]


def test_contributing_is_short():
    """A newcomer reads it in one go."""
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) < 82
