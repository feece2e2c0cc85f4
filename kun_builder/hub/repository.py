"""A dataset repository on the Hub: one method for each thing that is asked of it or written to it.

Every request is tried again as long as that can help, and the token goes nowhere else. What to write, and whether, is
decided by `kun_builder.hub.push`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pyarrow as pa
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    constants,
)
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import get_session, hf_raise_for_status

from kun_builder.errors import PublishError
from kun_builder.hub.access import check_place, check_writable
from kun_builder.hub.client import keep_token_home
from kun_builder.hub.readback import Rows, first_rows
from kun_builder.hub.retry import Retry, StrangeAnswer, answered
from kun_builder.result.file_facts import FileFacts, file_facts
from kun_builder.result.manifest import MANIFEST, read_manifest
from kun_builder.result.release import Base, Digests, Release, columns_of, digest_rows, rows_of

_COMMIT = re.compile("[0-9a-f]{40}")
_MOST = 64 << 20  # bytes of a manifest, a lock file or a card: hundreds of times what a large one of ours has


@dataclass(frozen=True)
class Head:
    """What a revision of a repository holds.

    `tree` has, for each path, what the Hub knows the content by: the SHA-256 of a large file, git's blob id of a small
    one. `sizes` are in bytes. `manifest` is ours, None if the revision has none.
    """

    commit: str = ""
    tree: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    manifest: Mapping[str, Any] | None = None

    def holds(self, path: str, facts: FileFacts) -> bool:
        """Whether the revision has the file, and with this content."""
        return self.tree.get(path) in (facts.sha256, facts.git)


class Repository:
    """The dataset repository `name`. Every request is tried again as `retry` says; all raise PublishError."""

    def __init__(self, name: str, token: str | None, retry: Retry) -> None:
        check_place(name, constants.ENDPOINT, token)
        keep_token_home(constants.ENDPOINT)
        self.name = name
        self.retry = retry
        self._token = token
        self._api = HfApi(token=token)
        self._of: dict[str, Any] = {"repo_id": name, "repo_type": "dataset"}

    @property
    def url(self) -> str:
        """Address of the repository's page."""
        return f"{constants.ENDPOINT}/datasets/{self.name}"

    # --- reading

    def private(self) -> bool | None:
        """Whether the repository is private. None if there is none, or none that the token is allowed to see."""
        try:
            return bool(self.retry(f"looking up {self.name}", self._api.repo_info, **self._of).private)
        except PublishError as error:
            if isinstance(error.__cause__, RepositoryNotFoundError):
                return None
            raise

    def check_writable(self, *, exists: bool) -> None:
        """Raise PublishError where the token may not write to the repository, or, if there is none, not create it."""
        check_writable(self._api, self.name, self.retry, exists=exists)

    def names(self) -> tuple[set[str], set[str]]:
        """Names of its branches and of its tags."""
        refs = self.retry("listing branches", self._api.list_repo_refs, **self._of)
        return {branch.name for branch in refs.branches}, {tag.name for tag in refs.tags}

    def tagged(self, tag: str) -> str | None:
        """The commit that a tag names."""
        refs = self.retry("listing tags", self._api.list_repo_refs, **self._of)
        return next((ref.target_commit for ref in refs.tags if ref.name == tag), None)

    def head(self, revision: str) -> Head:
        """What a revision holds at present."""

        def sha() -> str:
            found = self._api.repo_info(revision=revision, **self._of).sha
            if not (isinstance(found, str) and _COMMIT.fullmatch(found)):
                raise StrangeAnswer(f"{found!r} is no commit")
            return found

        commit = self.retry("reading the repository", sha)
        head = self.files(commit)
        return replace(head, manifest=read_manifest(self.read(head, MANIFEST))) if MANIFEST in head.tree else head

    def files(self, commit: str) -> Head:
        """What a commit holds: the names, identities and sizes of all its files. None of the files is read."""

        def listing() -> Head:
            entries = self._api.list_repo_tree(recursive=True, revision=commit, **self._of)
            files = [entry for entry in entries if isinstance(entry, RepoFile)]
            tree = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}
            return Head(commit, tree, {file.path: file.size for file in files})

        return self.retry("listing the repository", listing)

    def read(self, head: Head, path: str) -> bytes:
        """The content of a small file, which is checked against the identity that the Hub gives for it.

        Raises PublishError where the repository does not have it, or has one so large that it would fill the disk.
        """
        if path not in head.tree:
            raise PublishError(f"{self.name} at commit {head.commit[:12]} has no {path}")
        if (size := head.sizes.get(path, 0)) > _MOST:
            raise PublishError(
                f"{path} of {self.name} has {size / 1e6:,.0f} MB, and {_MOST >> 20} MiB is the most that is downloaded",
                hint="kun-builder writes no such file: look at what the repository holds, and delete it there",
            )
        get = partial(self._api.hf_hub_download, filename=path, revision=head.commit, **self._of)

        def download() -> bytes:
            with tempfile.TemporaryDirectory(prefix="kun-build-") as folder:
                try:
                    content = Path(get(cache_dir=folder)).read_bytes()
                except OSError as error:
                    if type(error) is OSError and error.errno is None:  # the client's own: another length than listed
                        raise StrangeAnswer(f"{path} is not as long as the repository lists") from error
                    raise
            if not head.holds(path, file_facts(content)):
                raise StrangeAnswer(f"{path} is not what the repository lists")
            return content

        return self.retry(f"reading {path}", download)

    def base(self, head: Head) -> Base:
        """What a new release has to know of the one that the revision holds."""
        if head.manifest is None:
            return Base()
        digests = partial(self._digests, head.commit, head.manifest)
        return Base(
            manifest=head.manifest, read=partial(self.read, head), digests=digests, holds=head.tree.__contains__
        )

    def _digests(self, commit: str, manifest: Mapping[str, Any], split: str) -> Digests:
        """Row digests of a published split; of Parquet, only the columns that count are downloaded."""
        files = [path for path in manifest["splits"][split]["files"] if path.startswith("provenance/")]
        hub = HfFileSystem(token=self._token)

        def read() -> Digests:
            opened = (hub.open(f"datasets/{self.name}@{commit}/{path}") for path in files)
            try:
                columns = columns_of(manifest["splits"][split])
                return digest_rows(rows_of(opened, columns, jsonl=bool(files) and files[0].endswith(".jsonl")))
            except (
                pa.ArrowException,
                orjson.JSONDecodeError,
                UnicodeError,
                KeyError,
                TypeError,
                AttributeError,
            ) as error:
                raise PublishError(
                    f"the published rows of {split} in {self.name} cannot be read: {error}",
                    hint="look at its files on the Hub; push the split again with --yes to replace them",
                ) from error

        return self.retry(f"reading the published rows of {split}", read)

    def proposed(self, release: Release) -> str | None:
        """Address of an open pull request that proposes exactly this release; None if there is none."""

        def listing() -> list[Any]:
            of: dict[str, Any] = {"discussion_type": "pull_request", "discussion_status": "open"}
            return list(self._api.get_repo_discussions(**self._of, **of))

        for pull in self.retry("listing pull requests", listing):
            look = partial(self._api.get_paths_info, paths=[MANIFEST], revision=f"refs/pr/{pull.num}", **self._of)
            for entry in self.retry("reading a pull request", look):
                if isinstance(entry, RepoFile) and entry.blob_id == release.facts[MANIFEST].git:
                    return str(pull.url)
        return None

    def first_rows(self, commit: str, splits: Sequence[str]) -> Rows:
        """The first row of each split as a reader streams it; None where a split is empty."""
        return self.retry("streaming what was published", first_rows, self.name, commit, splits, self._token)

    # --- writing

    def create(self, *, private: bool) -> None:
        """Create the repository if there is none."""
        create = partial(self._api.create_repo, private=private, exist_ok=True, **self._of)
        self.retry(f"creating {self.name}", create)

    def create_branch(self, branch: str) -> None:
        """Create a branch at the newest commit of main, if there is none of this name."""
        create = partial(self._api.create_branch, branch=branch, exist_ok=True, **self._of)
        self.retry(f"creating the branch {branch}", create)

    def commit(
        self, release: Release, add: Sequence[str], delete: Sequence[str], message: str, **where: Any
    ) -> CommitInfo:
        """Upload large files that are not there, then one commit. Raises LookAgain where its fate is unknown.

        where: `revision`, `parent_commit`, `create_pr`.
        """
        additions = [_addition(path, release) for path in add]
        place = {key: where[key] for key in ("revision", "create_pr")}
        self._choose_storage(place["revision"], additions)
        upload = partial(self._api.preupload_lfs_files, additions=additions, free_memory=False, **self._of, **place)
        self.retry("uploading", upload)
        commit = partial(
            self._api.create_commit,
            operations=[*additions, *(CommitOperationDelete(path) for path in delete)],
            commit_message=message,
            commit_description="\n".join(f"{split}: {rows} rows" for split, rows in release.rows.items()),
            **self._of,
            **where,
        )
        return self.retry.once("committing", commit)

    def _choose_storage(self, revision: str, additions: Sequence[CommitOperationAdd]) -> None:
        """Send large files by git LFS where the server has no Xet, whose client only says that no connection came."""
        if constants.HF_HUB_DISABLE_XET or not any(isinstance(new.path_or_fileobj, str) for new in additions):
            return
        url = f"{constants.ENDPOINT}/api/datasets/{self.name}/xet-write-token/{quote(revision, safe='')}"

        def ask() -> None:
            hf_raise_for_status(get_session().get(url, headers=build_hf_headers(token=self._token)))

        try:
            self.retry("asking for storage", ask)
        except PublishError as error:
            if answered(error) not in (404, 405):
                return  # the upload itself says best what is wrong
            self.retry.say(f"{constants.ENDPOINT} has no Xet storage: large files go by git LFS")
            constants.HF_HUB_DISABLE_XET = True

    def tag(self, tag: str, commit: str) -> None:
        """Give a commit a tag. Raises Conflict where another commit has it."""
        self.retry("tagging", partial(self._api.create_tag, tag=tag, revision=commit, **self._of))


def _addition(path: str, release: Release) -> CommitOperationAdd:
    content = release.files[path]
    addition = CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
    addition.upload_info.sha256 = bytes.fromhex(release.facts[path].sha256)  # known: not to be read again
    return addition
