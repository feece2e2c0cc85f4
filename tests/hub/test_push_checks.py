"""What a push asks before it begins, what it looks at again when it has written, and what it says of both."""

from __future__ import annotations

import shutil

import pytest
from finished_runs import make_run
from hub.conftest import ALICE, BOB
from hub.test_hub_rules import push

from kun_builder.result.manifest import MANIFEST

FUNNEL = "plots/funnel.png"


def check(zygote, repo, **target):
    return zygote.run("publish_worker:check", repo=repo, **{"token": ALICE, **target})


def make_public(hub, name):
    repo = hub.repo(name)
    repo.private = False
    hub.store.save(repo)


# --- before


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ({"offline": True}, "HF_HUB_OFFLINE is set"),
        ({"create_pr": True, "tag": "v1"}, "a pull request cannot be tagged before it is merged"),
        ({"revision": "a..b"}, "'a..b' cannot name a branch"),
        ({"tag": "a b"}, "'a b' cannot name a tag"),
    ],
    ids=["offline", "tagged-pull", "branch", "tag"],
)
def test_what_cannot_be_wanted(hub, zygote, target, error):
    """Contradictions and impossible names are told before the Hub is asked anything."""
    hub.forget()
    assert check(zygote, "alice/x", **target)["error"] == error
    assert not hub.calls


@pytest.mark.parametrize("target", [{}, {"tag": "v1"}, {"revision": "refs/pr/1"}], ids=["main", "tag", "pull"])
def test_what_may_be_wanted(hub, zygote, published, target):
    """A repository of one's own passes, and nothing is written to it."""
    assert check(zygote, published, **target) == {}
    assert {call.method for call in hub.calls} <= {"GET", "HEAD"}


def test_anybody_may_propose(hub, zygote, published):
    """Who may not write to a public repository is told so, unless it is a pull request."""
    make_public(hub, published)
    public = {"token": BOB, "private": False}
    assert "403" in check(zygote, published, **public)["error"]
    assert check(zygote, published, **public, create_pr=True) == {}


def test_a_new_repository_is_asked_of_its_owner(zygote):
    """Where there is no repository yet, whoever may make it passes, and nobody else."""
    assert check(zygote, "lab/new") == {}
    assert "no member of lab" in check(zygote, "lab/new", token=BOB)["error"]


def test_a_push_needs_a_token(hub, zygote, first_run):
    """Without a token nothing is asked, and the ways to have one are named."""
    hub.forget()
    refused = push(zygote, first_run, "alice/x", token=None)
    assert refused["error"] == "there is no Hub token"
    assert "HF_TOKEN" in refused["hint"]
    assert not hub.calls


def test_private_stays_private(hub, zygote, published, second_run):
    """That a private repository is not made public is said to those who asked for a public one, and to nobody else."""
    word = f"{published} is private and stays so: its settings on the Hub can make it public"
    assert word not in push(zygote, second_run, published, dry_run=True)["said"]
    assert word in push(zygote, second_run, published, dry_run=True, private=False)["said"]
    make_public(hub, published)
    assert word not in push(zygote, second_run, published, dry_run=True, private=False)["said"]
    assert push(zygote, second_run, "alice/no-repository", dry_run=True, private=False)["said"] == []


def test_a_dry_run_onto_a_new_branch(hub, zygote, published, second_run):
    """It shows what would be written on top of main, and makes no branch."""
    done = push(zygote, second_run, published, revision="next", dry_run=True)
    assert done["deleted"] == push(zygote, second_run, published, dry_run=True)["deleted"]
    assert done["commit"] == hub.repo(published).branches["main"]
    assert "next" not in hub.repo(published).branches


