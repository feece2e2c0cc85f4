"""Recipes and plugins in folders of their own."""

from textwrap import dedent

import pytest
from recipes import REGISTRY

from kun_builder.recipe.recipe import load_recipe


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Write a recipe and load it; the working directory is another one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "recipes"
    folder.mkdir()

    def load(text, registry=REGISTRY, **options):
        path = folder / "news.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return load_recipe(path, registry, **options)

    load.folder = folder
    return load


@pytest.fixture
def folder(tmp_path):
    """A plugins folder; files are written by name."""

    class Folder(type(tmp_path)):
        def put(self, name, code):
            path = self / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(code), encoding="utf-8")
            return path

    made = Folder(tmp_path / "plugins")
    made.mkdir()
    return made
