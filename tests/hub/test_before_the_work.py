"""What would end a publishing is found before any work, and told in one line with the cure."""

from __future__ import annotations

import json
import time

import pytest
from finished_runs import make_run
from hub.conftest import ALICE, BOB
from hub.test_commands import Shell
from hub.test_hub_rules import push

from kun_builder.errors import PublishError
from kun_builder.hub.access import _check_person, check_address, check_place, check_ref, check_token
from kun_builder.hub.vanishing import vanishing
from kun_builder.result.manifest import MANIFEST


@pytest.fixture
def shell(tmp_path, hub):
    return Shell(tmp_path, hub)


@pytest.fixture
def reader(hub):
    """A token of alice's that may only read."""
    token = "hf_alice_reads"
    hub.tokens[token] = hub.tokens[ALICE]
    hub.readers.add(token)
    yield token
    del hub.tokens[token]
    hub.readers.clear()


@pytest.mark.parametrize("repo", ["published", "alice/new"])
def test_token_that_cannot_write(hub, shell, reader, first_run, published, repo):
    """A token that can only read is found by a dry run, for a repository that exists and for one that does not."""
    shell("push", first_run, published if repo == "published" else repo, "--token", reader, "--dry-run", code=1)
    assert "write permission" in shell.said
    assert not hub.counts()["create"] + hub.counts()["preupload"]


def test_namespace_of_others(hub, shell, first_run):
    """A new repository where the token's owner is no member is refused before the work."""
    shell("push", first_run, "lab/new", "--token", BOB, "--dry-run", code=1)
    assert "who is no member of lab" in shell.said


def test_hub_that_cannot_be_asked(hub, shell, first_run, published):
    """A server without these routes is no hindrance: the commit decides."""
    hub.fail("auth-check", status=404, times=9)
    hub.fail("whoami", status=404, times=9)
    shell("push", first_run, published, "--token", ALICE, "--dry-run")


PERSON = {"name": "alice", "orgs": [{"name": "Lab", "roleInOrg": "write"}, {"name": "read", "roleInOrg": "read"}]}


def _scoped(*scopes):
    token = {"role": "fineGrained", "fineGrained": {"scoped": list(scopes)}}
    return {**PERSON, "auth": {"accessToken": token}}


ALL_OF_LAB = {"entity": {"type": "org", "name": "lab"}, "permissions": ["repo.write"]}


def _only(name):
    return {"entity": {"type": "dataset", "name": name}, "permissions": ["repo.content.read", "repo.write"]}


@pytest.mark.parametrize(
    "person",
    [PERSON, {"name": "LAB"}, _scoped(ALL_OF_LAB), _scoped(_only("lab/other"), _only("datasets/Lab/Data"))],
)
def test_person_who_may(person):
    """Owners, members and fine-grained tokens of the namespace may write; case does not matter."""
    _check_person(person, "lab/data")


@pytest.mark.parametrize(
    ("person", "repo"),
    [
        (PERSON, "read/data"),
        (PERSON, "stranger/data"),
        ({**PERSON, "auth": {"accessToken": {"role": "read"}}}, "alice/data"),
        (_scoped(), "lab/data"),
        (_scoped(ALL_OF_LAB), "alice/data"),
        (_scoped(_only("lab/other")), "lab/data"),
        (_scoped({**ALL_OF_LAB, "permissions": ["repo.content.read"]}), "lab/data"),
        ({"name": None, "orgs": None, "auth": []}, "lab/data"),
    ],
)
def test_person_who_may_not(person, repo):
    """Readers, strangers and tokens of other scopes may not, whatever shape the answer has."""
    with pytest.raises(PublishError, match=f"cannot publish to {repo}"):
        _check_person(person, repo)


@pytest.mark.parametrize(
    "name",
    ["a b", "a..b", "-x", "x/", "/x", "x.lock", "a~1", "a^", "a:b", "@", "a@{b", "x.", "a\nb", "*", "0" * 40],
)
def test_impossible_refs(name):
    """Branches and tags that git refuses are refused before any request."""
    with pytest.raises(PublishError, match=r"cannot name a tag|is a commit"):
        check_ref(name, "tag")


