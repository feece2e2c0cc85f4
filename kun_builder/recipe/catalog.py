"""What a recipe may name, as far as reading a recipe must know it: `kun_builder.recipe.plugins.Registry` is one.

These are protocols since plugins are checked against the keys of recipes: the module that loads them imports the one
that reads recipes, which therefore cannot import the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from kun_builder.declarations import Preset, Section
from kun_builder.recipe.options import Option


class Described(Protocol):
    """A source, stage or engine, as far as a recipe must know it: its options and its owner."""

    @property
    def options(self) -> tuple[Option, ...]:
        """What can be set."""

    @property
    def plugin(self) -> str:
        """Name of the plugin."""

    @property
    def package(self) -> str:
        """The package it belongs to."""

    @property
    def version(self) -> str:
        """That package's version."""

    @property
    def digest(self) -> str:
        """Hash of the plugin's files."""


class DescribedSection(Described, Protocol):
    """A section of recipes that a plugin owns."""

    @property
    def value(self) -> Section:
        """What the plugin has declared."""


class DescribedPreset(Described, Protocol):
    """Stages that a plugin has put together under a name."""

    @property
    def value(self) -> Preset:
        """What the plugin has declared."""


class Catalog(Protocol):
    """What a recipe may name: `kun_builder.recipe.plugins.Registry`."""

    @property
    def sources(self) -> Mapping[str, Described]:
        """Sources by name."""

    @property
    def stages(self) -> Mapping[str, Described]:
        """Stages by name."""

    @property
    def engines(self) -> Mapping[str, Described]:
        """Engines by name."""

    @property
    def sections(self) -> Mapping[str, DescribedSection]:
        """Sections that plugins own, by name."""

    @property
    def presets(self) -> Mapping[str, DescribedPreset]:
        """Presets by name."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of plugins that could not be loaded."""
