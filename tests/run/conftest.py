"""What several tests of runs need: a Ray cluster of two nodes, a bucket and the machines that use it."""

from __future__ import annotations

import os
import uuid

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


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function: from now on, this process is on a machine of this name."""
    return lambda name: monkeypatch.setenv("KUN_CACHE", str(tmp_path / name))


@pytest.fixture
def bucket(s3):
    """The address of a run folder, and a function: the objects of the run."""
    name = f"runs-{uuid.uuid4().hex[:8]}"

    def objects():
        found = s3.client.list_objects_v2(Bucket=name, Prefix="mine/").get("Contents", [])
        keys = [entry["Key"] for entry in found]
        return {key[5:]: s3.client.get_object(Bucket=name, Key=key)["Body"].read() for key in keys}

    return f"{s3.put(name, {})}/mine", objects
