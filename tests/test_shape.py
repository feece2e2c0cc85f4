"""The shape of the code: floors, sizes, hooks and public names are what the documents say."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import kun_builder
from kun_builder import hookspecs

ROOT = Path(kun_builder.__file__).parents[1]
FLOORS = """
    types declarations workspace errors retry_after status files drops
    hookspecs prompts report readers cache
    prompt_contract recipe
    engines
    models
    run
    result testing
    hub
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
    allowed = {"drops", "errors", "prompts", "readers", "types"}
    strangers = [path for path in PLUGINS if "kun_training" not in path.parts]
    assert not {path.name: imports(path) - allowed for path in strangers if imports(path) - allowed}


def test_files_are_small():
    """No file is over 400 lines, of the tests neither."""
    tests = list((ROOT / "tests").rglob("*.py"))
    assert tests
    assert not [path.name for path in ENGINE + PLUGINS + tests if len(path.read_text("utf-8").splitlines()) > 400]


def test_functions_are_small():
    """No function has 40 lines behind its docstring; ruff holds its complexity to 10."""
    long = []
    for path in ENGINE + PLUGINS:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                if (node.end_lineno or 0) - first.lineno >= 39:
                    long.append(f"{path.name}: {node.name}")
    assert not long


def test_hooks_are_documented_and_fit_a_screen():
    """There are five hooks with one prefix, each with a sentence, in a file of one screen."""
    hooks = {name: value for name, value in vars(hookspecs).items() if hasattr(value, "kun_builder_spec")}
    assert sorted(hooks) == ["kun_engines", "kun_presets", "kun_sections", "kun_sources", "kun_stages"]
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
        "import sys, kun_builder.recipe.recipe, kun_builder.cli.main\n"
        "from kun_builder.recipe.plugins import load_plugins\nload_plugins()\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_house_is_small_and_is_drawn():
    """There are at most 24 rooms on at most 10 floors, all there, and docs/architecture.md draws just these."""
    floors = [line.split() for line in FLOORS.splitlines() if line.strip()]
    rooms = {path.name.removesuffix(".py") for path in (ROOT / "kun_builder").iterdir()}
    rooms -= {"__init__", "__pycache__", "py.typed"}
    assert sorted(name for floor in floors for name in floor) == sorted(rooms)
    assert len(rooms) <= 24
    assert len(floors) <= 10
    drawing = (ROOT / "docs/architecture.md").read_text("utf-8")
    assert [names.split() for names in re.findall(r'F\d+\["([^"]+)"\]', drawing)] == floors
    paths = re.findall(r"`((?:readers|recipe|engines|models|run|result|testing|hub|cli|plugins)/[\w/.]*)`", drawing)
    missing = [
        path
        for path in paths
        if not any((base / (path + end)).exists() for base in (ROOT, ROOT / "kun_builder") for end in ("", ".py"))
    ]
    assert len(paths) > 20
    assert not missing


def modules_of(path, known):
    """Modules that a file imports, also within functions, but for what only a type checker sees."""
    tree = ast.parse(path.read_text("utf-8"))
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    unseen = {id(node) for check in checks for node in ast.walk(check)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in unseen:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) or ({node.module} & known)
    return found


def test_no_circle():
    """No module imports itself by way of others: not within a room, not in a plugin, not from within functions."""
    names = {}
    for path in ENGINE + PLUGINS:
        if "templates" not in path.parts:
            inner = path.relative_to(ROOT).with_suffix("").parts
            names[".".join(part for part in inner if part not in ("plugins", "__init__")) or "plugins"] = path
    graph = {name: modules_of(path, names.keys()) - {name} for name, path in names.items()}
    assert sum(map(len, graph.values())) > 300
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, with the circle


def test_packages_begin_with_nothing():
    """The `__init__.py` of a room is a docstring, imports and `__all__`: code has a file that says what it is."""
    extra = []
    for path in ENGINE:
        if path.name == "__init__.py":
            for node in ast.parse(path.read_text("utf-8")).body:
                named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("__all__", "__version__")
                text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                if not (named or text or isinstance(node, ast.Import | ast.ImportFrom)):
                    extra.append(f"{path.parent.name}: {ast.unparse(node)[:60]}")
    assert not extra


def test_functions_are_short():
    """No function has 40 lines of body beside its docstring."""
    long = []
    for path in ENGINE + PLUGINS:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                if (node.end_lineno or 0) - body[0].lineno >= 40:
                    long.append(f"{path.name}: {node.name}")
    assert not long


def test_the_engine_knows_no_method():
    """Nothing in the engine imports or starts a plugin that comes with it."""
    ours = {path.name.removesuffix(".py") for path in (ROOT / "plugins").iterdir() if path.name.startswith("kun_")}
    assert len(ours) > 5
    assert not [
        f"{path.name}: {name}"
        for path in ENGINE
        for name in ours
        if re.search(rf"\b(import|from) {name}\b", path.read_text("utf-8"))
    ]


def test_the_engine_names_no_stage_of_the_method():
    """What scores, polishes or measures is known from declarations: the words are in no module of the engine."""
    words = re.compile(r"\b(pair_)?scor(e|es|ed|ing)\b|\bperplexity\b|\bpolish(es|ed|ing)?\b", re.IGNORECASE)
    found = [f"{path.name}: {hit[0]}" for path in ENGINE if (hit := words.search(path.read_text("utf-8")))]
    assert not found
