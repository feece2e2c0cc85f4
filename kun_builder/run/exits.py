"""Who ended a process: `os._exit` in a plugin leaves no traceback and runs nothing more, so it is told before it ends.

Libraries call it where a worker of their own has failed. Without a word, a run of days would end in silence.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

_at_work: dict[int, Callable[[], object]] = {}
"""By thread, what tells who is at work there."""


def works_here(who: Callable[[], object]) -> None:
    """Note that `who()` says which stage is at work in this thread, from now on."""
    _at_work[threading.get_ident()] = who


def tell_exits() -> Callable[[int], NoReturn]:
    """From now on, `os._exit` in this very process says on stderr who called it, and where. Returns it as it was."""
    own, end = os.getpid(), os._exit

    def told(status: int) -> NoReturn:
        if os.getpid() == own:  # children that were forked end in this way of themselves
            frame = sys._getframe(1)
            who = _at_work.get(threading.get_ident(), lambda: None)() or "a plugin, or what it uses,"
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            print(f"Error: {who} ended the process by os._exit({status}) at {place}", file=sys.stderr)
            print("Hint: mend or leave out what it does there, and run kun-build again to go on", file=sys.stderr)
            sys.stderr.flush()
        end(status)

    os._exit = told
    return end


@contextmanager
def exits_told() -> Iterator[None]:
    """Do as `tell_exits` while this is open."""
    end = tell_exits()
    try:
        yield
    finally:
        os._exit = end  # type: ignore[assignment]  # only its name of the parameter differs
        _at_work.clear()
