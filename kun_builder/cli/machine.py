"""What the machine may lack: open standard streams that take any character, memory, a disk with room, folders to write
in."""

from __future__ import annotations

import errno
import io
import os
import resource
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kun_builder.cache import cache_folder
from kun_builder.errors import RunError, TrainingError

_TRAINING = ("accelerate", "peft", "sacrebleu", "torch", "trl")
"""Packages that come with the extra `train`."""

_CURES = {
    errno.ENOSPC: "make room on the disk, and run the same command again: what is finished is kept",
    errno.EDQUOT: "make room within your quota, and run the same command again: what is finished is kept",
    errno.EROFS: "choose a folder that can be written, for example with --output DIR",
    errno.EACCES: "change its permissions, or choose another folder, for example with --output DIR",
    errno.EPERM: "change its permissions, or choose another folder, for example with --output DIR",
    errno.EEXIST: "a file is in the way: remove it, or choose another folder, for example with --output DIR",
    errno.ENOTDIR: "a file is where a folder should be: choose another folder, for example with --output DIR",
    errno.EFBIG: "raise the limit of file sizes (`ulimit -f unlimited`), or choose a disk that takes larger ones",
    errno.EISDIR: "a folder is where a file should be: remove it, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name, for example with --output DIR",
    errno.EMFILE: "raise the limit of open files: `ulimit -n 65536`",
    errno.EIO: "the disk fails: look at the system's log",
}


_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})


class _Heedless(io.FileIO):
    """What is said to people. A disk that is full, or a terminal or a reader that is gone, does not end what it tells
    of."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            return len(data)


def open_streams() -> None:
    """Make the standard streams usable: closed ones become empty ones, and characters that they lack are escaped.

    Otherwise the first file that is opened would take the place of a closed stream, and be written into. What goes to
    stderr and cannot be written there is lost, and nothing else.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "w" if number else "r"
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY if number else os.O_RDONLY)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  (stays open)
        if number and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    if (
        sys.__stderr__ is None or sys.stderr is not sys.__stderr__
    ):  # whoever has put another in its place wants to have what is said
        return
    said = io.BufferedWriter(_Heedless(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(said, sys.__stderr__.encoding, errors="backslashreplace", line_buffering=True)


def explained(error: OSError | MemoryError | ImportError) -> tuple[str, str] | None:
    """A line about what the machine refused, and the cure; None for an error that is no fault of the machine."""
    if not isinstance(error, OSError) or error.errno == errno.ENOMEM:
        return _short_of_memory(error)
    cure = _CURES.get(error.errno or 0)
    if error.errno == errno.ENOENT and not _is_somewhere():
        return "the folder in which this was called is no longer there", "go to another one (`cd`)"
    if cure is None:
        return None
    place = str(error.filename2 or error.filename or "")
    with suppress(RunError):  # there is no cache
        cache = cache_folder()
        if place and (Path(place).is_relative_to(cache) or cache.is_relative_to(place)):  # a home that is read-only
            cure = "it is in the cache: set KUN_CACHE to a folder that can be written"
    said = os.strerror(error.errno or 0)
    return (f"{place}: {said}" if place else f"a file cannot be written: {said}"), cure


def _is_somewhere() -> bool:
    """Whether the current folder is still there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _short_of_memory(error: OSError | MemoryError | ImportError) -> tuple[str, str] | None:
    """The same for memory. For want of addresses, libraries cannot be loaded either; else that is another matter."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        return (
            f"{limit // 2**20:,} MiB of addresses (`ulimit -v`) are too few",
            "`ulimit -v unlimited` gives more; what is finished is kept",
        )
    if isinstance(error, ImportError):
        return None
    return "the machine has no more memory", "let less run beside this, and run the same command again: it goes on"


def need_training() -> None:
    """Raise TrainingError, with the cure, if the extra `train` is not installed: before anything is read."""
    if missing := [name for name in _TRAINING if find_spec(name) is None]:
        raise TrainingError(
            f"training and its evaluation need the extra `train`, of which {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed",
            hint='pip install "kun-builder[train]"',
        )


def forbid_downloads() -> None:
    """Let `KUN_OFFLINE` hold for the Hub's libraries too, which read their own variable when they are imported."""
    if os.environ.get("KUN_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        os.environ["HF_HUB_OFFLINE"] = "1"
