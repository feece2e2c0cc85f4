"""Where the bytes of an input are: in a file of this machine, or in an object behind an address.

Readers look at inputs and open them only here, so that nothing else needs to know which of the two it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from kun_builder.errors import SourceError, shown
from kun_builder.readers.addresses import is_address
from kun_builder.readers.remote import Read, Remote


@dataclass(frozen=True)
class Look:
    """What is known of an input before it is read.

    size: its bytes, 0 for what is no file or does not tell. stamp: differs when the content does; empty for what is not
    there.
    """

    size: int = 0
    stamp: tuple[Any, ...] = ()


def look(path: str) -> Look:
    """Look at an input without reading it. Raises SourceError for an address that cannot be asked."""
    if is_address(path):
        with Remote(path) as remote:
            return Look(remote.size, remote.stamp)
    if os.path.isdir(path):
        return Look(stamp=tuple((name, look(os.path.join(path, name)).stamp) for name in sorted(os.listdir(path))))
    if not os.path.exists(path):
        return Look()
    facts = os.stat(path)
    return Look(facts.st_size if os.path.isfile(path) else 0, (facts.st_size, facts.st_mtime_ns))


def is_ranged(path: str) -> bool:
    """Whether an input can be read from any byte on, as all can but those of some web servers."""
    if not is_address(path):
        return True
    with Remote(path) as remote:
        return remote.ranged


@contextmanager
def open_stream(path: str, start: int = 0, end: int | None = None) -> Iterator[Read]:
    """Read the bytes from `start` up to `end`, in order. Raises SourceError where that cannot be done.

    Other than 0 and None need an input that `is_ranged`.
    """
    if is_address(path):
        with Remote(path) as remote:
            yield remote.stream(start, end)
        return
    with _open(path) as file:
        file.seek(start)

        def read(size: int) -> bytes:
            wanted = size if end is None else min(size, end - file.tell())
            try:
                return file.read(max(0, wanted))
            except OSError as error:
                raise SourceError(f"{shown(path)} cannot be read: {error.strerror}") from error

        yield read


@contextmanager
def open_anywhere(path: str) -> Iterator[IO[bytes]]:
    """The input, for which `is_ranged` holds, as a file that can be read in any order."""
    if is_address(path):
        with Remote(path) as remote, remote.file() as file:
            yield file
        return
    with open(path, "rb") as file:
        yield file


def _open(path: str) -> IO[bytes]:
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        hint = "take it out of `path:`, or make it readable"
        raise SourceError(f"{shown(path)} cannot be opened: {error.strerror}", hint=hint) from error
