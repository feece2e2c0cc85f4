"""Who holds a run folder: one process, on whatever machine that sees the folder."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kun_builder.errors import RunError

_MOUNTS = Path("/proc/self/mountinfo")
LOCK = ".lock"
"""The file in a run folder that its holder has locked."""
_LOCAL_LOCKS = re.compile(r"\b(?:nolock|localflock|local_lock=(?:flock|all))\b")
"""Options of NFS and Lustre with which a lock holds on one machine only."""


@contextmanager
def hold(folder: Path, called: str = "") -> Iterator[None]:
    """Hold the lock of `folder`, which ends with the process, however it ends. `called`: its name for people.

    Raises RunError, with process and machine of the holder, if another one has it, and where the file system has no
    locks that all machines see.
    """
    if options := local_locks(folder, _MOUNTS.read_text() if _MOUNTS.exists() else ""):
        raise RunError(
            f"{folder} is on a file system mounted with `{options}`: a run of another machine would not be noticed",
            hint="mount it with locks for all machines, or give the run a folder on another one with --output",
        )
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise RunError(
                f"another kun-build (process {file.read().strip() or 'unknown'}) is working in {called or folder}",
                hint="wait for it, or give this run another folder with --output",
            ) from error
        except OSError as error:
            raise RunError(
                f"{folder} cannot be locked: {error.strerror}",
                hint="its file system has no locks (Lustre has them with `flock`): use another folder with --output",
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        os.fsync(file.fileno())  # on NFS, other machines see only what has reached the server
        yield


def local_locks(folder: Path, mounts: str) -> str:
    """The option by which locks in `folder` hold on this machine only, by the text of /proc/self/mountinfo; else ""."""
    place, found = folder.resolve(), ("", "")
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), mount.split()[4])
        if place.is_relative_to(point) and len(point) >= len(found[0]):
            found = point, source
    kind, _, options = found[1].partition(" ")
    match = _LOCAL_LOCKS.search(options) if kind.startswith(("nfs", "lustre")) else None
    return match[0] if match else ""