def test_a_file_of_somebody_else_in_our_place(hub, zygote, first_run):
    """A file that stands where one of ours goes, in a repository that is not ours, is replaced only with --yes."""
    hub.store.create("dataset", "alice/their-picture", private=True)
    hub.write("alice/their-picture", {FUNNEL: b"a picture of theirs"})
    refused = push(zygote, first_run, "alice/their-picture")
    assert refused["error"] == f"somebody else has changed alice/their-picture: {FUNNEL}"
    assert push(zygote, first_run, "alice/their-picture", replace=True)["verified"]
    assert hub.read("alice/their-picture", FUNNEL) != b"a picture of theirs"


def test_a_damaged_published_split(hub, zygote, published, second_run):
    """Published rows that cannot be read are named with their split, and nothing is overwritten."""
    hub.write(published, {"provenance/wudao-00000-of-00001.parquet": b"PAR1 and no more"})
    refused = push(zygote, second_run, published)
    assert refused["error"].startswith(f"the published rows of wudao in {published} cannot be read: ")
    assert not hub.counts()["put"]


def test_a_tag_that_is_there_already(hub, zygote, published, first_run):
    """A tag of the very commit is no hindrance to the same run; one of an earlier commit is, though nothing changes."""
    push(zygote, first_run, published, tag="v1")
    assert push(zygote, first_run, published, tag="v1")["verified"]
    repo = hub.repo(published)
    repo.tags["v0"] = hub.commits(published)[-1]
    hub.store.save(repo)
    refused = push(zygote, first_run, published, tag="v0")
    assert refused["error"] == f"the tag v0 of {published} already names commit {repo.tags['v0'][:12]}"


def test_a_dry_run_into_nothing(hub, zygote, first_run):
    """Where there is no repository there is no tag to look for: what would be written is told."""
    done = push(zygote, first_run, "alice/no-repository", dry_run=True, tag="v1")
    assert done["rows"] == {"wudao": 30, "skypile": 20}
    assert not done["changed"]
    assert done["url"] == f"{hub.url}/datasets/alice/no-repository"


# --- what is written


def test_what_a_commit_says(hub, zygote, published, second_run):
    """A commit has the user's message, or else the run's name, and the rows of each split; the address leads to it."""
    done = push(zygote, second_run, published, tag="v2", message="More of WuDao")
    said = hub.store.read_commit(done["commit"])
    assert said["title"] == "More of WuDao"
    assert sorted(said["description"].splitlines()) == ["skypile: 20 rows", "wanjuan: 10 rows", "wudao: 25 rows"]
    assert (done["tag"], done["url"]) == ("v2", f"{hub.url}/datasets/{published}/tree/{done['commit']}")


@pytest.mark.parametrize("private", [True, False], ids=["private", "public"])
def test_a_new_repository_is_as_private_as_was_meant(hub, zygote, first_run, private):
    """A repository is made private unless a public one is asked for, and its first commit is named after the run."""
    name = f"alice/made-{'private' if private else 'public'}"
    done = push(zygote, first_run, name, private=private)
    assert hub.repo(name).private == private
    assert hub.store.read_commit(done["commit"])["title"] == "Publish my-kun"


# --- after


def test_a_commit_that_lacks_what_was_sent(hub, zygote, published, second_run, monkeypatch):
    """If the Hub has made the commit and does not hold a file as it was sent, that file is named."""
    keep = hub.store.commit
    monkeypatch.setattr(
        hub.store,
        "commit",
        lambda parent, title, words, tree: keep(parent, title, words, tree | {FUNNEL: tree[MANIFEST]}),
    )
    stopped = push(zygote, second_run, published)
    commit = hub.commits(published)[0]
    assert stopped["error"] == f"commit {commit[:12]} was made, but does not hold what was sent: {FUNNEL}"


def test_a_reader_that_gets_another_row(hub, zygote, published, tmp_path):
    """The first row that a reader gets is the first one of the run, or the push says that it is not."""
    run = make_run(tmp_path / "run", {"wudao": 8, "skypile": 8})
    other = make_run(tmp_path / "other", {"skypile": 8}, seed=5)
    shutil.copytree(other / "kept", run / "kept", dirs_exist_ok=True)
    stopped = push(zygote, run, published)
    at = f"on the Hub at {hub.commits(published)[0][:12]}"
    assert stopped["error"] == f"the first row of skypile {at} is not the one that was sent"


