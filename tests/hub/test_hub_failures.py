"""A push that fails anywhere leaves the old dataset or the new one, and the next push completes it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from hub.conftest import ALICE

ROUTES = ("info", "refs", "revision", "tree", "resolve", "validate-yaml", "preupload", "batch", "put", "verify")
LATE = ("commit", "tag", "tree:5", "resolve:5", "download:3")
"""Routes of a push in order; `name:n` is the nth request."""


def plant(hub, where, **fault):
    route, _, nth = where.partition(":")
    return hub.fail(route, nth=int(nth or 1), **fault)


def push(zygote, run, repo, **options):
    return zygote.run("publish_worker:push", run=str(run), repo=repo, token=ALICE, tag="v2", **options)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("where", [*ROUTES, *LATE])
def test_killed(hub, zygote, published, second_run, where, after):
    """Killed before or after any request: the old dataset or the new one; the next push uploads what is missing."""
    old, process = hub.files(published), []
    fault = plant(hub, where, after=after, call=lambda: os.kill(process[0], signal.SIGKILL))
    process.append(zygote.start("publish_worker:push", run=str(second_run), repo=published, token=ALICE, tag="v2"))
    assert zygote.wait()["status"] == -signal.SIGKILL, hub.counts()
    assert fault.seen
    left = hub.files(published)
    done = push(zygote, second_run, published)
    assert done["verified"], done
    assert left in (old, hub.files(published))
    assert done["changed"] == (left == old)
    assert hub.repo(published).tags == {"v2": done["commit"]}
    large = [entry for entry in hub.files(published).values() if entry.lfs and entry not in old.values()]
    under_way = 5 if where in ("put", "verify") else 0  # as many at once; each is verified when it is put
    assert hub.counts()["put"] - len({entry.sha256 for entry in large}) <= under_way
    assert len(hub.commits(published)) == len(hub.commits("alice/template")) + 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", [{"status": 503}, {"drop": True}], ids=["503", "cut"])
@pytest.mark.parametrize("where", [*ROUTES, *LATE])
def test_passing_failure(hub, zygote, published, second_run, where, fault):
    """An outage, a cut connection or a rate limit at any request is waited out, and one commit is made."""
    planted = plant(hub, where, **fault)
    done = push(zygote, second_run, published)
    assert done.get("verified"), done
    assert done["changed"]
    assert planted.seen
    assert len(hub.commits(published)) == len(hub.commits("alice/template")) + 1


@pytest.mark.parametrize("where", ["commit", "tag", "put", "verify"])
def test_lost_answer(hub, zygote, published, second_run, where):
    """A request that was carried out and whose answer was lost is not carried out twice."""
    plant(hub, where, drop=True, after=True)
    done = push(zygote, second_run, published)
    assert done["verified"], done
    assert len(hub.commits(published)) == len(hub.commits("alice/template")) + 1
    assert hub.repo(published).tags == {"v2": done["commit"]}


def test_server_says_when(hub, zygote, published, second_run):
    """The wait that a 429 asks for is kept."""
    hub.fail("commit", status=429, headers={"Retry-After": "7"})
    hub.fail("tag", status=429, headers={"Retry-After": "5"})
    done = push(zygote, second_run, published)
    assert done["verified"]
    assert done["waits"] == [7, 5]
    assert "429" in done["said"][0]


@pytest.mark.parametrize("where", ["info", "commit", "tag", "resolve:3"])
def test_lasting_outage(hub, zygote, published, second_run, where):
    """An outage that does not end stops the push with one line that says what and how often; later it goes on."""
    plant(hub, where, status=503, times=100)
    stopped = push(zygote, second_run, published, tries=3)
    assert "3" in stopped["error"]
    assert "push" in stopped["hint"]
    hub.forget()
    assert push(zygote, second_run, published)["verified"]


@pytest.mark.slow
def test_outage_after_the_commit(hub, zygote, published, second_run):
    """If what was published cannot be read back, the message says that it is published; the next push checks it."""
    hub.fail("commit", after=True, answered=True, call=lambda: hub.fail("resolve", status=503, times=1000))
    stopped = push(zygote, second_run, published, tries=2)
    commit = hub.commits(published)[0]
    assert f"commit {commit[:12]} is on the Hub, but could not be read back" in stopped["error"]
    assert "2 times" in stopped["error"]
    assert "is published" in stopped["hint"]
    assert hub.repo(published).tags == {"v2": commit}
    hub.forget()
    done = push(zygote, second_run, published)
    assert (done["verified"], done["changed"], done["commit"]) == (True, False, commit)


@pytest.mark.slow
def test_reader_is_tried_again(hub, zygote, published, second_run):
    """A reader that met an outage is started again until one has read a row of every split."""
    outage = []
    hub.fail("commit", after=True, answered=True, call=lambda: outage.append(hub.fail("resolve", status=503, times=8)))
    done = push(zygote, second_run, published)
    assert done["verified"]
    assert outage[0].seen > 8
    assert "a reader failed" in done["said"][0]


@pytest.mark.slow
def test_token_of_the_reader(hub, zygote, published, second_run):
    """The process that reads back has the token from its environment; no command line of the machine shows it."""
    found = []

    def look():
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes()
                if b"kun_builder.hub.readback" in command:
                    found.append(f"HF_TOKEN={ALICE}".encode() in (process / "environ").read_bytes().split(b"\0"))
                assert ALICE.encode() not in command

    always = {"after": True, "answered": True, "times": 1000}
    hub.fail("commit", after=True, answered=True, call=lambda: hub.fail("resolve", call=look, **always))
    assert push(zygote, second_run, published)["verified"]
    assert found
    assert all(found)


@pytest.mark.parametrize(("status", "cure"), [(401, "token"), (403, "permission"), (413, "too large")])
def test_refused(hub, zygote, published, second_run, status, cure):
    """What cannot get better is tried once, and the cure is named."""
    fault = plant(hub, "preupload", status=status, times=100)
    stopped = push(zygote, second_run, published)
    assert str(status) in stopped["error"]
    assert cure in stopped["hint"]
    assert fault.seen == 1


def test_first_push_killed_at_creation(hub, zygote, first_run):
    """A repository that was created by a push that died at once is filled by the next one."""
    process = []
    hub.fail("create", after=True, call=lambda: os.kill(process[0], signal.SIGKILL))
    process.append(zygote.start("publish_worker:push", run=str(first_run), repo="alice/newborn", token=ALICE))
    assert zygote.wait()["status"] == -signal.SIGKILL
    assert list(hub.files("alice/newborn")) == [".gitattributes"]
    done = zygote.run("publish_worker:push", run=str(first_run), repo="alice/newborn", token=ALICE)
    assert done["verified"]
    assert hub.repo("alice/newborn").private
