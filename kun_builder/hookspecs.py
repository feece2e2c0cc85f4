"""The hooks of kun-builder: five, each returns a list. `from kun_builder import hookimpl` marks an implementation."""

from __future__ import annotations

import pluggy

from kun_builder.declarations import Preset, Section
from kun_builder.types import Engine, Source, Stage

hookspec = pluggy.HookspecMarker("kun_builder")
hookimpl = pluggy.HookimplMarker("kun_builder")
"""Marks an implementation of a hook; takes pluggy's `tryfirst`, `trylast` and `wrapper`."""


@hookspec
def kun_sources() -> list[Source]:  # type: ignore[empty-body]
    """Corpora that this plugin can read."""


@hookspec
def kun_stages() -> list[Stage]:  # type: ignore[empty-body]
    """Steps that rows pass through: RowStage, BatchStage or DatasetStage."""


@hookspec
def kun_engines() -> list[Engine]:  # type: ignore[empty-body]
    """Kinds of servers that models are asked through."""


@hookspec
def kun_sections() -> list[Section]:  # type: ignore[empty-body]
    """Sections of recipes that commands of this plugin's package read."""


@hookspec
def kun_presets() -> list[Preset]:  # type: ignore[empty-body]
    """Stages that recipes name together."""
