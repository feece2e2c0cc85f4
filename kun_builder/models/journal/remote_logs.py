"""The logs of a journal behind an address, where nothing can be appended: each log in pieces, an object for each.

A piece is a stretch of a log that ends with a whole record, so that it is a log itself: another machine puts those that
it has not yet, of one log, into one file, and finds the answers in it as in any other. No object is ever changed, and
any number of machines may add theirs.

    <time>-<process>-<random>.log                  a log of this machine
    <time>-<process>-<random>-<offset>.log         behind the address: the piece that begins there
    <time>-<process>-<random>-<offset>.log         here: pieces of another machine's log, up to the one of this offset
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import orjson

from kun_builder.cache import write_note
from kun_builder.files import make_private, replace_file
from kun_builder.models.journal.records import grown
from kun_builder.readers.remote_store import Store

_LOG = re.compile(r"\d{17}-\d+-[0-9a-f]{6}\.log")
_PIECE = re.compile(r"(\d{17}-\d+-[0-9a-f]{6})-(\d{12})\.log")
_AT_ONCE = 16


class RemoteLogs:
    """The logs at `store`, and those in `folder`, a journal of this machine, whose parent is for nothing else.

    Several processes of this machine may work in it. Raises SourceError where storage fails.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self._note = folder.parent / "pushed.json"

    def bring(self) -> None:
        """Bring the pieces of other machines that are not here, and find out how much of our own is there."""
        make_private(self.folder.parent)
        make_private(self.folder)
        pushed, wanted = dict[str, int](), dict[str, list[str]]()
        with self._alone():
            here = self._here()
            for name, size in self.store.sizes().items():
                if not (match := _PIECE.fullmatch(name)):
                    continue
                log, offset = match[1], int(match[2])
                if (self.folder / f"{log}.log").exists():
                    pushed[log] = max(pushed.get(log, 0), offset + size)
                elif offset > here.get(log, -1):
                    wanted.setdefault(log, []).append(name)
            write_note(self._note, pushed)
        for names in wanted.values():
            self._join(names)

    def push(self) -> None:
        """Add what the logs of this machine have got since the last time, as one piece for each."""
        with self._alone():
            pushed = orjson.loads(self._note.read_bytes())
            for path in sorted(self.folder.glob("*.log")):
                start = pushed.get(path.stem, 0)
                if _LOG.fullmatch(path.name) and (piece := grown(path, start)):
                    self.store.put(f"{path.stem}-{start:012d}.log", piece)
                    pushed[path.stem] = start + len(piece)
                    write_note(self._note, pushed)

    def _join(self, names: Sequence[str]) -> None:
        """Bring pieces of one log, in order, as one file."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            pieces = [piece or b"" for piece in pool.map(self.store.read, names)]
        replace_file(self.folder / names[-1], *pieces, private=True)

    def _here(self) -> dict[str, int]:
        """Of each log of another machine, the offset of the last piece that is here."""
        matches = map(_PIECE.fullmatch, sorted(path.name for path in self.folder.glob("*.log")))
        return {match[1]: int(match[2]) for match in matches if match}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait for the lock of this machine: two processes that push one log would leave a hole in it."""
        with (self.folder.parent / ".push.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
