"""A folder behind an address (`s3://bucket/runs/mine`), where files are put as wholes, by any file system of fsspec.

Object storage can neither append nor rename; what it can is all that is asked of it here: an object is there as a whole
or not at all, one can be made only if there is none (`create`), and all of them can be listed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kun_builder.errors import SourceError, shown
from kun_builder.readers import remote
from kun_builder.readers.addresses import public

Result = TypeVar("Result")
Stamp = list[str]
"""Differs when the content of an object does; the same whenever it is asked for."""


class Store:
    """The folder at `address`, which need not exist: it does as soon as something is in it.

    Raises SourceError, as its methods do, with the address and the cure. Where storage fails in passing, they try again
    for about a minute, as reading does, unless `hasty` is set. Its methods may be called from several threads.
    """

    def __init__(self, address: str, *, hasty: bool = False) -> None:
        self.address = address.rstrip("/")
        self.hasty = threading.Event()
        if hasty:
            self.hasty.set()
        self._fs, place = remote.file_system(self.address)
        self._root = place.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Bytes of each object, by its name in the folder, in alphabetical order."""
        return {name: int(about.get("size") or 0) for name, about in self._list().items()}

    def stamps(self) -> dict[str, Stamp]:
        """The stamp of each object, by its name in the folder."""
        return {name: _stamp(about) for name, about in self._list().items()}

    def read(self, name: str) -> bytes | None:
        """The content of an object; None if it is not there."""

        def read() -> bytes | None:
            with suppress(FileNotFoundError):
                return bytes(self._fs.cat_file(self._place(name)))
            return None

        return self._insist("cannot be read", name, read)

    def get(self, name: str, path: Path) -> None:
        """Copy an object to a file, which appears as a whole. Raises SourceError if it is not there, too."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._insist("cannot be read", name, lambda: self._fs.get_file(self._place(name), str(part)))
        part.replace(path)

    def put(self, name: str, content: bytes | Path) -> Stamp:
        """Put a file or bytes in the place of whatever is there; returns the stamp of what is there then."""
        place = self._place(name)

        def put() -> Stamp:
            if isinstance(content, Path):
                self._fs.put_file(str(content), place)
            else:
                self._fs.pipe_file(place, content)
            self._fs.invalidate_cache()
            return _stamp(self._fs.info(place))

        return self._insist("cannot be written", name, put)

    def create(self, name: str, content: bytes) -> None:
        """Put bytes where nothing is; where something is, that stays. Only a store with conditional requests (S3 has
        them) decides which of two that come at the same moment is first: whoever has to know looks again later."""

        def create() -> None:
            try:
                self._fs.pipe_file(self._place(name), content, mode="create")
            except Exception:  # each backend has its own word for it
                if self._fs.exists(self._place(name)):
                    return
                raise

        self._insist("cannot be written", name, create)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, one after the other; those that are not there are passed over."""

        def delete(name: str) -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._place(name))

        for name in names:
            self._insist("cannot be deleted", name, partial(delete, name))

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _list(self) -> dict[str, dict[str, Any]]:
        """What is told of each object. Names that would lead out of a folder, or are none of files, are left out."""
        self._fs.invalidate_cache()  # what was listed before may have changed
        with remote.told(self.address, "cannot be looked at"):
            try:
                found = self._fs.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
        named = {place.removeprefix(f"{self._root}/"): about for place, about in sorted(found.items())}
        return {name: about for name, about in named.items() if not {"", ".", ".."} & {*name.split("/")}}

    def _insist(self, what: str, name: str, act: Callable[[], Result]) -> Result:
        """What `act` returns, however often it fails in passing."""
        place = f"{self.address}/{name}"
        for pause in (*remote.PAUSES, None):
            try:
                return act()
            except Exception as error:  # each backend raises what its libraries raise
                if isinstance(error, FileNotFoundError) and what == "cannot be written":
                    gone = f"{shown(public(place))} {what}: there is no such bucket"
                    raise SourceError(gone, hint=remote.cure(place)) from error
                if remote.final(error) or pause is None or self.hasty.is_set():
                    raise remote.fault(place, what, error) from error
                _LOG.warning("%s %s: %s; tried again", shown(public(place)), what, remote.why(error))
            self.hasty.wait(pause)
        raise AssertionError("the last try returns or raises")


_LOG = logging.getLogger(__name__)


def _stamp(about: dict[str, Any]) -> Stamp:
    # The same time is a number in a listing, and none when one object is asked for, in some file systems.
    told = {name: value.timestamp() if isinstance(value, datetime) else value for name, value in about.items()}
    return [str(part) for part in remote.stamp_of(told)]
