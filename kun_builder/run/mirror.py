"""A run folder that is kept at an address: the work is done in a folder of this machine, its mirror.

At the start, the mirror gets what is at the address and not yet here. While the run works, what is finished goes there
every few seconds, the result when the run ends. What says that something is finished (a shard's record, the report)
goes last, and is deleted first where what it speaks of is replaced: a run that is broken off leaves at the address what
it would leave on a disk, and the same command goes on from there, on any machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

import orjson

from kun_builder.cache import mirror_folder, write_note
from kun_builder.errors import KunError, RunError
from kun_builder.files import make_private
from kun_builder.models.journal.remote_logs import RemoteLogs
from kun_builder.readers.remote_store import Stamp, Store
from kun_builder.recipe.recipe import Recipe
from kun_builder.run.holding import hold
from kun_builder.run.ownership import MARKER
from kun_builder.run.remote_hold import Hold
from kun_builder.run.verdicts import FOLDER
from kun_builder.status import Status

EVERY = 5.0
"""Seconds after which what is new goes to the address. A machine that dies loses at most the answers of so long, and
what was on its way."""

_REPORT = "report.json"
_WORK = ("shards", FOLDER, MARKER, ".spent.json", ".fresh")
"""What goes to the address while a run works: each of these files is whole as soon as it is there."""
_RESULT = ("kept", "dataset", "rejected", "export", "evaluation.json", "recipe.lock.yaml", "report.html", _REPORT)
"""What goes there once the run is finished."""
_AT_ONCE = 4
"""Files under way at once. Of each, at most 100 MB are in memory."""

Found = TypeVar("Found")
Fact = list[int]
"""Size and time of change (ns) of a file here."""


class Part(Protocol):
    """Something that is kept at an address."""

    store: Store
    folder: Path

    def bring(self) -> None:
        """Bring here what is new at the address."""

    def push(self) -> None:
        """Bring what is new and finished here to the address."""


class RunMirror:
    """The run folder at `store`, and `folder`, its mirror. One process at a time may use it."""

    def __init__(
        self, store: Store, folder: Path, check: Callable[[], None] = lambda: None, *, shards: bool = True
    ) -> None:
        """`check` raises an error where nothing must be written at the address any more. `shards`: whether they come
        and go too; only a build needs them."""
        self.store, self.folder, self._check = store, folder, check
        self._work = _WORK if shards else _WORK[1:]
        self._tops = (*self._work, *_RESULT)
        self._note = folder.parent / "state.json"
        self._known: dict[str, tuple[Fact, Stamp]] = {}
        """Files that were alike here and there, and what they were then."""
        if self._note.exists():
            self._known = {name: (fact, stamp) for name, (fact, stamp) in orjson.loads(self._note.read_bytes()).items()}

    def bring(self) -> None:
        """Bring what was changed at the address since the last time. What was changed only here stays.

        Raises RunError if another run writes there meanwhile.
        """
        raw = self.store.stamps()
        there = {name: stamp for name, stamp in _whole(raw).items() if _top(name) in self._tops}
        here = self._here(self._tops)
        changed = [name for name, stamp in there.items() if name not in self._known or self._known[name][1] != stamp]
        gone = [  # deleted there, or about to be replaced when the sending broke off
            name
            for name, (_, stamp) in self._known.items()
            if name not in there and _top(name) in self._tops and raw.get(name) != stamp
        ]
        unwanted = {name for name in gone if name not in raw and here.get(name) == self._known[name][0]}
        if _REPORT in changed:  # another machine has finished the run: nothing of ours may stand between its files
            unwanted |= {name for name in here if name not in there and _top(name) in _RESULT}
        for name in (*unwanted, *filter(_is_record, changed)):
            (self.folder / name).unlink(missing_ok=True)
        for name in gone:
            del self._known[name]
        self._each(changed, lambda name: self._get(name, there[name]))
        if changed and self.store.stamps().get(_REPORT) != there.get(_REPORT):
            raise RunError(f"{self.store.address} was changed while it was read", hint="try it again")

    def push(self) -> None:
        """Bring what a working run has finished to the address."""
        self._push(self._work)

    def finish(self) -> None:
        """Bring all of a finished run to the address."""
        self._push(self._tops)

    def _push(self, tops: Sequence[str]) -> None:
        here = self._here(tops)
        changed = [name for name, fact in here.items() if name not in self._known or self._known[name][0] != fact]
        gone = [name for name in self._known if name not in here and _top(name) in tops]
        if changed or gone:
            self._check()
            records = [name for name in changed if _is_record(name) and name in self._known]
            self._delete(sorted((*gone, *records), key=_rank, reverse=True))
            self._each(changed, lambda name: self._put(name, here[name]))

    def _each(self, names: Iterable[str], act: Callable[[str], None]) -> None:
        """Have `act` done with each file, the records after the data, and remember how far it came."""
        ranks = sorted(names, key=_rank)
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for rank in (0, 1, 2):
                    list(pool.map(act, [name for name in ranks if _rank(name) == rank]))
        finally:
            write_note(self._note, self._known)

    def _get(self, name: str, stamp: Stamp) -> None:
        path = self.folder / name
        self.store.get(name, path)
        self._known[name] = (_fact(path), stamp)

    def _put(self, name: str, fact: Fact) -> None:
        self._check()
        try:
            self._known[name] = (fact, self.store.put(name, self.folder / name))
        except KunError:
            if (self.folder / name).exists():  # else it was deleted just now, and next time counts as gone
                raise

    def _delete(self, names: Iterable[str]) -> None:
        for name in list(names):
            self._check()
            self.store.delete([name])
            del self._known[name]

    def _here(self, tops: Sequence[str]) -> dict[str, Fact]:
        """Finished files of this machine, in order of their names."""
        found = {}
        for top in tops:
            below = (self.folder / top).glob("*/*" if top == "shards" else "**/*")  # stages work further down there
            for path in (self.folder / top, *sorted(below)):
                with suppress(FileNotFoundError):
                    if path.is_file() and _may_go(path):
                        found[path.relative_to(self.folder).as_posix()] = _fact(path)
        return _whole(found)


def _may_go(path: Path) -> bool:
    """Whether a file is no lock, no part of one that is being written, and not the door to a review's page."""
    return path.suffix not in (".tmp", ".lock") and path.name != "open.html"


