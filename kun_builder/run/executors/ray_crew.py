"""The crew of a cluster: functions run as tasks of Ray, on whatever machine has a processor free."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kun_builder.errors import KunError, RunError
from kun_builder.run.crew import learn
from kun_builder.run.executors.ray_cluster import DEATHS
from kun_builder.run.executors.travel import unlike
from kun_builder.run.processes import Submit


class RayCrew:
    """The `Crew` of the cluster that this process is connected to."""

    def __init__(self, load: bytes, shared: Sequence[str]) -> None:
        """`load` is pickled; `shared` are files that every machine must see."""
        self._load, self._shared = load, tuple(shared)

    @property
    def size(self) -> int:
        """See `Crew`."""
        import ray

        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    @contextmanager
    def at_work(self, function: Callable[..., Any], workers: int, died: RunError) -> Iterator[Submit]:
        """See `Crew`. Ray decides how many calls it makes at once."""
        import ray
        from ray.exceptions import RayTaskError, WorkerCrashedError

        remote = ray.remote(num_cpus=1, max_retries=DEATHS, scheduling_strategy="SPREAD")(_called)
        load, sent = ray.put(self._load), ray.put(pickle.dumps(function))
        under_way = set[Future[Any]]()

        def submit(*arguments: Any) -> Future[Any]:
            called = remote.remote(load, sent, sent.hex(), pickle.dumps(arguments), self._shared)
            future: Future[Any] = called.future()
            under_way.add(future)
            future.add_done_callback(under_way.discard)
            return future

        try:
            yield submit
        except RayTaskError as error:
            if isinstance(error.cause, KunError):
                raise error.cause from None
            raise
        except WorkerCrashedError as error:
            raise died from error
        finally:
            for future in list(under_way):
                ray.cancel(future.object_ref, force=True)  # type: ignore[attr-defined]  # Ray's futures keep it


_functions: dict[str, Any] = {}
"""In a worker: the function that it was last sent, by the name of what was sent."""


def _called(load: bytes, function: bytes, name: str, arguments: bytes, shared: Sequence[str]) -> Any:
    learn(load)
    if lacks := [f"there is no {name}" for name in shared if not Path(name).exists()]:
        raise unlike(lacks)
    if name not in _functions:
        _functions.clear()
        _functions[name] = pickle.loads(function)
    return _functions[name](*pickle.loads(arguments))