@pytest.mark.parametrize("name", ["main", "v1.0", "feature/x-1", "release_2", "0" * 39, "0" * 41])
def test_possible_refs(name):
    """Usual names pass."""
    check_ref(name, "branch")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:80", "huggingface.co", "ftp://x", "http://", "http://x:y", "http://x:0", ""]
)
def test_address_without_scheme(address):
    """An address of the Hub that is none is named, with the variable."""
    with pytest.raises(PublishError, match="HF_ENDPOINT"):
        check_address(address)


@pytest.mark.parametrize("address", ["https://huggingface.co", "http://127.0.0.1:80", "https://hub.example.org:8443/x"])
def test_possible_addresses(address):
    """A host of the web, with or without a port, passes."""
    check_address(address)


def test_token_that_no_request_carries():
    """A token with a character that no token has is refused, and not repeated."""
    for token in ("hf_абв", "hf_a b", "hf_a\x00"):
        with pytest.raises(PublishError, match="character that no token has") as refused:
            check_token(token)
        assert token not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("repo", "endpoint", "token"),
    [
        ("alice/-x", "http://127.0.0.1", "hf_a"),
        ("alice/x", "127.0.0.1", "hf_a"),
        ("alice/x", "http://127.0.0.1", "hf_a b"),
    ],
    ids=["name", "address", "token"],
)
def test_a_place_that_cannot_be(repo, endpoint, token):
    """Name, address and token are all looked at; a place that may be passes."""
    check_place("alice/x", "http://127.0.0.1", "hf_a")
    with pytest.raises(PublishError):
        check_place(repo, endpoint, token)


@pytest.mark.slow
def test_no_traceback_for_names(tmp_path, hub, first_run):
    """Impossible names of repositories, tokens and addresses end in one line."""
    shell = Shell(tmp_path, hub)
    for repo in ("alice/-x", "alice/x.git", "alice/a--b", f"alice/{'x' * 100}"):
        shell("push", first_run, repo, "--token", ALICE, code=1)
    shell("push", first_run, "alice/x", "--token", "hf_ключ", code=1)
    shell("push", first_run, "alice/x", "--token", ALICE, "--tag", "a b", code=1)
    shell("push", first_run, "alice/x", "--token", ALICE, "--revision", "a..b", code=1)
    shell.env["HF_ENDPOINT"] = hub.url.removeprefix("http://")
    shell("push", first_run, "alice/x", "--token", ALICE, code=1)
    assert "HF_ENDPOINT" in shell.said
    assert not hub.calls


def test_branch_like_a_tag(hub, shell, first_run, published):
    """`--revision v1.0` where v1.0 is a tag is refused: no branch is made beside it."""
    shell("push", first_run, published, "--token", ALICE, "--tag", "v1.0")
    shell("push", first_run, published, "--token", ALICE, "--revision", "v1.0", "--dry-run", code=1)
    assert f"v1.0 is a tag of {published}" in shell.said


@pytest.mark.parametrize("route", ["refs", "info", "revision", "tree", "resolve"])
def test_outage_with_status_200(hub, zygote, published, second_run, route):
    """An outage page or an error with status 200 is waited out, and said if it lasts; never a traceback."""
    hub.fail(route, status=200, times=2)
    assert push(zygote, second_run, published).get("verified")
    hub.fail(route, status=200, times=1000)
    said = push(zygote, second_run, published, tries=2)
    assert "not an answer of the Hub's 2 times" in said["error"], said


def test_one_request_is_one(hub, zygote, published, second_run):
    """A commit that is refused at its only attempt is not said to have been tried six times."""
    hub.fail("commit", status=403, times=10)
    assert "times" not in push(zygote, second_run, published)["error"]


def test_lost_answer_is_our_own(hub, zygote, published, second_run):
    """If the answer to our commit was lost, the push says what it did, not that it was there already."""
    hub.fail("commit", drop=True, after=True)
    done = push(zygote, second_run, published)
    assert done["changed"]
    assert done["added"]


@pytest.mark.slow
def test_tries_are_ours_alone(hub, zygote, published, second_run):
    """A Hub that is down is asked as often as we say: the client's own retries are not inside ours."""
    for route in ("resolve", "batch"):
        hub.forget()
        fault = hub.fail(route, status=503, times=1000)
        began = time.monotonic()
        assert "error" in push(zygote, second_run, published, tries=2)
        assert fault.seen <= 4
        assert time.monotonic() - began < 20


