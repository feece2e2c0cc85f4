"""The crew of one machine: processes that are begun when there is work for them, with the plugins known."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from kun_builder.errors import RunError
from kun_builder.run.executors.batches import quiet_datasets
from kun_builder.run.machine import cores
from kun_builder.run.processes import Submit, processes


@dataclass(frozen=True)
class LocalCrew:
    """Processes of this machine, begun for each block. `load` makes the plugins known in them; it is pickled."""

    load: Callable[[], object]

    @property
    def size(self) -> int:
        """See `Crew`."""
        return cores()

    @contextmanager
    def at_work(self, function: Callable[..., Any], workers: int, died: RunError) -> Iterator[Submit]:
        """See `Crew`."""
        with processes(workers, died, _begin, pickle.dumps(self.load), pickle.dumps(function)) as pool:
            yield partial(pool.submit, _call)


_known: dict[bytes, object] = {}


def learn(load: bytes) -> Any:
    """In a worker: make the plugins known, once. Returns what `load`, pickled, returns."""
    if load not in _known:
        quiet_datasets()
        _known.clear()
        _known[load] = pickle.loads(load)()
    return _known[load]


def known() -> Any:
    """In a worker: what its crew's `load` has returned."""
    (what,) = _known.values()
    return what


_function: Callable[..., Any] = print
"""In a process of a local crew: the function that it calls."""


def _begin(load: bytes, function: bytes) -> None:
    global _function
    learn(load)  # first, since the function may be a plugin's
    _function = pickle.loads(function)


def _call(*arguments: Any) -> Any:
    return _function(*arguments)