def test_a_tag_that_somebody_gives_meanwhile(hub, zygote, published, second_run):
    """A tag that is given to another commit between ours and our tagging is left there, and said."""
    old = hub.commits(published)[0]

    def give():
        repo = hub.repo(published)
        repo.tags["v2"] = old
        hub.store.save(repo)

    hub.fail("commit", after=True, answered=True, call=give)
    stopped = push(zygote, second_run, published, tag="v2")
    assert stopped["error"] == f"the tag v2 was given to commit {old} meanwhile"
    assert hub.repo(published).tags == {"v2": old}


@pytest.mark.parametrize("create_pr", [False, True], ids=["commit", "pull"])
def test_a_lost_answer_changes_nothing_that_is_told(hub, zygote, published, second_run, create_pr):
    """A push whose commit got no answer tells the same as one with an answer: what was added, deleted and changed."""
    told = push(zygote, second_run, published, dry_run=True)
    hub.fail("commit", drop=True, after=True)
    done = push(zygote, second_run, published, create_pr=create_pr)
    assert done["changed"]
    assert told["added"]
    assert {name: done[name] for name in ("added", "deleted", "changes")} == {
        name: told[name] for name in ("added", "deleted", "changes")
    }


def test_each_run_has_its_own_pull_request(hub, zygote, published, second_run, tmp_path):
    """What another run proposes is another pull request, and the same one is proposed once."""
    other = make_run(tmp_path / "run", {"wudao": 9}, seed=4)
    pulls = [push(zygote, run, published, create_pr=True)["pull_request"] for run in (second_run, other, second_run)]
    assert pulls[0] == pulls[2] != pulls[1]
    assert len(hub.repo(published).pulls) == 2


def test_an_outage_is_no_missing_repository(hub, zygote, published, second_run):
    """Where the Hub does not say whether there is a repository, none is made."""
    hub.fail("info", status=503, times=1000)
    assert "503" in push(zygote, second_run, published, tries=2)["error"]
    assert not hub.counts()["create"]


# --- how requests are sent


def test_no_token_for_a_page_elsewhere(hub, zygote, published, monkeypatch):
    """If the Hub names another address for the next page of a listing, it is asked there without the token."""
    make_public(hub, published)
    monkeypatch.setattr(hub, "pages_url", hub.storage_url)
    found = zygote.run("publish_worker:read", repo=published, path="recipe.lock.yaml", token=ALICE)
    assert found["files"] == sorted(hub.files(published))
    assert {call.token for call in hub.calls if call.storage and call.route == "tree"} == {""}


def test_an_outage_page_in_the_place_of_a_file(hub, zygote, template):
    """What comes with status 200 and is not the file that the repository lists is asked for again."""
    hub.fail("resolve", nth=2, status=200)
    found = zygote.run("publish_worker:read", repo=template, path="recipe.lock.yaml", token=ALICE)
    assert found["content"] == hub.read(template, "recipe.lock.yaml").decode()
    assert ["not an answer of the Hub's" in line for line in found["said"]] == [True]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("where", ["tree:2", "resolve:2"], ids=["page", "content"])
def test_only_we_try_again(hub, zygote, template, status, where):
    """An outage at a page of a listing, or in the place of a file, is said: no client tries again by itself."""
    route, _, nth = where.partition(":")
    hub.fail(route, nth=int(nth), status=status)
    found = zygote.run("publish_worker:read", repo=template, path="recipe.lock.yaml", token=ALICE)
    assert found["content"] == hub.read(template, "recipe.lock.yaml").decode()
    assert found["files"] == sorted(hub.files(template))
    assert [f"the Hub answered {status}" in line for line in found["said"]] == [True]
