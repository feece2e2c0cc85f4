"""What stages that see all rows may use of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Workspace(Protocol):
    """What a DatasetStage with more rows than memory may use of the machine."""

    @property
    def folder(self) -> Path:
        """A folder for files of its own in the run folder, empty at first and removed in the end."""

    @property
    def memory(self) -> int:
        """Bytes that all processes together may hold at once: `memory` of the recipe, or half of the machine."""

    @property
    def workers(self) -> int:
        """Processes that `map` uses."""

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item], /) -> Iterator[_Result]:
        """Yield `function` of each of `items`, in order. If rows are many, other processes compute it: function, items
        and results must be picklable."""

    def need_disk(self, size: int) -> None:
        """Raise RunError if the disk of `folder` has less than `size` bytes left."""

    def progress(self, share: float) -> None:
        """Tell the user which share of the work is done, 0..1."""
