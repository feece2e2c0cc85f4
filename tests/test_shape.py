"""The shape of the code: floors, sizes, hooks and public names are what the documents say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import kun_builder
from kun_builder import hookspecs

ROOT = Path(kun_builder.__file__).parents[1]
FLOORS = """
    cache errors retry_after status types tables markdown measures page limits machine forms
    stats
    hookspecs prompts readers report metrics usage flaws
    ownership budget contract options journal cards plots verdicts
    engines plan report_page
    generation
    recipe rows
    plugins worker corpus
    ingest shards withhold
    executors folder dataset_stage testing
    shapes
    runner explain estimate hub review
    training presentation reproduce losses target
    evaluation
    align
    cli
"""  # a line imports only from the lines above it; files within a package are its own business
LEVEL = {name: level for level, line in enumerate(FLOORS.split("\n")) for name in line.split()}
ENGINE, PLUGINS = (sorted((ROOT / folder).rglob("*.py")) for folder in ("kun_builder", "plugins"))


def imports(path):
    """Units of the engine that a file imports, but for what only a type checker sees."""
    tree = ast.parse(path.read_text("utf-8"))
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    unseen = {id(node) for check in checks for node in ast.walk(check)}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and id(node) not in unseen]
    return {node.module.split(".")[1] for node in froms if (node.module or "").startswith("kun_builder.")}


def test_imports_go_down():
    """Every file of the engine has a floor and imports only from lower floors or its own package."""
    wrong = []
    for path in ENGINE:
        unit = path.relative_to(ROOT / "kun_builder").parts[0].removesuffix(".py")
        if unit != "__init__":
            assert unit in LEVEL, f"{unit} stands on no floor: add it to FLOORS, below all that it imports"
            wrong += [
                f"{path.name} imports {other}"
                for other in imports(path) - {unit}
                if LEVEL.get(other, 99) >= LEVEL[unit]
            ]
    assert not wrong


def test_plugins_know_nothing_of_the_runner():
    """What comes in `plugins/` uses the public names and the lowest floors, as a stranger's plugin would."""
    allowed = {"errors", "prompts", "readers", "tables", "types"}
    assert not {path.name: imports(path) - allowed for path in PLUGINS if imports(path) - allowed}


def test_files_are_small():
    """No file is over 350 lines."""
    assert not [path for path in ENGINE + PLUGINS if len(path.read_text("utf-8").splitlines()) > 350]


def test_hooks_are_documented_and_fit_a_screen():
    """There are three hooks with one prefix, each with a sentence, in a file of one screen."""
    hooks = {name: value for name, value in vars(hookspecs).items() if hasattr(value, "kun_builder_spec")}
    assert sorted(hooks) == ["kun_engines", "kun_sources", "kun_stages"]
    assert all(hook.__doc__ for hook in hooks.values())
    assert len(Path(hookspecs.__file__).read_text().splitlines()) < 40


def test_public_names_are_listed_and_documented():
    """`kun_builder.__all__` is sorted, complete, and everything in it has a docstring or is a constant."""
    modules = {path.stem for path in (ROOT / "kun_builder").iterdir()}
    public = {name for name in vars(kun_builder) if not name.startswith("_")} - modules
    assert sorted(public) == sorted(kun_builder.__all__) == kun_builder.__all__
    assert all(getattr(kun_builder, name).__doc__ for name in kun_builder.__all__)


def test_start_up_imports_nothing_heavy():
    """Loading every plugin and checking a recipe imports none of the packages that take seconds."""
    heavy = ("datasets", "pyarrow", "ray", "torch", "transformers", "xllamacpp")
    code = (
        "import sys, kun_builder.recipe, kun_builder.cli\n"
        "from kun_builder.plugins import load_plugins\nload_plugins()\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
