"""Digests and sizes of files as the Hub keeps them: SHA-256 of large ones, git's SHA-1 of the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileFacts:
    """Digests and size of a file. A repository knows a large one by `sha256`, a small one by `git`, its blob id."""

    sha256: str
    git: str
    size: int


def file_facts(content: Path | bytes) -> FileFacts:
    """Digests and size of a file, read once."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for chunk in _chunks(content):
        sha256.update(chunk)
        git.update(chunk)
    return FileFacts(sha256.hexdigest(), git.hexdigest(), size)


def _chunks(content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
