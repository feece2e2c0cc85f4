"""Who computes functions beside this process, and processes that end with a run and die where it breaks off."""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeAlias

from kun_builder.errors import RunError
from kun_builder.run.exits import tell_exits

Submit: TypeAlias = Callable[..., Future[Any]]
"""`submit(*arguments)` has a crew's function called with them elsewhere; they and the result must be picklable."""


class Crew(Protocol):
    """Calls functions elsewhere, where the plugins are known. A call that is lost with its machine is made again, so
    that each may be made twice, and must then do the same."""

    @property
    def size(self) -> int:
        """How many calls it can make at once."""

    def at_work(self, function: Callable[..., Any], workers: int, died: RunError) -> AbstractContextManager[Submit]:
        """Give `submit` for a picklable function, which is sent once, while the block runs. `workers`: calls at once,
        where the crew begins processes of its own. If the block raises, what is still under way is given up. Raises
        `died` if they die."""


@contextmanager
def processes(
    workers: int, died: RunError, begin: Callable[..., object] | None = None, *args: Any
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of so many new processes, each of which calls `begin(*args)` first, if there is one.

    If the block raises, they are killed: nothing that they still do is wanted. Raises `died` if one of them dies.
    """
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(begin, *args)
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        dead = list((pool._processes or {}).values())
        pool.shutdown(wait=True, cancel_futures=True)
        codes = {code for process in dead if (code := process.exitcode) and code != -signal.SIGTERM}  # the pool's own
        if how := ", ".join(map(_ended, sorted(codes))):
            raise RunError(f"{died.message} ({how})", hint=died.hint) from error
        raise died from error
    except BaseException:
        # Only its own: another pool may be at work. A stage that hangs would keep it open for ever.
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ended(code: int) -> str:
    """How a process ended, by its exit code; a negative one is a signal, of which 9 comes where memory is lacking."""
    return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"


def _begin(begin: Callable[..., object] | None, *args: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's, though all hear them: it ends the pool
        signal.signal(number, signal.SIG_IGN)
    tell_exits()
    faulthandler.enable(all_threads=False)
    if begin:
        begin(*args)
