"""One run at a time holds a folder behind an address, whatever becomes of its process and of the network."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import ExitStack

import fsspec
import orjson
import pytest

from kun_builder.errors import RunError, SourceError
from kun_builder.run import remote_hold
from kun_builder.run.remote_hold import HOLDER, Hold


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Seconds are short here."""
    for name, seconds in {"RENEW": 0.05, "STALE": 5.0, "SETTLE": 0.1}.items():
        monkeypatch.setattr(remote_hold, name, seconds)


@pytest.fixture(params=["s3", "memory"])
def address(request):
    """A folder in a store with conditional requests, and in one without."""
    name = f"hold-{uuid.uuid4().hex[:8]}"
    if request.param == "s3":
        return f"{request.getfixturevalue('s3').put(name, {})}/run"
    return f"memory://{name}/run"


def take(address, left, said=None):
    """A hold, taken; what it says of itself when it is lost is put into its list `told`."""
    told = []
    held = Hold(address, told.append)
    held.told = told
    held.take(left, (said if said is not None else []).append)
    return held


def sign(address, **changes):
    """Change the sign of life that is there."""
    fs, place = fsspec.url_to_fs(f"{address}/{HOLDER}")
    fs.pipe_file(place, orjson.dumps({**orjson.loads(fs.cat_file(place)), **changes}))


def test_a_second_one_is_told_who_holds_it(address, tmp_path):
    """Machine, process and the age of the last sign of life are named; once it is left, it is free."""
    with take(address, tmp_path / "one").alive():
        sign(address, time=time.time() - 3)
        with pytest.raises(RunError) as refused:
            take(address, tmp_path / "two")
    who = f"another kun-build (process {os.getpid()} on {socket.gethostname()}) is working in {address}"
    assert refused.value.message.startswith(f"{who}; its last sign of life is ")
    assert "--output" in refused.value.hint
    take(address, tmp_path / "two").check()


def test_of_two_at_once_one_has_it(address, tmp_path):
    """Both begin at the same moment, several times: one holds it, and the other one is refused."""
    for turn in range(3):
        begin, taken, refused = threading.Barrier(2), [], []

        def contend(name, begin=begin, taken=taken, refused=refused):
            begin.wait()
            try:
                taken.append(take(address, tmp_path / name))
            except RunError as error:
                refused.append(error)

        threads = [threading.Thread(target=contend, args=(f"{turn}-{name}",)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(taken), len(refused)) == (1, 1)
        with taken[0].alive():
            taken[0].check()


def test_a_silent_one_is_taken_over_and_then_stops(address, tmp_path):
    """The one that was silent for long is replaced, which it notices before it writes again."""
    first, said = take(address, tmp_path / "one"), []
    sign(address, time=time.time() - 9)
    second = take(address, tmp_path / "two", said)
    assert "gave no sign of life for 9 s; it is taken over" in said[0]
    time.sleep(0.06)
    with pytest.raises(RunError, match="another kun-build"):
        first.check()
    assert [str(error) for error in first.told] == [str(first.lost)]
    with pytest.raises(RunError, match="another kun-build"):
        first.check()
    second.check()


def test_one_whose_clock_is_wrong_lives(address, tmp_path, monkeypatch):
    """A sign that seems to be old is no proof of death while new ones come."""
    monkeypatch.setattr(remote_hold, "RENEW", 0.3)
    take(address, tmp_path / "one")
    sign(address, time=1000.0)
    threading.Timer(0.2, sign, (address,), {"time": 1000.2}).start()
    with pytest.raises(RunError, match="another kun-build"):
        take(address, tmp_path / "two")


def test_what_a_dead_process_of_this_machine_left_is_taken_at_once(address, tmp_path):
    """Nobody waits for the predecessor in the same mirror, whose lock is free."""
    take(address, tmp_path / "one")
    said = []
    take(address, tmp_path / "one", said).check()
    assert not said


def test_a_store_that_does_not_answer_ends_it(s3, tmp_path, monkeypatch):
    """The hold is given up before another one may take it."""
    monkeypatch.setattr(remote_hold, "STALE", 0.6)
    held = take(f"{s3.put('silent', {})}/run", tmp_path / "one")
    with ExitStack() as stack:
        stack.enter_context(held.alive())
        time.sleep(0.4)
        assert held.lost is None

        def broken(*args):
            raise SourceError("no network")

        monkeypatch.setattr(held._store, "put", broken)
        time.sleep(0.6)
        assert "could not be reached for 0.3 s" in held.lost.message
    assert [str(error) for error in held.told] == [str(held.lost)]


def test_a_file_of_that_name_is_not_ours(address, tmp_path):
    """It is named, and stays."""
    fs, place = fsspec.url_to_fs(f"{address}/{HOLDER}")
    fs.pipe_file(place, b'{"mine": 1}')
    with pytest.raises(RunError, match=r"run/holder\.json was not written by kun-build"):
        take(address, tmp_path / "one")
    assert fs.cat_file(place) == b'{"mine": 1}'
