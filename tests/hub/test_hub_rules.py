"""What a push may and may not do to a repository that others use, too."""

from __future__ import annotations

import json

import pytest
from finished_runs import make_run
from hub.conftest import ALICE, BOB

from kun_builder.result.own_words import BEGIN, END


def push(zygote, run, repo, **options):
    return zygote.run("publish_worker:push", run=str(run), repo=repo, **{"token": ALICE, **options})


def test_same_run_twice(hub, zygote, published, first_run):
    """Pushing the same run again uploads nothing and makes no commit."""
    push(zygote, first_run, published)  # the card names the repository, which is a copy
    before = hub.commits(published)
    hub.forget()
    again = push(zygote, first_run, published)
    assert again["verified"]
    assert not again["changed"]
    assert hub.commits(published) == before
    assert not hub.counts()["put"] + hub.counts()["commit"]


def test_reader_gets_rows(hub, zygote, published, first_run):
    """`load_dataset` reads both configurations: two string columns, and the provenance in the same order."""
    rows = zygote.run("publish_worker:load", repo=published, token=ALICE)
    provenance = zygote.run("publish_worker:load", repo=published, config="provenance", token=ALICE)
    assert {split: len(found) for split, found in rows.items()} == {"wudao": 30, "skypile": 20}
    for split, found in rows.items():
        assert [{k: row[k] for k in ("instruction", "output")} for row in provenance[split]] == found
        assert all(row["text"] for row in provenance[split])


def test_incremental_release(hub, zygote, published, second_run):
    """A new run updates its own splits, keeps the others, and the card says what changed."""
    old = hub.files(published)
    done = push(zygote, second_run, published)
    assert done["rows"] == {"wudao": 25, "skypile": 20, "wanjuan": 10}
    assert done["changes"]["splits"]["wudao"] == {"rows": 25, "added": 0, "removed": 5, "changed": 25}
    assert done["changes"]["splits"]["wanjuan"] == {"rows": 10, "added": 10, "removed": 0, "changed": 0}
    assert "steps.score.threshold: 0.5 → 0.6" in done["changes"]["recipe"]
    new = hub.files(published)
    kept = [path for path in old if "skypile" in path]
    assert len(kept) == 2
    assert all(new[path] == old[path] for path in kept)
    assert sum(path.endswith("lock.yaml") for path in new) == 2, "the lock of the run behind skypile stays"
    card = hub.read(published, "README.md").decode()
    assert "| `wudao` | 25 | 0 | 5 | 25 |" in card
    rows = zygote.run("publish_worker:load", repo=published, token=ALICE)
    assert {split: len(found) for split, found in rows.items()} == done["rows"]


def test_stale_files_go(hub, zygote, published, tmp_path, first_run):
    """Files of ours that the new release has no use for are deleted in the same commit; nobody else's are."""
    manifest = json.loads(hub.read(published, ".kun/manifest.json"))
    stale = "data/wudao-00001-of-00002.parquet"
    manifest["files"][stale] = dict(manifest["files"]["README.md"], split="wudao")
    manifest["splits"]["wudao"]["files"].append(stale)
    content = {stale: hub.read(published, "README.md"), "notes/mine.txt": b"a reader's notes"}
    hub.write(published, {**content, ".kun/manifest.json": json.dumps(manifest).encode()})
    run = make_run(tmp_path / "run", {"wudao": 8}, seed=2)
    done = push(zygote, run, published)
    assert done["deleted"] == [stale]
    assert stale not in hub.files(published)
    assert hub.read(published, "notes/mine.txt") == b"a reader's notes"
    assert len(hub.commits(published)) == len(hub.commits("alice/template")) + 2


def test_someone_edited_the_card(hub, zygote, published, second_run):
    """A file of ours that somebody else changed is not overwritten unless the user says so."""
    edited = hub.write(published, {"README.md": b"---\nlicense: mit\n---\nmy own words\n"})
    refused = push(zygote, second_run, published)
    assert "README.md" in refused["error"]
    assert "--yes" in refused["hint"]
    assert hub.repo(published).branches["main"] == edited
    assert not hub.counts()["put"]
    assert push(zygote, second_run, published, replace=True)["verified"]


def test_someone_wrote_in_the_card(hub, zygote, published, second_run):
    """Words between the two lines of the card are kept by the next push, unasked; a second one changes nothing."""
    card = hub.read(published, "README.md").decode()
    hub.write(published, {"README.md": card.replace(BEGIN, f"{BEGIN}\r\n## Ours\r\nHandle with care.").encode()})
    assert push(zygote, second_run, published).get("changed")
    assert f"{BEGIN}\n## Ours\nHandle with care.\n{END}" in hub.read(published, "README.md").decode()
    assert not push(zygote, second_run, published)["changed"]


def test_someone_changed_a_split_that_stays(hub, zygote, published, second_run):
    """A file of a split that this run does not make, changed by somebody else, cannot be put right: nothing is done."""
    edited = hub.write(published, {"data/skypile-00000-of-00001.parquet": b"PAR1"})
    refused = push(zygote, second_run, published, replace=True)
    assert "skypile" in refused["error"]
    assert hub.repo(published).branches["main"] == edited


def test_strangers_file_in_a_split(hub, zygote, published, second_run):
    """A stranger's file that `load_dataset` would read as part of a split stops the push, and is not deleted."""
    hub.write(published, {"data/wudao-extra.parquet": b"PAR1"})
    refused = push(zygote, second_run, published, replace=True)
    assert "data/wudao-extra.parquet" in refused["error"]
    assert "data/wudao-extra.parquet" in hub.files(published)


