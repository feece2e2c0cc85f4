"""Generators that work at the same time: how errors and ends pass through them."""

from __future__ import annotations

import threading
import time

import pytest

from kun_builder.errors import RunError, Stopped
from kun_builder.run.line import Line


def taken(coming):
    """All that comes."""
    found = []
    while not coming.over:
        found += coming.take()
        coming.wait(0.01)
    return found


def test_items_come_in_order_while_others_are_still_made():
    """The first item is there although the second one waits for its user."""
    go = threading.Event()

    def items():
        yield 1
        assert go.wait(30)
        yield 2

    with Line() as line:
        coming = line.ahead(items())
        while not (first := coming.take()):
            coming.wait(1)
        assert first == [1]
        assert not coming.over
        go.set()
        assert taken(coming) == [2]


def test_an_error_comes_at_once_and_an_ordered_end_comes_last():
    """Whoever draws raises, so that nothing more is asked; a run that is told to end first takes what has come."""

    def items(error):
        yield 1
        raise error

    with Line() as line:
        broken, ended = line.ahead(items(RunError("a bad file"))), line.ahead(items(Stopped("enough")))
        for coming in (broken, ended):
            coming.join(30)
        with pytest.raises(RunError, match="a bad file"):
            broken.take()
        assert not ended.over
        assert ended.take() == [1]
        with pytest.raises(Stopped, match="enough"):
            _ = ended.over


def test_breaking_off_ends_every_thread():
    """A thread that waits for another one, and one that is told by `check`, both end, and close what they have open."""
    closed = []

    def slow(line):
        try:
            while True:
                line.check()
                time.sleep(0.01)
            yield
        finally:
            closed.append("slow")

    def behind(coming):
        try:
            while True:
                coming.wait(60)
                yield from coming.take()
        finally:
            closed.append("behind")

    began = time.monotonic()
    with Line() as line:
        line.ahead(behind(line.ahead(slow(line))))
    assert sorted(closed) == ["behind", "slow"]
    assert time.monotonic() - began < 9
    assert not [thread for thread in threading.enumerate() if thread.name == "line"]
