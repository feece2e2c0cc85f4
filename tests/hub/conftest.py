"""A Hub with one published dataset that each test gets a fresh copy of, and processes to push with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from finished_runs import make_run
from servers.hub import HubServer
from servers.zygote import Zygote

ALICE, BOB = "hf_alice_0123456789", "hf_bob_0123456789"
TOKENS = {ALICE: {"alice", "lab"}, BOB: {"bob"}}


@pytest.fixture(scope="session")
def first_run(tmp_path_factory) -> Path:
    """Two splits, as published first."""
    return make_run(tmp_path_factory.mktemp("runs") / "first", {"wudao": 30, "skypile": 20})


@pytest.fixture(scope="session")
def second_run(tmp_path_factory) -> Path:
    """A newer run: other rows in `wudao`, and a new split; it knows nothing of `skypile`."""
    path = tmp_path_factory.mktemp("runs") / "second"
    return make_run(path, {"wudao": 25, "wanjuan": 10}, seed=1, threshold=0.6)


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory) -> Iterator[HubServer]:
    """The server; tests use `hub`."""
    with HubServer(tmp_path_factory.mktemp("hub"), TOKENS, page_size=5) as server:
        yield server


@pytest.fixture(scope="session")
def zygote(tmp_path_factory, hub_server) -> Iterator[Zygote]:
    """Processes whose Hub is `hub_server`, without Xet."""
    env = {"HF_ENDPOINT": hub_server.url, "HF_HUB_DISABLE_XET": "1"}
    with Zygote(tmp_path_factory.mktemp("zygote"), ("publish_worker",), **env) as started:
        yield started


@pytest.fixture(scope="session")
def template(hub_server, zygote, first_run) -> str:
    """A repository that holds `first_run`."""
    result = zygote.run("publish_worker:push", run=str(first_run), repo="alice/template", token=ALICE)
    assert result.get("verified"), result
    return "alice/template"


@pytest.fixture
def hub(hub_server, template) -> HubServer:
    """The server without faults, and with no large files but those of the template."""
    used = {entry.sha256 for entry in hub_server.files(template).values()}
    for blob in (hub_server.store.root / "blobs").iterdir():
        if blob.name not in used and blob.stat().st_size > 100:
            blob.unlink()
    hub_server.forget()
    return hub_server


@pytest.fixture
def published(hub, template, request) -> str:
    """A repository of this test's own that holds `first_run`."""
    name = "alice/" + "".join(c if c.isalnum() else "-" for c in request.node.name)[:80].strip("-")
    hub.store.save(replace(hub.repo(template), id=name))
    return name
