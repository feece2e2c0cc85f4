"""Publishing on the Hub: large files first, then one commit with everything, the tag, and a look at what is there.

A reader at any moment sees the old dataset or the new one. Every step can fail, and the process can die after any of
them: the next push finds out what is done already, and does the rest. Nothing of somebody else's is deleted, and
nothing that somebody else changed is overwritten unasked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_token

from kun_builder.errors import PublishError
from kun_builder.hub.access import check_ref
from kun_builder.hub.repository import Head, Repository
from kun_builder.hub.retry import Conflict, LookAgain, LostAnswer, Retry
from kun_builder.hub.vanishing import vanishing
from kun_builder.result.file_facts import FileFacts
from kun_builder.result.finished import FinishedRun, open_finished
from kun_builder.result.loading import check_loads
from kun_builder.result.manifest import MANIFEST
from kun_builder.result.release import Release, compose, made_by
from kun_builder.result.stats import rows_at
from kun_builder.run.folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where to publish, and how.

    replace: whether what somebody else has changed in the repository may be overwritten.
    token: that of the Hub; None takes the one of `hf auth login`.
    """

    repo: str
    revision: str = "main"
    private: bool = True
    tag: str = ""
    create_pr: bool = False
    message: str = ""
    replace: bool = False
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a push did, or would do. `changed` is False where the repository held everything already."""

    repo: str
    url: str
    rows: Mapping[str, int]
    added: tuple[str, ...]
    deleted: tuple[str, ...]
    changes: Mapping[str, Any]
    """Rows added, removed and rewritten per split, and what differs in the recipe."""
    commit: str = ""
    changed: bool = False
    dry_run: bool = False
    tag: str = ""
    pull_request: str = ""
    verified: bool = False
    """That the commit was read back from the Hub."""


@dataclass(frozen=True)
class Change:
    """What a commit has to write to a revision and to delete in it. It is false where there is nothing to do."""

    add: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)


def check_access(target: Target, *, retry: Retry) -> None:
    """Ask the Hub, before work begins, what would end its publishing. Raises PublishError."""
    if constants.is_offline_mode():
        raise PublishError("HF_HUB_OFFLINE is set", hint="unset it to publish")
    if target.create_pr and target.tag:
        raise PublishError("a pull request cannot be tagged before it is merged", hint="leave --tag or --create-pr out")
    check_ref(target.revision.removeprefix("refs/"), "branch")
    if target.tag:
        check_ref(target.tag, "tag")
    repo = Repository(target.repo, target.token, retry)
    revision = _prepare(repo, target, dry_run=True)
    if not target.create_pr:  # which anybody may propose
        repo.check_writable(exists=bool(revision))


def push(path: Path, target: Target, *, retry: Retry, dry_run: bool = False) -> Published:
    """Publish the finished run in `path`. Raises PublishError; what was uploaded until then is not uploaded again."""
    check_access(target, retry=retry)
    with RunFolder(path).lock():
        run = open_finished(path)
        check_loads(run)
        return publish(run, target, retry=retry, dry_run=dry_run)


def publish(run: FinishedRun, target: Target, *, retry: Retry, dry_run: bool = False) -> Published:
    """Make the repository hold `run`, with one commit, or with none if it does already: the Hub's part of `push`."""
    repo = Repository(target.repo, target.token, retry)
    revision = _prepare(repo, target, dry_run)
    if not target.private and repo.private():
        retry.say(f"{target.repo} is private and stays so: its settings on the Hub can make it public")

    sent: Published | None = None

    def attempt() -> Published:
        nonlocal sent
        try:
            done = _bring(repo, run, target, repo.head(revision) if revision else Head(), dry_run)
        except Unanswered as lost:
            sent = lost.sent
            raise
        return _own(done, sent)

    return retry.look_again(f"could not commit to {target.repo}", attempt)


class Unanswered(LookAgain):
    """A commit was sent and no answer came, so that nobody knows whether it was made. `sent` is what it publishes."""

    def __init__(self, lost: LostAnswer, sent: Published) -> None:
        super().__init__(str(lost), lost.wish)
        self.sent = sent


def _own(published: Published, sent: Published | None) -> Published:
    """What the push did: where the repository holds everything already, a commit of ours without an answer was made."""
    if sent is None or published.changed:
        return published
    return replace(published, changed=True, added=sent.added, deleted=sent.deleted)


def _prepare(repo: Repository, target: Target, dry_run: bool) -> str:
    """Create the repository and its branch where they are missing, and return the revision to publish onto.

    A dry run creates nothing; without a repository it returns an empty string.

    Raises PublishError where public is not what was meant.
    """
    if not (target.token or get_token()):
        raise PublishError("there is no Hub token", hint="log in with `hf auth login`, or give one with HF_TOKEN")
    private = repo.private()
    if private is False and target.private:
        raise PublishError(f"{target.repo} is public", hint="publish there with --no-private")
    if private is None:
        if dry_run:
            return ""
        repo.create(private=target.private)
    branches, tags = repo.names()
    if target.revision in branches or target.revision.startswith("refs/"):
        return target.revision
    if target.revision in tags:
        raise PublishError(
            f"{target.revision} is a tag of {target.repo}, and tags do not move",
            hint="name a branch with --revision; --tag gives the new commit a name",
        )
    if dry_run:
        return "main"  # where the branch would begin
    repo.create_branch(target.revision)
    return target.revision