def test_someone_commits_meanwhile(hub, zygote, published, second_run):
    """Somebody else's commit of other files between our reading and our commit: we commit on top of it."""
    hub.fail("preupload", after=True, call=lambda: hub.write(published, {"notes.txt": b"hello"}), status=200)
    hub.faults[-1].status = 0
    hub.faults[-1].drop = True
    done = push(zygote, second_run, published)
    assert done["verified"], done
    assert hub.read(published, "notes.txt") == b"hello"
    assert any("somebody else" in line for line in done["said"])
    assert hub.counts()["commit"] == 2, "the first was refused with 412"


def test_someone_edits_the_card_meanwhile(hub, zygote, published, second_run):
    """Somebody else's change to a file of ours, in the middle of our push, is not overwritten."""
    words = b"---\nlicense: mit\n---\nmy own words\n"
    hub.fail("batch", after=True, drop=True, call=lambda: hub.write(published, {"README.md": words}))
    refused = push(zygote, second_run, published)
    assert "README.md" in refused["error"]
    assert hub.read(published, "README.md") == words


def test_two_pushes_of_other_splits(hub, zygote, published, second_run, tmp_path):
    """Another run published in the middle of our push: both are in the dataset in the end."""
    other = make_run(tmp_path / "other", {"baike": 7}, seed=3, name="other")
    result = zygote.run(
        "publish_worker:push_during_push", run=str(second_run), other=str(other), repo=published, token=ALICE
    )
    assert result["rows"] == {"wudao": 25, "skypile": 20, "baike": 7, "wanjuan": 10}
    assert len(zygote.run("publish_worker:load", repo=published, token=ALICE)["baike"]) == 7


def test_tag_is_taken(hub, zygote, published, second_run):
    """A tag that names another commit stops the push before anything is uploaded."""
    repo = hub.repo(published)
    repo.tags["v1"] = repo.branches["main"]
    hub.store.save(repo)
    refused = push(zygote, second_run, published, tag="v1")
    assert "v1" in refused["error"]
    assert not hub.counts()["put"]


def test_tag_later(hub, zygote, published, first_run):
    """A published run can be tagged by pushing it again."""
    push(zygote, first_run, published)
    done = push(zygote, first_run, published, tag="v1.0")
    assert not done["changed"]
    assert hub.repo(published).tags == {"v1.0": done["commit"]}


def test_branch(hub, zygote, published, second_run):
    """`--revision` commits to a branch, and makes it if need be; main stays as it is."""
    before = hub.repo(published).branches["main"]
    done = push(zygote, second_run, published, revision="next")
    assert hub.repo(published).branches == {"main": before, "next": done["commit"]}
    assert not push(zygote, second_run, published, revision="next")["changed"]


def test_pull_request(hub, zygote, published, second_run):
    """`--create-pr` opens one pull request, however often it is pushed, and leaves main alone."""
    before = hub.repo(published).branches["main"]
    hub.fail("commit", after=True, drop=True)
    first = push(zygote, second_run, published, create_pr=True)
    again = push(zygote, second_run, published, create_pr=True)
    assert first["pull_request"] == again["pull_request"]
    assert len(hub.repo(published).pulls) == 1
    assert hub.repo(published).branches["main"] == before


def test_dry_run(hub, zygote, published, second_run):
    """A dry run says what it would do, and asks nothing that changes anything."""
    done = push(zygote, second_run, published, dry_run=True)
    assert "data/wanjuan-00000-of-00001.parquet" in done["added"]
    assert done["changes"]["splits"]["wudao"]["removed"] == 5
    assert {call.method for call in hub.calls} <= {"GET", "HEAD"}


def test_dry_run_of_new_repository(hub, zygote, first_run):
    """A dry run into a repository that does not exist does not create it."""
    done = push(zygote, first_run, "alice/not-yet", dry_run=True)
    assert done["rows"] == {"wudao": 30, "skypile": 20}
    assert hub.store.repo("dataset", "alice/not-yet") is None


def test_private_by_default(hub, zygote, published, first_run):
    """A public repository is not published to unless public was meant."""
    repo = hub.repo(published)
    assert repo.private
    repo.private = False
    hub.store.save(repo)
    assert "public" in push(zygote, first_run, published)["error"]
    assert push(zygote, first_run, published, private=False)["verified"]


@pytest.mark.parametrize(("token", "status"), [(BOB, 403), ("hf_wrong", 401)])
def test_no_permission(hub, zygote, published, first_run, token, status):
    """Someone else's private repository cannot be seen or made; a wrong token is said to be wrong."""
    refused = push(zygote, first_run, published, token=token)
    assert str(status) in refused["error"]
    assert "token" in refused["hint"]
    assert token not in json.dumps(refused)


def test_public_repository_of_others(hub, zygote, published, second_run):
    """Without write permission the refusal names the cure; a pull request is possible."""
    repo = hub.repo(published)
    repo.private = False
    hub.store.save(repo)
    refused = push(zygote, second_run, published, token=BOB, private=False)
    assert "403" in refused["error"]
    assert "write permission" in refused["hint"]
    assert push(zygote, second_run, published, token=BOB, private=False, create_pr=True)["pull_request"]


def test_repository_of_a_newer_version(hub, zygote, published, first_run):
    """A manifest of a later format is not guessed at."""
    hub.write(published, {".kun/manifest.json": b'{"format": 99}'})
    assert "99" in push(zygote, first_run, published)["error"]


def test_token_stays_with_the_hub(hub, zygote, published, second_run):
    """The token goes to the Hub alone: not to the storage that it names."""
    assert push(zygote, second_run, published)["verified"]
    storage = [call for call in hub.calls if call.storage]
    assert {call.method for call in storage} >= {"PUT", "GET"}
    assert not [call for call in storage if call.token]
