"""Stages that a plugin declares wrongly, and plugins that change what others give."""

from __future__ import annotations

import pytest
from verses import GOOD, load, refusal

from kun_builder import errors, hookspecs
from kun_builder.errors import PluginError
from kun_builder.recipe.plugins import KINDS

STAGE = """
    from kun_builder import BatchStage, DatasetStage, Engine, Quantity, RowStage, hookimpl

    def measure(table, *, n: int = 1): ...
    {function}

    @hookimpl
    def kun_stages():
        return [{stage}]
"""


@pytest.mark.parametrize(
    ("function", "stage", "message"),
    [
        (
            "def run(row, generate): ...",
            "RowStage(name='s', run=run)",
            "stage `s`: `run` must be `async def run(row, generate, *, options...)`",
        ),
        (
            "async def run(row): ...",
            "RowStage(name='s', run=run)",
            "stage `s`: `run(row)` must be `run(row, generate, *, options...)`",
        ),
        ("async def run(table): ...", "BatchStage(name='s', run=run)", "`run` must be `def run(table, *, options...)`"),
        (
            "def run(dataset): ...",
            "DatasetStage(name='s', run=run, measure=measure)",
            "stage `s`: option `n` is not in both `run` and `measure`",
        ),
        (
            "def run(dataset, *, n: int = 2): ...",
            "DatasetStage(name='s', run=run, measure=measure)",
            "option `n` has two meanings: n: int = 2 and n: int = 1",
        ),
        (
            "def run(table): ...",
            "BatchStage(name='s', run=run, adds={'_reason': 'string'})",
            "`adds` has `_reason`, which is the engine's own",
        ),
        ("def run(table): ...", "BatchStage(name='s', run=run, adds={'a': 3})", "`adds` has 'a': 3"),
        (
            "def run(table): ...",
            "BatchStage(name='s', run=run, adds={'a': 'list<strin>'})",
            "stage `s`: `adds` has `a: list<strin>`, which is no type of a column",
        ),
        (
            "def run(table): ...",
            "BatchStage(name='s', run=run, adds={'a': 'string'}, quantities={'a': Quantity()})",
            "stage `s`: `quantities` has `a`, which is no column of numbers that the stage adds",
        ),
        (
            "def run(table, *, lowest: float = 1.0): ...",
            "BatchStage(name='s', run=run, adds={'a': 'double'}, quantities={'a': Quantity(least='lowst')})",
            "`quantities` says `least='lowst'` of `a`, and `run` has no such option",
        ),
        (
            "def run(table): ...",
            "BatchStage(name='s', run=run, adds={'a': 'double'}, quantities={'a': 'higher'})",
            "`quantities` has 'a': 'higher'",
        ),
        ("def run(spec, *, timeout: int = 3): ...", "Engine(name='s', connect=run)", "is no stage"),
    ],
)
def test_wrong_stage_stops_the_start(folder, function, stage, message):
    """A stage with a signature that cannot work is refused before anything runs."""
    path = folder.put("mine.py", STAGE.format(function=function, stage=stage))
    error = refusal(folder)
    assert error.message.startswith(f"plugin `mine` of {path}: ")
    assert message in error.message
    assert error.hint


def test_first_last_and_wrappers(folder):
    """pluggy's `tryfirst`, `trylast` and wrappers work; what a wrapper puts in is the wrapper's own."""
    order = "@hookimpl({order})\n    def kun_sources"
    for name, how in (("b_last", "trylast=True"), ("c_first", "tryfirst=True"), ("d_plain", "")):
        folder.put(
            f"{name}.py",
            GOOD.replace("@hookimpl\n    def kun_sources", order.format(order=how)).replace('"poems"', f'"{name}"'),
        )
    folder.put(
        "e_wrap.py",
        """
        import dataclasses
        from kun_builder import hookimpl

        @hookimpl(wrapper=True)
        def kun_sources():
            lists = yield
            flat = [source for sources in lists for source in sources if source.name != "d_plain"]
            return [[dataclasses.replace(s, license="mit") if s.name == "c_first" else s for s in flat]]
    """,
    )
    registry = load(folder)
    assert list(registry.sources) == ["c_first", "b_last"]
    assert registry.sources["c_first"].owner.name == "e_wrap"
    assert registry.sources["b_last"].owner.name == "b_last"


def test_what_a_wrapper_replaces_depends_on_both(folder):
    """The digest of a source that a wrapper has changed follows the wrapper and the plugin below it."""
    wrapper = """
        import dataclasses
        from kun_builder import hookimpl

        @hookimpl(wrapper=True)
        def kun_sources():
            lists = yield
            return [[dataclasses.replace(source, license="mit") for sources in lists for source in sources]]
    """
    digests = set()
    for below, above in ((GOOD, wrapper), (GOOD + "\n    # changed", wrapper), (GOOD, wrapper + "\n        # changed")):
        folder.put("a_good.py", below)
        folder.put("b_wrap.py", above)
        entry = load(folder).sources["poems"]
        assert (entry.owner.name, entry.value.license) == ("b_wrap", "mit")
        digests.add(entry.owner.digest)
    assert len(digests) == 3


def test_what_a_plugin_extends_depends_on_both(folder):
    """A plugin that has no hook and extends another is none to complain of; the other's digest follows its code."""
    digests = set()
    for more in ("", "# changed"):
        folder.put("a_good.py", GOOD)
        folder.put("b_more.py", f"kun_extends = 'a_good'  {more}")
        registry = load(folder)
        assert not registry.problems
        digests.add(registry.sources["poems"].owner.digest)
    assert len(digests) == 2
    assert load(folder, disable=["b_more"]).sources["poems"].owner.digest not in digests


def test_a_plugin_extends_one_that_there_is(folder):
    """A misspelt name stops the start, with the nearest name."""
    folder.put("a_good.py", GOOD)
    folder.put("b_more.py", "kun_extends = 'a_god'")
    assert "`kun_extends` is `a_god`, but there is no such plugin; did you mean `a_good`?" in refusal(folder).message


def test_error_below_a_wrapper_is_not_the_wrappers(folder):
    """What a hook raises is its own plugin's fault, also where another plugin wraps the hook."""
    folder.put("bad.py", GOOD.replace("return [Source", "raise OSError('disk') or [Source"))
    folder.put(
        "wrap.py",
        """
        from kun_builder import hookimpl

        @hookimpl(wrapper=True)
        def kun_sources():
            return (yield)
    """,
    )
    assert refusal(folder).message == f"plugin `bad` of {folder / 'bad.py'}: `kun_sources` failed: OSError: disk"


def test_missing_plugins_folder(tmp_path):
    """A plugins folder that is none is an error, not an empty registry."""
    assert refusal(tmp_path / "nowhere").message == f"{tmp_path / 'nowhere'} is no folder of plugins"


def test_hooks_and_kinds_agree():
    """Every hook of the specification is gathered, and the plugin errors hang in the error tree."""
    assert set(KINDS) == {name for name in vars(hookspecs) if name.startswith("kun_")}
    assert issubclass(PluginError, errors.KunError)
