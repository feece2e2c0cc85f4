"""Processes that work for a run: they end with it, and die at once where it breaks off."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from kun_builder.errors import RunError


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
        raise died from error
    except BaseException:
        # Only its own: another pool may be at work. A stage that hangs would keep it open for ever.
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(begin: Callable[..., object] | None, *args: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's, though all hear them: it ends the pool
        signal.signal(number, signal.SIG_IGN)
    if begin:
        begin(*args)
