"""Recipes in a folder of their own."""

from textwrap import dedent

import pytest
from recipes import CATALOG

from kun_builder.recipe.recipe import load_recipe


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Write a recipe and load it; the working directory is another one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "recipes"
    folder.mkdir()

    def load(text, catalog=CATALOG, **options):
        path = folder / "news.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return load_recipe(path, catalog, **options)

    load.folder = folder
    return load
