"""A Ray cluster of two nodes, for the tests that need one."""

from __future__ import annotations

import os

import pytest

STORE = 80 << 20


@pytest.fixture(scope="module")
def cluster():
    """A head and a second node, each a raylet with workers of its own."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster
    cluster.shutdown()
