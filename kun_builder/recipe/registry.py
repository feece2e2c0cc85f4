"""What the loaded plugins give, by name: all that a recipe can mention, and whose it is."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from kun_builder.declarations import Preset, Section
from kun_builder.recipe.options import Option
from kun_builder.types import Engine, Source, Stage

_T_co = TypeVar("_T_co", bound=Source | Stage | Engine | Section | Preset, covariant=True)


@dataclass(frozen=True)
class Plugin:
    """Where a plugin comes from. `path` is its file, or its folder if it is a package."""

    name: str
    package: str
    version: str = ""
    license: str = ""
    path: Path | None = None
    doc: str = ""
    extends: str = ""
    """Name of the plugin that this one changes by being imported, as its `kun_extends` says."""
    with_: tuple[Plugin, ...] = ()
    """Others on whose code its values depend: whose value it, a wrapper, has replaced, and those that extend it."""

    def __str__(self) -> str:
        return f"plugin `{self.name}` of {self.package}"

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the plugin's files, data included, first 16 hex digits; with those that it depends on."""
        own = _digest(self.path) if self.path else ""
        every = " ".join([own, *(other.digest for other in self.with_)])
        return hashlib.sha256(every.encode()).hexdigest()[:16] if self.with_ else own


@dataclass(frozen=True)
class Entry(Generic[_T_co]):
    """One source, stage, engine, section or preset with its options and the plugin that owns it."""

    value: _T_co
    owner: Plugin
    options: tuple[Option, ...] = ()


Engines: TypeAlias = Mapping[str, Entry[Engine]]


@dataclass(frozen=True)
class Problem:
    """Something to mention that does not stop the start. `plugin` names the plugin that was left out for it, if any."""

    plugin: str
    message: str
    hint: str


@dataclass(frozen=True)
class Registry:
    """All that a recipe can name. Plugins that could not be used are in `problems`."""

    sources: Mapping[str, Entry[Source]]
    stages: Mapping[str, Entry[Stage]]
    engines: Engines
    sections: Mapping[str, Entry[Section]]
    presets: Mapping[str, Entry[Preset]]
    problems: tuple[Problem, ...] = ()

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the plugins that were left out: what they would have added is missing."""
        return tuple(problem.plugin for problem in self.problems if problem.plugin)


def _digest(path: Path) -> str:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    sha = hashlib.sha256()
    for file in files:
        if "__pycache__" not in file.parts:
            data = file.read_bytes()
            sha.update(f"{file.relative_to(path.parent)}\0{len(data)}\0".encode() + data)
    return sha.hexdigest()[:16]
