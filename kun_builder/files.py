"""Files that are there whole or not at all, and folders for the user alone."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def replace_file(path: Path, *parts: bytes, private: bool = False) -> None:
    """Write `parts`, one behind the other, to `path` so that a reader, or a crash, sees the old content or the new one.

    private: nobody but the user may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    mode = 0o600 if private else 0o666
    with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def make_private(folder: Path) -> Path:
    """Make `folder` and, if it is new, let only the user read it, since raw text and answers will be in it."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder
