"""The logs of a journal behind an address, where nothing can be appended: each log in pieces, an object for each.

A piece is a stretch of a log that ends with a whole record, so that it is a log itself: another machine puts those that
it has not yet, of one log, into one file, and finds the answers in it as in any other. Where these were many, it puts
that file behind the address as well, and deletes them. No object is ever changed, and a name says which stretch of
which log it is, so that any number of machines may do all of this at the same time: what one deletes is there in a
longer object before.

    <time>-<process>-<random>.log                     a log of this machine
    <time>-<process>-<random>-<start>.log             behind the address: the piece that begins there
    <time>-<process>-<random>-<start>-<end>.log       here and there: the pieces of a log from `start` to `end`
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from kun_builder.cache import write_note
from kun_builder.errors import SourceError
from kun_builder.files import make_private, replace_file
from kun_builder.models.journal.records import grown
from kun_builder.readers.remote_store import Store

_LOG = re.compile(r"\d{17}-\d+-[0-9a-f]{6}\.log")
_PIECE = re.compile(r"(\d{17}-\d+-[0-9a-f]{6})-(\d{12})(?:-(\d{12}))?\.log")
_AT_ONCE = 16
_MANY = 16
"""Pieces of one log that are worth to be put together."""
_LISTINGS = 5
"""How often objects are listed again of which one was gone, since another machine had put it together with others."""
_DELETED_AT_ONCE = 256
"""Objects deleted in one turn, so that what a working run has to send does not wait long."""


class _Stretch(NamedTuple):
    """An object: a log's bytes from `start` to `end`."""

    start: int
    end: int
    name: str


class RemoteLogs:
    """The logs at `store`, and those in `folder`, a journal of this machine, whose parent is for nothing else.

    Several processes of this machine may work in it. Raises SourceError where storage fails.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self._note = folder.parent / "pushed.json"
        self._untidy: list[tuple[Path, list[str]]] = []
        """Files that hold what many objects hold, which they can take the place of."""

    def bring(self) -> None:
        """Bring the pieces of other machines that are not here, and find out how much of our own is there."""
        make_private(self.folder.parent)
        make_private(self.folder)
        for _ in range(_LISTINGS):
            if self._bring():
                break

    def push(self) -> None:
        """Add what the logs of this machine have got since the last time, as one piece for each. Then put some of the
        pieces that were brought together."""
        with self._alone():
            pushed = orjson.loads(self._note.read_bytes())
            for path in sorted(self.folder.glob("*.log")):
                start = pushed.get(path.stem, 0)
                if _LOG.fullmatch(path.name) and (piece := grown(path, start)):
                    self.store.put(f"{path.stem}-{start:012d}.log", piece)
                    pushed[path.stem] = start + len(piece)
                    write_note(self._note, pushed)
        if self._untidy:
            with suppress(SourceError):  # whoever may add objects need not be allowed to delete them
                self._tidy(*self._untidy.pop())

    def _bring(self) -> bool:
        """Whether all that was listed was still there."""
        pushed, wanted = dict[str, int](), list[tuple[str, list[_Stretch], list[_Stretch]]]()
        with self._alone():
            here = self._here()
            for log, stretches in _stretches(self.store.sizes().items()).items():
                if (self.folder / f"{log}.log").exists():
                    pushed[log] = max(stretch.end for stretch in stretches)
                else:
                    wanted += [(log, run, stretches) for run in _runs(stretches, here.get(log, 0))]
            write_note(self._note, pushed)
        return all([self._join(*one) for one in wanted])

    def _join(self, log: str, run: Sequence[_Stretch], there: Sequence[_Stretch]) -> bool:
        """Bring pieces of one log that follow each other, of all that are there, as one file; False if one is gone."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            pieces = [*pool.map(self.store.read, (stretch.name for stretch in run))]
        if None in pieces:
            return False
        path = self.folder / f"{log}-{run[0].start:012d}-{run[-1].end:012d}.log"
        replace_file(path, *(piece for piece in pieces if piece), private=True)
        held = [one.name for one in there if run[0].start <= one.start and one.end <= run[-1].end]
        if len(held) > _MANY:
            self._untidy.append((path, [name for name in held if name != path.name]))
        return True

    def _tidy(self, path: Path, names: Sequence[str]) -> None:
        """Delete objects that `path` holds, once it is behind the address itself."""
        if self.store.sizes().get(path.name) != path.stat().st_size:
            self.store.put(path.name, path)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: self.store.delete([name]), names[:_DELETED_AT_ONCE]))
        if left := list(names[_DELETED_AT_ONCE:]):
            self._untidy.append((path, left))

    def _here(self) -> dict[str, int]:
        """Of each log of another machine, how far it is here."""
        files = ((path.name, 0) for path in self.folder.glob("*.log"))  # earlier versions left the end untold
        return {log: max(stretch.end for stretch in found) for log, found in _stretches(files).items()}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait for the lock of this machine: two processes that push one log would leave a hole in it."""
        with (self.folder.parent / ".push.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _stretches(sizes: Iterable[tuple[str, int]]) -> dict[str, list[_Stretch]]:
    """What names and sizes say, of each log."""
    found: dict[str, list[_Stretch]] = {}
    for name, size in sizes:
        if match := _PIECE.fullmatch(name):
            start = int(match[2])
            found.setdefault(match[1], []).append(_Stretch(start, int(match[3] or start + size), name))
    return found


def _runs(stretches: Iterable[_Stretch], at: int) -> list[list[_Stretch]]:
    """Stretches that bring what is beyond `at`: each list has those that follow each other. What comes twice, as
    pieces and put together, or as two that overlap, is left out where that leaves no hole."""
    runs: list[list[_Stretch]] = []
    for stretch in sorted(stretches, key=lambda one: (one.start, -one.end)):
        if stretch.end <= at:
            continue
        if not runs or stretch.start != at:
            runs.append([])
        runs[-1].append(stretch)
        at = stretch.end
    return runs