def _bring(repo: Repository, run: FinishedRun, target: Target, head: Head, dry_run: bool) -> Published:
    """Try once to commit on top of `head`.

    Raises LookAgain if somebody else has changed the repository meanwhile, so that it has to be read again.
    """
    release = compose(run, repo.base(head), target.repo)
    change = _change(release, head, target)
    if change:
        _refuse_vanishing(repo, release, head)
    if left := [name for name in run.report.splits if name not in made_by(run, head.manifest or {})]:
        repo.retry.say(f"this run has no row of {', '.join(left)}: what is published of it stays")
    if target.tag and head.commit:
        _check_tag(repo, target, head, change)
    published = Published(
        repo=target.repo,
        url=repo.url,
        rows=release.rows,
        added=change.add,
        deleted=change.delete,
        changes=release.changes,
        commit=head.commit,
        dry_run=dry_run,
    )
    if dry_run:
        return published
    if change and target.create_pr and (pull := repo.proposed(release)):
        return replace(published, pull_request=pull)
    if change:
        message = target.message or f"Publish {release.changes['name']}"
        where = {"revision": target.revision, "parent_commit": head.commit, "create_pr": target.create_pr}
        try:
            info = repo.commit(release, change.add, change.delete, message, **where)
        except LostAnswer as lost:
            raise Unanswered(lost, published) from lost
        published = replace(published, commit=info.oid, changed=True, pull_request=info.pr_url or "")
    if target.tag:
        _tag(repo, target.tag, published.commit)
    _read_back(repo, run, release, published.commit)
    return replace(published, verified=True, tag=target.tag, url=f"{repo.url}/tree/{published.commit}")


def _change(release: Release, head: Head, target: Target) -> Change:
    """What the commit has to write and delete. Raises PublishError where it would overwrite a file that is not ours."""
    ours = {path: _facts(entry) for path, entry in (head.manifest or {}).get("files", {}).items()}
    add = tuple(path for path in release.files if not head.holds(path, release.facts[path]))
    delete = tuple(path for path in ours if path not in release.facts and path in head.tree)
    changed = [path for path, facts in ours.items() if not head.holds(path, facts)]
    if lost := [path for path in changed if path in release.facts and path not in release.files]:
        raise PublishError(
            f"somebody else has changed {target.repo}: {', '.join(lost)}, of a split that this run does not make",
            hint="undo that on the Hub, or publish the run that made the split again, with --yes",
        )
    foreign = [path for path in changed if path in (*add, *delete) and path not in release.merged]
    foreign += [path for path in add if path in head.tree and path not in ours and path != MANIFEST]
    if foreign and not target.replace:
        raise PublishError(
            f"somebody else has changed {target.repo}: {', '.join(foreign)}",
            hint="look at these files; push again with --yes to replace them. Words between the two lines for your own"
            " words in README.md are kept in any case",
        )
    _refuse_mixture(release, head, ours, target)
    return Change(add, delete)


def _refuse_vanishing(repo: Repository, release: Release, head: Head) -> None:
    """Raise PublishError where a reader could no longer load a split that is there now.

    The new card names only splits of ours, and so hides any other. This is refused even if the user has said --yes.
    """
    readme = repo.read(head, "README.md") if "README.md" in head.tree else b""
    if lost := vanishing(readme, head.tree, release.facts, release.rows):
        raise PublishError(
            f"{', '.join(lost)} of {repo.name}, which readers can load now, would be out of their reach",
            hint="publish into another repository, or delete or move them on the Hub; if an earlier run made them,"
            f" bring {MANIFEST} back from an earlier commit",
        )


def _refuse_mixture(release: Release, head: Head, ours: Mapping[str, FileFacts], target: Target) -> None:
    """Raise PublishError for a stranger's file among ours, which `load_dataset` would read as part of a split."""
    prefixes = tuple(f"{folder}/{split}-" for folder in ("data", "provenance") for split in release.rows)
    for path in head.tree:
        if path.startswith(prefixes) and path not in release.facts and path not in ours:
            raise PublishError(
                f"{path} in {target.repo} is not ours, and would be read as part of the dataset",
                hint="move or delete it on the Hub, or publish into another repository",
            )


def _facts(entry: Mapping[str, Any]) -> FileFacts:
    return FileFacts(entry["sha256"], entry["git"], entry["size"])


def _check_tag(repo: Repository, target: Target, head: Head, change: Change) -> None:
    """Raise PublishError, before anything is uploaded, where the tag already names another commit."""
    at = repo.tagged(target.tag)
    if at is not None and (change or at != head.commit):
        raise PublishError(
            f"the tag {target.tag} of {target.repo} already names commit {at[:12]}",
            hint="choose another tag: tags do not move",
        )


def _tag(repo: Repository, tag: str, commit: str) -> None:
    """Give the commit its tag, unless an earlier attempt has done so."""
    try:
        repo.tag(tag, commit)
    except Conflict as error:
        if (at := repo.tagged(tag)) != commit:
            raise PublishError(f"the tag {tag} was given to commit {at} meanwhile") from error


def _read_back(repo: Repository, run: FinishedRun, release: Release, commit: str) -> None:
    """Look at the Hub as a reader would: at the files of the commit, and at the first row of each split.

    Raises PublishError where they are not what was published.
    """
    splits = [split for split, rows in release.rows.items() if rows]
    try:
        found, streamed = repo.files(commit), repo.first_rows(commit, splits)
    except PublishError as error:
        raise PublishError(
            f"commit {commit[:12]} is on the Hub, but could not be read back: {error.message}",
            hint="the dataset is published; push again to have it checked",
        ) from error
    if wrong := [path for path, facts in release.facts.items() if not found.holds(path, facts)]:
        raise PublishError(f"commit {commit[:12]} was made, but does not hold what was sent: {', '.join(wrong)}")
    for split in splits:
        row = streamed[split]
        mine = split in run.kept and run.report.splits[split].kept
        sent = next(rows_at(run.kept[split], [0], run.columns), None) if mine else row
        if row is None or row != sent:
            raise PublishError(f"the first row of {split} on the Hub at {commit[:12]} is not the one that was sent")
