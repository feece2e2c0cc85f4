"""What travels to another machine: tasks without their functions, and the files of plugins.

A stage is a function of some plugin. It is not sent: its name is, and the plugins there have the function, be it a
closure. So a task of a few kilobytes is all that a shard costs on its way.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kun_builder.errors import RunError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.registry import Registry
from kun_builder.run.executors.base import Task
from kun_builder.types import BatchStage, DatasetStage, RowStage

PACKAGE = "kun_travelled_plugins"
"""Name of the Python package in which folders of plugins travel, each as a folder with its number."""


@dataclass(frozen=True)
class Packed:
    """A task on its way to another machine, and what that machine must have."""

    task: bytes
    files: tuple[str, ...]
    makers: Mapping[str, str]
    """Version and digest of each stage's code, by the name of the stage; they must be the same everywhere."""


def pack(task: Task, shared: Sequence[str] = ()) -> Packed:
    """Pack a task for another machine. `shared` are files that must exist there besides those of the task."""
    written = io.BytesIO()
    _Pickler(written).dump(task)
    steps = task.job.steps
    named = [Path(name).expanduser() for step in steps for name in (*step.files, *map(str, step.resolved.values()))]
    files = {str(task.shard.path), *shared, *(str(name) for name in named if name.is_file())}
    makers = {step.stage.name: f"{step.owner.version} {step.owner.digest}" for step in steps}
    return Packed(written.getvalue(), tuple(sorted(files)), makers)


def unpack(packed: Packed, registry: Registry) -> Task:
    """The task that was packed, with the stages of `registry`.

    Raises RunError if this machine lacks a file or a stage, or has another version of a stage.
    """
    lacks = [f"there is no {name}" for name in packed.files if not Path(name).exists()]
    for name, maker in packed.makers.items():
        entry = registry.stages.get(name)
        if entry is None:
            lacks.append(f"there is no stage `{name}`")
        elif f"{(owner := entry.owner).version} {owner.digest}" != maker:
            lacks.append(f"stage `{name}` is another one ({owner.package} {owner.version}, code {owner.digest})")
    if lacks:
        raise unlike(lacks)
    unpickler = _Unpickler(io.BytesIO(packed.task))
    unpickler.registry = registry
    task: Task = unpickler.load()
    return task


def unlike(lacks: Sequence[str]) -> RunError:
    """What is wrong with this machine: it is not as the one that has sent the work."""
    return RunError(
        f"the machines of the cluster are not alike: on {platform.node()} {'; '.join(lacks)}",
        hint="run folder, journal and files of options must lie on paths that all of them share; kun-builder and "
        "installed plugins must be the same everywhere",
    )


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> str | None:
        return obj.name if isinstance(obj, RowStage | BatchStage | DatasetStage) else None


class _Unpickler(pickle.Unpickler):
    registry: Registry

    def persistent_load(self, name: str) -> Any:
        return self.registry.stages[name].value


def pack_plugins(dirs: Sequence[Path], folder: Path) -> Path | None:
    """Copy the plugins folders `dirs` into a package in `folder`. Returns its path, or None if `dirs` is empty."""
    if not dirs:
        return None
    package = folder / PACKAGE
    for number, source in enumerate(dirs):
        shutil.copytree(source, package / str(number), ignore=shutil.ignore_patterns("__pycache__", ".*"))
    (package / "__init__.py").touch()
    return package


def load_travelled(dirs: int, disable: Sequence[str], folder: str) -> Registry:
    """The plugins of a machine that so many folders of plugins have travelled to.

    From here on this process is in `folder`, if there is one here: names of files may be relative to it.
    """
    if os.path.isdir(folder):
        os.chdir(folder)
    if not dirs:
        return load_plugins((), disable)
    (place,) = importlib.import_module(PACKAGE).__path__
    return load_plugins([Path(place) / str(number) for number in range(dirs)], disable)
