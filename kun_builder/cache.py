"""The user's cache folder, and digests of files that are remembered there."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from kun_builder.errors import RunError
from kun_builder.files import replace_file


def cache_folder() -> Path:
    """Where downloads and what is made of them are kept: `KUN_CACHE`, by default `~/.cache/kun-builder`.

    Raises RunError where the user has no home: a container may run as a number that has no name in it.
    """
    try:
        return Path(os.environ.get("KUN_CACHE") or "~/.cache/kun-builder").expanduser()
    except RuntimeError as error:
        raise RunError(
            f"user {os.getuid()} has no home folder, and so no cache",
            hint="set KUN_CACHE to a folder that can be written and is kept, or HOME",
        ) from error


def mirror_folder(address: str) -> Path:
    """The folder of this machine in which is worked at what is kept at an address. Its parent is for this one alone."""
    address = address.rstrip("/")
    name = hashlib.sha256(os.fsencode(address)).hexdigest()[:16]
    return cache_folder() / "mirrors" / name / address.rpartition("/")[2]


def digest(path: Path) -> str:
    """SHA-256 of a file, remembered for as long as its size and time of change stay the same."""
    path, about = path.resolve(), path.stat()
    state = [about.st_size, about.st_mtime_ns, about.st_ino]
    note = cache_folder() / "digests" / (hashlib.sha256(os.fsencode(path)).hexdigest()[:32] + ".json")
    try:
        known = json.loads(note.read_text())
        if known["state"] == state:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no note yet, or a damaged one: it is written anew
    with path.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    write_note(note, {"state": state, "sha256": value})
    return value


def write_note(path: Path, value: object) -> None:
    """Write JSON for the user alone, so that a reader sees the old content or the new, never a part."""
    replace_file(path, json.dumps(value).encode(), private=True)