@pytest.mark.slow
def test_server_without_xet(tmp_path, hub, first_run, published):
    """Where the server has no Xet, large files go by git LFS, and that is said."""
    shell = Shell(tmp_path, hub)
    del shell.env["HF_HUB_DISABLE_XET"]
    shell("push", first_run, "alice/no-xet", "--token", ALICE)
    assert hub.counts()["commit"] == 1


def test_split_without_rows_stays(hub, zygote, published, tmp_path):
    """A run without a row of a published split leaves the published rows, and says so."""
    run = make_run(tmp_path / "run", {"wudao": 0, "wanjuan": 5})
    done = push(zygote, run, published)
    assert done["rows"] == {"wudao": 30, "skypile": 20, "wanjuan": 5}
    assert any("no row of wudao" in line for line in done["said"])
    rows = zygote.run("publish_worker:load", repo=published, token=ALICE)
    assert {split: len(found) for split, found in rows.items()} == done["rows"]


def test_partial_push_keeps_the_title(hub, zygote, published, tmp_path):
    """A run of some splits under another name does not rename the dataset."""
    push(zygote, make_run(tmp_path / "run", {"wanjuan": 5}, name="another"), published)
    assert b"# my-kun" in hub.read(published, "README.md")


@pytest.mark.parametrize("lost", [(MANIFEST,), (MANIFEST, "README.md")])
def test_lost_manifest_loses_no_split(hub, zygote, published, tmp_path, lost):
    """Where the manifest is gone, splits of earlier runs are named and kept, also with --yes."""
    hub.write(published, dict.fromkeys(lost))
    stopped = push(zygote, make_run(tmp_path / "run", {"wanjuan": 5}), published, replace=True)
    assert "wudao" in stopped["error"]
    assert "skypile" in stopped["error"]
    assert MANIFEST in stopped["hint"]


def test_splits_of_others(hub, zygote, tmp_path):
    """A split of somebody else's card is named and kept, also with --yes."""
    hub.store.create("dataset", "alice/theirs", private=True)
    card = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: x/*.parquet}\n---\n"
    hub.write("alice/theirs", {"README.md": card, "x/1.parquet": b"PAR1"})
    stopped = push(zygote, make_run(tmp_path / "run", {"wudao": 5}), "alice/theirs", replace=True)
    assert stopped["error"].startswith("train of alice/theirs")


@pytest.mark.parametrize(
    ("configs", "lost"),
    [
        ([{"config_name": "default", "data_files": [{"split": "a", "path": "x"}, {"split": "b", "path": "x"}]}], ["b"]),
        ([{"config_name": "default", "data_files": {"a": "x", "c": "y"}}], ["c"]),
        ([{"config_name": "default", "data_files": "x"}], ["train"]),
        ([{"config_name": "other", "data_files": ["x"]}], ["other/train"]),
        ([{"config_name": "provenance", "data_files": [{"split": "a"}]}], []),
        ([{"config_name": name, "data_files": [{"split": "b"}]} for name in ("default", "provenance")], ["b"]),
        ([{"data_files": [{"path": "x"}]}], ["train"]),
        ("nonsense", ["data.csv"]),
        ([None, 3], ["data.csv"]),
    ],
)
def test_what_vanishes(configs, lost):
    """Splits are found however a card writes them; without any, data files speak for themselves."""
    card = f"---\n{json.dumps({'configs': configs})}\n---\n".encode()
    assert vanishing(card, ["README.md", "data.csv", "data/a-00000-of-00001.parquet"], ["README.md"], {"a": 3}) == lost


def test_files_speak_for_themselves():
    """Where no card names splits, names of data files do, each once; not ours, hidden ones or other files."""
    theirs = ["data/b-00000-of-00001.parquet", "provenance/b-00000-of-00001.parquet", "c.jsonl", "provenance/c.jsonl"]
    tree = [*theirs, "x/d.tsv", ".hidden/e.parquet", "notes.md", "data/a-00000-of-00002.parquet", "mine.csv"]
    assert vanishing(b"# words alone\n", tree, ["mine.csv"], {"a": 3}) == ["b", "c", "x/d.tsv"]
