"""Who holds a folder behind an address: one process, which says so there, and gives a sign of life now and then.

`holder.json` is made where there is none. Whoever finds one is told whose it is, and only where its holder has been
silent for minutes is it replaced. All that storage must do is to show what was written: whoever has written looks again
after a moment, and the last one to write has it.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from kun_builder.errors import KunError, RunError
from kun_builder.readers.remote_store import Store

HOLDER = "holder.json"
RENEW = 15.0
"""Seconds between two signs of life."""
STALE = 180.0
"""Seconds without one after which another process may take the place. It is given up after half of that."""
SETTLE = 1.0
"""Seconds after which is looked whether what was written is still there."""


@dataclass(frozen=True)
class Holder:
    """The content of `holder.json`: `token` is another one for each holder, `time` is that of its last sign (Unix)."""

    token: str
    process: int
    machine: str
    time: float

    @property
    def age(self) -> float:
        """Seconds since the last sign of life, as far as the clocks of two machines agree."""
        return max(0.0, time.time() - self.time)


class Hold:
    """Holds the folder at `address`. Its methods may be called from several threads."""

    def __init__(self, address: str, lost: Callable[[RunError], object]) -> None:
        """`lost` is called, once, when the folder is no longer held."""
        self._store, self._told = Store(address, hasty=True), lost
        self._token = secrets.token_hex(8)
        self._renewed = 0.0
        self._lock = threading.Lock()
        self.lost: RunError | None = None

    def take(self, left: Path, say: Callable[[str], object]) -> None:
        """Take the folder. Raises RunError, with process and machine of the holder, if it is another's.

        left: a file of this machine with the token of the last holder here. Its process is dead, since the caller has
        the machine's own lock.
        """
        found = self._holder()
        ours = left.read_text() if left.exists() else ""
        if found and found.token != ours and (found.age < STALE or not self._silent(found, say)):
            raise self._others(found)
        self._renewed = time.time()
        self._store.put(HOLDER, self._sign()) if found else self._store.create(HOLDER, self._sign())
        time.sleep(SETTLE)
        found = self._holder()
        if found is None or found.token != self._token:
            raise self._others(found)
        left.write_text(self._token)

    def check(self) -> None:
        """Give a sign of life if one is due. Raises RunError if the folder is no longer held: nothing must be written
        there then; SourceError where storage does not answer."""
        with self._lock:
            if self.lost:
                raise self.lost
            if time.time() - self._renewed < RENEW:
                return
            found = self._holder()
            if found is None or found.token != self._token:
                raise self._lose(self._others(found))
            now = time.time()
            self._store.put(HOLDER, self._sign())
            self._renewed = now

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Give signs of life while the block runs, and leave the folder after it."""
        over = threading.Event()

        def renew() -> None:
            while not self.lost and not over.wait(RENEW):
                with suppress(KunError):
                    self.check()
                if not self.lost and time.time() - self._renewed > STALE / 2:
                    self._lose(_unheard(self._store.address))

        thread = threading.Thread(target=renew, name="hold", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(KunError):  # it becomes stale by itself
                if (found := self._holder()) and found.token == self._token:
                    self._store.delete([HOLDER])

    def _silent(self, found: Holder, say: Callable[[str], object]) -> bool:
        """Whether a holder that seems dead gives no sign of life now either: the clock of its machine may be wrong."""
        say(
            f"{self._store.address} was left by process {found.process} on {found.machine}, which gave no sign of life"
            f" for {found.age:.0f} s; it is taken over unless one comes within {2 * RENEW:g} s"
        )
        time.sleep(2 * RENEW)
        return self._holder() in (None, found)

    def _holder(self) -> Holder | None:
        content = self._store.read(HOLDER)
        try:
            return Holder(**orjson.loads(content)) if content else None
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{self._store.address}/{HOLDER} was not written by kun-build",
                hint="delete it, if no run works there, or give the run another address with --output",
            ) from error

    def _sign(self) -> bytes:
        return orjson.dumps(asdict(Holder(self._token, os.getpid(), socket.gethostname(), time.time())))

    def _lose(self, why: RunError) -> RunError:
        self.lost = why
        self._told(why)
        return why

    def _others(self, found: Holder | None) -> RunError:
        who = f"process {found.process} on {found.machine}" if found else "unknown"
        sign = f"; its last sign of life is {found.age:.0f} s old" if found else ""
        return RunError(
            f"another kun-build ({who}) is working in {self._store.address}{sign}",
            hint=f"wait for it (one that is dead is replaced {STALE:g} s after its last sign), or give this run another"
            " address with --output",
        )


def _unheard(address: str) -> RunError:
    return RunError(
        f"{address} could not be reached for {STALE / 2:g} s, and another run may take this one's place soon",
        hint="all that was made is on this machine: the same command goes on with it",
    )
