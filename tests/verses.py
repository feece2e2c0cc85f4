"""A plugin that gives poems, and loading it among the built-in ones."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import pytest

from kun_builder.errors import PluginError
from kun_builder.recipe.plugins import load_plugins

BUILT_IN = [point.name for point in distribution("kun-builder").entry_points if point.group == "kun_builder"]


GOOD = """
    '''Poems, one a line.'''
    from kun_builder import Source, hookimpl

    kun_api = 1

    def parse(data, *, field: str = "text"):
        return data[field]

    @hookimpl
    def kun_sources():
        return [Source(name="poems", parse=parse)]
"""


def load(*dirs: Path, disable=()):
    return load_plugins(dirs, [*BUILT_IN, *disable])


def refusal(*dirs: Path) -> PluginError:
    with pytest.raises(PluginError) as caught:
        load(*dirs)
    return caught.value
