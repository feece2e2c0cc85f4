"""What a Hub remembers, on disk: blobs by SHA-256, commits as JSON, and the refs of each repository.

blobs/<sha256>                     content, of large and small files alike
commits/<oid>.json                 parent, message and the whole tree: path -> FileEntry
repos/<type>/<org>/<name>.json     private, branches, tags, pull requests
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FileEntry:
    """A file of a commit. `oid` is git's blob id, of the pointer text for a large file."""

    sha256: str
    size: int
    oid: str
    lfs: bool


@dataclass
class Repo:
    """A repository: who may see it, and what its names point to."""

    type: str
    id: str
    private: bool
    created: str
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag, pull-request ref or commit id names."""
        pulls = {f"refs/pr/{pull['num']}": pull["oid"] for pull in self.pulls}
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        commit = revision if len(revision) == 40 else None
        return self.branches.get(name) or self.tags.get(name) or pulls.get(revision) or commit


class Store:
    """All repositories under `root`. Every change is one rename of a file: a killed server loses nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        for name in ("blobs", "commits", "repos"):
            (root / name).mkdir(parents=True, exist_ok=True)

    # --- blobs

    def blob(self, sha256: str) -> Path:
        """Where the content with this digest is or would be."""
        return self.root / "blobs" / sha256

    def put(self, data: bytes) -> str:
        """Store content; returns its SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        self._write(self.blob(sha256), data)
        return sha256

    def temporary(self) -> Path:
        """A fresh path on the same file system."""
        return self.root / f"upload-{uuid.uuid4().hex}"

    def find(self, sha256: str) -> bool:
        """Whether the content is there, by plain upload or inside the Xet store (then it is taken out of it)."""
        return self.blob(sha256).exists() or self._from_xet(sha256)

    def _from_xet(self, sha256: str) -> bool:
        import hf_xet

        for found, xet_hash, size in xet_files(self.root / "xet"):
            if found == sha256:
                temporary = self.temporary()
                with hf_xet.XetSession().new_file_download_group(endpoint=f"local://{self.root / 'xet'}") as group:
                    group.start_download_file(hf_xet.XetFileInfo(xet_hash, size), str(temporary))
                if hashlib.sha256(temporary.read_bytes()).hexdigest() == sha256:
                    temporary.rename(self.blob(sha256))
                    return True
        return False

    # --- repositories

    def repo(self, kind: str, repo_id: str) -> Repo | None:
        """The repository, or None."""
        path = self._repo_path(kind, repo_id)
        return Repo(**json.loads(path.read_text())) if path.exists() else None

    def save(self, repo: Repo) -> None:
        """Write its refs."""
        self._write(self._repo_path(repo.type, repo.id), json.dumps(asdict(repo)).encode())

    def create(self, kind: str, repo_id: str, *, private: bool) -> Repo:
        """A repository with one commit that holds `.gitattributes`, as the Hub makes it."""
        repo = Repo(kind, repo_id, private, now())
        repo.branches["main"] = self.commit(
            None, "initial commit", "", {".gitattributes": self.entry(b"*.parquet filter=lfs\n")}
        )
        self.save(repo)
        return repo

    def delete(self, repo: Repo) -> None:
        """Forget a repository."""
        self._repo_path(repo.type, repo.id).unlink()

    def entry(self, data: bytes) -> FileEntry:
        """A small file."""
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return FileEntry(self.put(data), len(data), oid, False)

    def large(self, sha256: str) -> FileEntry:
        """A large file whose content is already there."""
        size = self.blob(sha256).stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return FileEntry(sha256, size, hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest(), True)

    def commit(self, parent: str | None, title: str, description: str, files: dict[str, FileEntry]) -> str:
        """Write a commit; returns its id."""
        body = {
            "parent": parent,
            "title": title,
            "description": description,
            "date": now(),
            "nonce": uuid.uuid4().hex,
            "files": {path: asdict(entry) for path, entry in sorted(files.items())},
        }
        data = json.dumps(body).encode()
        oid = hashlib.sha1(data).hexdigest()
        self._write(self.root / "commits" / f"{oid}.json", data)
        return oid

    def files(self, oid: str) -> dict[str, FileEntry]:
        """The tree of a commit."""
        return {path: FileEntry(**entry) for path, entry in self.read_commit(oid)["files"].items()}

    def read_commit(self, oid: str) -> dict[str, Any]:
        """A commit as it was written. Raises FileNotFoundError."""
        commit: dict[str, Any] = json.loads((self.root / "commits" / f"{oid}.json").read_text())
        return commit

    def history(self, oid: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        """The commit and its ancestors."""
        while oid is not None:
            commit = self.read_commit(oid)
            yield oid, commit
            oid = commit["parent"]

    def _repo_path(self, kind: str, repo_id: str) -> Path:
        return self.root / "repos" / kind / f"{repo_id}.json"

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.temporary()
        temporary.write_bytes(data)
        os.replace(temporary, path)


def now() -> str:
    """The time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def xet_files(root: Path) -> Iterator[tuple[str, str, int]]:
    """Files that hf_xet wrote into its local store: SHA-256, Xet hash and size, from the shards' file sections.

    A shard is a 48-byte header and records of 48 bytes: a file's header (hash, flags, count), `count` segments,
    `count` verification records if bit 31 is set, one record with the SHA-256 if bit 30 is; an all-ones hash ends it.
    """
    for shard in sorted((root / "xet" / "xorbs" / "shards").glob("*.mdb")):
        data, at = shard.read_bytes(), 48
        while data[at : at + 32] != b"\xff" * 32:
            xet_hash = _words(data[at : at + 32])
            flags, count = struct.unpack_from("<II", data, at + 32)
            at += 48
            size = sum(struct.unpack_from("<I", data, at + 48 * segment + 36)[0] for segment in range(count))
            at += 48 * count * (2 if flags & 1 << 31 else 1)
            if flags & 1 << 30:
                yield _words(data[at : at + 32]), xet_hash, size
                at += 48


def _words(digest: bytes) -> str:
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", digest))
