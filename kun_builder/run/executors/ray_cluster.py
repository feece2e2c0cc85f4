"""Being a driver of a Ray cluster: connected without telemetry, dashboard or printing; its nodes; what it answers."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from kun_builder.errors import KunError, RunError
from kun_builder.files import make_private
from kun_builder.recipe.recipe import Cluster
from kun_builder.run.executors.travel import pack_plugins

DEATHS = 3
"""Deaths of its worker after which a shard is still tried. What kills a process every time must not do so for ever."""
RESTARTS = 100
"""How often a worker of row segments is begun again when its process or node has died."""
_STORE = 100 << 20
"""Bytes of the object store of a cluster of our own: only tasks and records pass through it."""
_HANDED_ON = ("KUN_CACHE", "KUN_OFFLINE", "HF_HOME", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")


@contextmanager
def connected(cluster: Cluster, plugins: Sequence[Path]) -> Iterator[None]:
    """Be a driver of the cluster while the block runs, without telemetry or dashboard; Ray prints nothing on stdout.

    Raises RunError if Ray is not installed or there is no cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns that it will do so one day
    try:
        import ray
    except ImportError as error:
        raise RunError("`executor: ray` needs Ray", hint="pip install 'kun-builder[ray]'") from error
    own: dict[str, Any] = {"num_cpus": cluster.cpus or None, "include_dashboard": False, "object_store_memory": _STORE}
    with tempfile.TemporaryDirectory(prefix="kun-build-") as folder:
        package = pack_plugins(plugins, Path(folder))
        variables = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        try:
            ray.init(
                cluster.address or "local",
                runtime_env={"env_vars": variables} | ({"py_modules": [str(package)]} if package else {}),
                log_to_driver=False,
                logging_level="error",
                **({} if cluster.address else own),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError(
                f"there is no Ray cluster to work on: {' '.join(str(error).split())[:300]}",
                hint="`ray start --head` starts one; without `ray: {address: ...}` kun-build starts its own",
            ) from error
        try:
            with redirect_stdout(sys.stderr):  # where the cluster's own complaints belong: stdout has the result
                yield
        finally:
            ray.shutdown()


@contextmanager
def shared_token(folder: Path) -> Iterator[str]:
    """Yield a file in the folder that exists while the block runs: nodes that see it share the folder with this one."""
    make_private(folder)
    token = folder / f".shared-{secrets.token_hex(4)}"
    token.touch()
    try:
        yield str(token)
    finally:
        token.unlink(missing_ok=True)


def node_names() -> dict[str, str]:
    """Living nodes: names by id. Nodes of one name are told apart by the beginning of their id."""
    import ray

    alive = {str(node["NodeID"]): str(node["NodeName"]) for node in ray.nodes() if node["Alive"]}
    often = Counter(alive.values())
    return {node: name if often[name] == 1 else f"{name} ({node[:6]})" for node, name in alive.items()}


def answer(refs: Any) -> Any:
    """The results behind Ray's references. Raises the work's own KunError, and RunError if a worker died too often."""
    import ray
    from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

    try:
        return ray.get(refs)
    except RayTaskError as error:
        if isinstance(error.cause, KunError):
            raise error.cause from None
        raise
    except (RayActorError, WorkerCrashedError) as error:
        raise RunError(
            f"a worker of the cluster died again and again: {' '.join(str(error).split())[:300]}",
            hint="what is finished is kept; fewer rows per shard (`shard_rows`) need less memory",
        ) from error
