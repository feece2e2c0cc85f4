"""Plugins come through one door, are checked at it, and a bad one is named with its package and the cure."""

from __future__ import annotations

import re
import sys
from textwrap import dedent

import pytest
from verses import BUILT_IN, GOOD, load, refusal

from kun_builder.recipe import plugins
from kun_builder.recipe.plugins import load_plugins


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay a distribution with one plugin on the path, as pip does."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(code, *, package="kun-poems", version="1.2", plugin=None, module=None):
        plugin, module = plugin or package, module or package.replace("-", "_")
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(dedent(code), encoding="utf-8")
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {package}\nVersion: {version}\nLicense: MIT\n")
        (info / "entry_points.txt").write_text(f"[kun_builder]\n{plugin} = {module}\n")

    return write


def test_installed_plugin_is_found(install):
    """An entry point of the group `kun_builder` is all that an installed plugin needs."""
    install(GOOD)
    entry = load().sources["poems"]
    owner = entry.owner
    assert (owner.name, owner.package, owner.version, owner.license) == ("kun-poems", "kun-poems", "1.2", "MIT")
    assert [option.name for option in entry.options] == ["field"]
    assert entry.value.parse({"text": "x"}) == "x"
    assert entry.owner.doc == "Poems, one a line."


def test_built_in_plugins_are_entry_points_too():
    """The built-in plugins are declared as a stranger's are, and nothing else knows of them."""
    assert load_plugins(disable=BUILT_IN) == load()
    assert not load().stages
    assert "kun-tgi" in BUILT_IN
    assert (
        load_plugins(disable=[name for name in BUILT_IN if name != "kun-tgi"]).engines["tgi"].owner.package
        == "kun-builder"
    )


def test_one_file_and_package_plugins(folder):
    """A plugins folder may hold single files and packages; names that begin with `_` are left alone."""
    folder.put("poems.py", GOOD)
    folder.put(
        "prose/__init__.py",
        GOOD.replace('"poems"', '"prose"')
        .replace("'''Poems", "'''Prose")
        .replace('def parse(data, *, field: str = "text"):\n        return data[field]', "from .reading import parse"),
    )
    folder.put("prose/reading.py", "def parse(data):\n    return str(data)\n")
    folder.put("_helper.py", "raise SystemExit")
    registry = load(folder)
    assert sorted(registry.sources) == ["poems", "prose"]
    assert registry.sources["poems"].owner.package == str(folder / "poems.py")
    assert registry.sources["prose"].value.parse(3) == "3"


def test_digest_follows_every_file_of_the_plugin(folder):
    """The digest of a plugin changes with its code and with its data, and with nothing else."""
    for text in ("a", "b", "a"):
        other = type(folder)(folder.parent / f"copy{len(list(folder.parent.iterdir()))}")
        other.put("poems/__init__.py", GOOD)
        other.put("poems/prompt.txt", text)
        (other / "poems/__pycache__").mkdir()
        (other / "poems/__pycache__/x.pyc").write_text(str(other))
    copies = sorted(folder.parent.glob("copy*"))
    digests = [load(copy).sources["poems"].owner.digest for copy in copies]
    assert digests[0] == digests[2] != digests[1]
    assert len(digests[0]) == 16


def test_failed_import_leaves_the_others_alone(install, folder):
    """A plugin that fails to import is reported with its name, package and cure; all others work."""
    install("import pandas_of_another_world", package="kun-broken")
    folder.put("poems.py", GOOD)
    folder.put("worse.py", "1/0")
    registry = load(folder)
    assert list(registry.sources) == ["poems"]
    assert [(problem.plugin, problem.message, problem.hint) for problem in registry.problems] == [
        (
            "kun-broken",
            "plugin `kun-broken` of kun-broken cannot be imported: "
            "ModuleNotFoundError: No module named 'pandas_of_another_world'",
            "install what it needs: `pip install pandas_of_another_world`",
        ),
        (
            "worse",
            f"plugin `worse` of {folder / 'worse.py'} cannot be imported: ZeroDivisionError: division by zero",
            "repair it, or leave it out: `plugins: {disable: [worse]}` in the recipe",
        ),
    ]
    assert registry.absent == ("kun-broken", "worse")


def test_failed_import_leaves_no_half_module(folder):
    """A one-file plugin that fails to import is not left in `sys.modules`."""
    folder.put("worse.py", "1/0")
    load(folder)
    assert "kun_plugin_worse" not in sys.modules


def test_import_that_ends_the_process(folder):
    """A plugin that calls `sys.exit` while it is imported ends only itself."""
    folder.put("quitter.py", "import sys; sys.exit(3)")
    (problem,) = load(folder).problems
    assert problem.message == f"plugin `quitter` of {folder / 'quitter.py'} cannot be imported: SystemExit: 3"


def test_import_that_hangs_has_a_name(folder, monkeypatch):
    """A plugin that is slow to import is named while it is, so that one that hangs can be found."""
    load_plugins([], BUILT_IN)  # what these import may take long too
    monkeypatch.setattr(plugins, "_SLOW", 0.5)
    wait = "import pathlib, time\nend, named = time.monotonic() + 100, pathlib.Path(__file__).with_name('named')\n"
    wait += "while not named.exists() and time.monotonic() < end:\n    time.sleep(0.01)\n"
    folder.put("slow.py", wait + dedent(GOOD))
    said = []

    def say(line):
        said.append(line)
        folder.put("named", "")

    load_plugins([folder], BUILT_IN, say)
    assert said == [f"plugin `slow` of {folder / 'slow.py'} takes long to import"]