def _whole(files: Mapping[str, Found]) -> dict[str, Found]:
    """Those of a run's files that are finished: a shard is when its record is there, but what was read has none."""

    def whole(name: str) -> bool:
        top, *rest = name.split("/")
        if top != "shards":
            return top in _WORK + _RESULT
        data = name.endswith(".arrow") and (rest[0] == "read" or f"{name.removesuffix('.arrow')}.json" in files)
        return len(rest) == 2 and not rest[1].startswith(".") and (data or name.endswith(".json"))

    return {name: found for name, found in files.items() if whole(name)}


def _top(name: str) -> str:
    return name.partition("/")[0]


def _is_record(name: str) -> bool:
    return name == _REPORT or (_top(name) == "shards" and name.endswith(".json"))


def _rank(name: str) -> int:
    return 2 if name == _REPORT else int(_is_record(name))


def _fact(path: Path) -> Fact:
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


# --- while something works in a mirror -----------------------------------------------------------------------------


@contextmanager
def mirrored(recipe: Recipe, status: Status) -> Iterator[None]:
    """Keep what a recipe has at addresses, run folder and journal, up to date while the block builds and presents it.

    Raises RunError if another run holds the run folder, or comes to hold it; then `status` ends the build.
    """
    with ExitStack() as stack:
        parts: list[Part] = []
        run = stack.enter_context(_held(recipe.output_at, status)) if recipe.output_at else None
        if recipe.journal_at:
            parts.append(RemoteLogs(Store(recipe.journal_at), mirror_folder(recipe.journal_at)))
        if run:
            parts.append(run)
        for part in parts:
            status.say(f"bringing what is new at {part.store.address}")
            part.bring()
        if parts:
            stack.enter_context(_kept_up(parts, run, status))
        yield


@contextmanager
def run_at(run: Path | str, say: Callable[[str], None], *, writes: bool = False) -> Iterator[Path]:
    """Yield the folder of a run: of one at an address its mirror, without the shards. What the block `writes` into it
    goes back there, and nobody else writes there meanwhile."""
    if isinstance(run, Path):
        yield run
        return
    status, folder = Status(say=say), mirror_folder(run)
    with ExitStack() as stack:
        held = _held(run, status, shards=False) if writes else _alone(run, folder, shards=False)
        mirror = stack.enter_context(held)
        mirror.bring()
        if writes:
            stack.enter_context(_kept_up([mirror], mirror, status))
        yield folder


def journal_at(address: str) -> Path:
    """The journal at an address, as a folder of this machine that has all of it."""
    logs = RemoteLogs(Store(address), mirror_folder(address))
    logs.bring()
    return logs.folder


@contextmanager
def _alone(
    address: str, folder: Path, check: Callable[[], None] = lambda: None, *, shards: bool
) -> Iterator[RunMirror]:
    """The mirror of an address, if no other process of this machine uses it."""
    make_private(folder.parent)
    with hold(folder.parent, called=address):
        folder.mkdir(exist_ok=True)
        yield RunMirror(Store(address), folder, check, shards=shards)


@contextmanager
def _held(address: str, status: Status, *, shards: bool = True) -> Iterator[RunMirror]:
    """The mirror of an address that is held. If it no longer is, `status` ends the run, and that is the error."""

    def lost(error: RunError) -> None:
        status.ending = error.message

    held, folder = Hold(address, lost), mirror_folder(address)
    with _alone(address, folder, held.check, shards=shards) as mirror:
        held.take(folder.parent / "token", status.say)
        with held.alive():
            try:
                yield mirror
            except RunError as error:
                raise (held.lost or error) from None


@contextmanager
def _kept_up(parts: Sequence[Part], run: RunMirror | None, status: Status) -> Iterator[None]:
    """Bring what is new to the addresses every few seconds while the block runs, and all of it at its end. After an
    error that is what was finished before, tried once."""
    over = threading.Event()

    def work() -> None:
        failed = False
        while not over.wait(EVERY):
            failed = _push(parts, status, quiet=failed)

    for part in parts:
        part.store.hasty.set()
    thread = threading.Thread(target=work, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        over.set()
        thread.join()
        _push(parts, status)
        raise
    over.set()
    thread.join()
    _finish(parts, run, status)


def _push(parts: Sequence[Part], status: Status, *, quiet: bool = False) -> bool:
    """Push what is finished. A failure is told, unless `quiet`, and returned: it is for the next try to mend."""
    try:
        for part in parts:
            part.push()
    except KunError as error:
        if not quiet:
            status.say(f"{error}; what is not there yet is on this machine")
        return True
    return False


def _finish(parts: Sequence[Part], run: RunMirror | None, status: Status) -> None:
    """Bring everything to the addresses, however long it takes. Raises RunError where that fails."""
    try:
        for part in parts:
            part.store.hasty.clear()
            part.push()
        if run:
            status.say(f"bringing the result to {run.store.address}")
            run.finish()
    except KunError as error:
        where = ", ".join(str(part.folder) for part in parts)
        hint = f"all that was made is on this machine, in {where}; the same command goes on from there"
        raise RunError(error.message, hint=f"{hint}; {error.hint}" if error.hint else hint) from error
