"""The shape of the code: floors, sizes, hooks and public names are what the documents say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kun_builder
from kun_builder import hookspecs

ROOT = Path(kun_builder.__file__).parents[1]
FLOORS = """
    errors status types tables markdown readback recipe_training records sampling stats
    hookspecs prompts readers recipe_file report commit hub_retry
    contract options journal ingest_shards cards plots
    engines option_values plan release
    generation recipe_parts ingest hub_repo withhold training
    recipe plugin_checks rows
    recipe_lock recipe_schema plugins worker evaluation
    shards
    executors folder dataset_stage
    runner finished
    hub
    cli
"""  # a line imports only from the lines above it; files within a package are its own business
LEVEL = {name: level for level, line in enumerate(FLOORS.split("\n")) for name in line.split()}
FILES = [path for folder in ("kun_builder", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]
ENGINE = [
    path
    for path in FILES
    if path.is_relative_to(ROOT / "kun_builder") and path.parent.name + path.stem != "kun_builder__init__"
]


def imports(path, *, top=False):
    """Modules that a file imports (at its top level only, if asked), but for those that only a type checker sees."""
    tree = ast.parse(path.read_text("utf-8"))
    unseen = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.unparse(i.test)
        for n in ast.walk(i)
    }
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in unseen:
            yield node.module or ""
        elif isinstance(node, ast.Import) and id(node) not in unseen:
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    """Every file of the engine has a floor and imports only from lower floors or its own package."""
    unit = path.relative_to(ROOT / "kun_builder").parts[0].removesuffix(".py")
    assert unit in LEVEL, f"{unit} stands on no floor: add it to FLOORS, above all that it imports"
    used = {name.split(".")[1] for name in imports(path) if name.startswith("kun_builder.")}
    assert not [name for name in used - {unit} if LEVEL[name] >= LEVEL[unit]]


def test_files_are_small():
    """No file is over 350 lines."""
    assert not [path for path in FILES if len(path.read_text("utf-8").splitlines()) > 350]


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


def test_plugins_know_nothing_of_the_runner():
    """What comes in `plugins/` uses the engine's lower floors only, as a stranger's plugin would."""
    used = {
        name.split(".")[1]
        for path in FILES
        if path.is_relative_to(ROOT / "plugins")
        for name in imports(path)
        if name.startswith("kun_builder.")
    }
    assert not [name for name in used if LEVEL[name] > LEVEL["contract"]]


def test_start_up_imports_nothing_heavy():
    """Loading every plugin and checking a recipe imports none of the packages that take seconds."""
    heavy = ("datasets", "pyarrow", "ray", "torch", "transformers", "xllamacpp")
    code = f"import sys, kun_builder.recipe, kun_builder.cli\nfrom kun_builder.plugins import load_plugins\nload_plugins()\nprint([n for n in {heavy!r} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