def test_module_that_is_gone(install, tmp_path):
    """An entry point whose module is missing says to install the package again."""
    install(GOOD)
    (tmp_path / "kun_poems.py").unlink()
    assert load().problems[0].hint == "install kun-poems again: its module is gone"


@pytest.mark.parametrize(
    ("said", "shown", "cure"),
    [("2", "2", "update kun-builder, or install"), ("0", "0", "install"), ("'1'", "'1'", "install")],
)
def test_other_version_of_the_api(install, said, shown, cure):
    """A plugin for another version of the API is left out, with the version to look for."""
    install(GOOD.replace("kun_api = 1", f"kun_api = {said}"))
    (problem,) = load().problems
    assert problem.message == (
        f"plugin `kun-poems` of kun-poems is written for version {shown} of the plugin API; this is version 1"
    )
    assert problem.hint == f"{cure} a version of kun-poems that has `kun_api = 1`"


def test_plugin_that_does_not_say_is_for_the_first_version(install, monkeypatch):
    """Without `kun_api` a plugin is taken for one of version 1: later versions refuse it."""
    install(GOOD.replace("kun_api = 1", ""))
    assert "poems" in load().sources
    monkeypatch.setattr(plugins, "API_VERSION", 2)
    assert "is written for version 1 of the plugin API; this is version 2" in load().problems[0].message


def test_plugin_without_hooks(install):
    """A module without a hook is reported, with what a hook looks like."""
    install("x = 1")
    (problem,) = load().problems
    assert problem.message == "plugin `kun-poems` of kun-poems has no hook"
    assert "hookimpl" in problem.hint


def test_two_owners_of_one_name(install, folder):
    """A name that two plugins give is refused, with both owners."""
    install(GOOD)
    folder.put("verses.py", GOOD)
    error = refusal(folder)
    assert "two plugins give the source `poems`" in error.message
    assert "plugin `kun-poems` of kun-poems" in error.message
    assert f"plugin `verses` of {folder / 'verses.py'}" in error.message
    assert load(folder, disable=["verses"]).sources["poems"].owner.name == "kun-poems"


def test_two_plugins_of_one_name(install):
    """Two packages whose plugins have the same name are refused, with both packages."""
    install(GOOD)
    install(GOOD, package="other-poems", plugin="kun-poems")
    error = refusal()
    found = re.fullmatch(r"two plugins are called `kun-poems`: of (\S+) and of (\S+)", error.message)
    assert {*found.groups()} == {"kun-poems", "other-poems"}


def test_misspelt_disable_is_reported():
    """A name under `disable` that no plugin has is reported with the nearest."""
    (problem,) = load(disable=["kun-wudoa"]).problems
    assert problem.message == "no plugin `kun-wudoa` to disable; did you mean `kun-wudao`?"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def kun_sources", "def kun_source", "there is no hook `kun_source`; did you mean `kun_sources`?"),
        (
            "def kun_sources()",
            "def kun_sources(config)",
            "Argument(s) {'config'} are declared in the hookimpl but can not be found in the hookspec",
        ),
        ("@hookimpl", "", "`kun_sources` is not marked as a hook"),
        ("return [Source", "raise OSError('disk') or [Source", "`kun_sources` failed: OSError: disk"),
        ('return [Source(name="poems", parse=parse)]', "pass", "a hook returned NoneType, not a list"),
        ('return [Source(name="poems", parse=parse)]', "return ['poems']", "'poems' is no source"),
        ('name="poems"', 'name="po ems"', "'po ems' cannot name a source"),
        (
            "data, *, field: str",
            "data, field: str",
            "source `poems`: `parse(data, field: str = 'text')` must be `parse(data, *, options...)`",
        ),
        ("field: str =", "field =", "source `poems`: option `field` of `parse` has no annotation"),
        ("field: str =", "field: 'Str' =", "the annotation of option `field` of `parse` cannot be resolved"),
        ("field: str", "path: str", "source `poems`: option `path` has a meaning in every recipe"),
        ('data, *, field: str = "text"', "data, **field", "must be `parse(data, *, options...)`"),
        (
            '= "text"',
            "= 3",
            "source `poems`: `field` must be a valid string, not 3 (put it in quotes), but that is its default",
        ),
        (
            'field: str = "text"',
            "field: hookimpl.__class__ = None",
            "source `poems`: no recipe can say `field: HookimplMarker = None`",
        ),
        ("parse=parse", "parse=3", "source `poems`: 3 has no signature"),
    ],
)
def test_wrong_plugin_stops_the_start(install, old, new, message):
    """A plugin that is loaded but wrong stops the start with its name, its package and the cure."""
    code = dedent(GOOD)
    assert old in code
    install(code.replace(old, new))
    error = refusal()
    assert error.message.startswith("plugin `kun-poems` of kun-poems: ")
    assert message in error.message
    assert error.hint
