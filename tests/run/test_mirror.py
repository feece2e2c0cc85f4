"""A run folder and its address: what is whole here is whole there, in every order of things and of deaths."""

from __future__ import annotations

import uuid

import fsspec
import pytest

from kun_builder.errors import RunError, SourceError
from kun_builder.readers import remote
from kun_builder.readers.remote_store import Store
from kun_builder.run.mirror import RunMirror

SHARD = {"shards/a/x-0.arrow": "rows", "shards/a/x-0.json": "record"}
RUN = {**SHARD, "kept/x-0.parquet": "kept", "dataset/data/x-0.parquet": "rows", "report.json": "{}"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """What fails is not tried again."""
    monkeypatch.setattr(remote, "PAUSES", ())


@pytest.fixture
def address():
    return f"memory://{uuid.uuid4().hex}/run"


@pytest.fixture
def machine(address, tmp_path):
    """A function: the mirror of a machine with this name, as it is when a run begins there."""

    def begin(name, **options):
        mirror = RunMirror(Store(address), tmp_path / name / "run", **options)
        mirror.folder.mkdir(parents=True, exist_ok=True)
        mirror.bring()
        return mirror

    return begin


def fill(mirror, files):
    """Write these files."""
    for name, text in files.items():
        path = mirror.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def here(mirror):
    """The files of a mirror."""
    paths = (path for path in mirror.folder.rglob("*") if path.is_file())
    return {path.relative_to(mirror.folder).as_posix(): path.read_text() for path in paths}


def there(address):
    """What is at the address."""
    fs, root = fsspec.url_to_fs(address)
    return {name.removeprefix(f"{root}/"): fs.cat_file(name).decode() for name in fs.find(root)}


def test_a_working_run_sends_what_is_finished(machine, address):
    """Shards that have their record, and what was read; no part of what is still being written; the result at last."""
    mirror = machine("one")
    fill(mirror, {**SHARD, "shards/a/x-1.arrow": "half", "shards/read/x-0.arrow": "read", "kept/x-0.parquet": "new"})
    fill(mirror, {"shards/read/.x-1.arrow.tmp": "half", "shards/a/k.work/spill.json": "", "shards/a/tmpabc": "half"})
    fill(mirror, {"verdicts/.me.lock": "", "verdicts/open.html": "the secret", "verdicts/me.jsonl": "{}", ".lock": "1"})
    mirror.push()
    assert there(address) == {**SHARD, "shards/read/x-0.arrow": "read", "verdicts/me.jsonl": "{}"}
    fill(mirror, {"shards/a/x-1.json": "record", "report.json": "{}", "notes.txt": "somebody's"})
    mirror.finish()
    assert there(address).keys() == here(mirror).keys() - {
        *("shards/read/.x-1.arrow.tmp", "shards/a/k.work/spill.json", "shards/a/tmpabc"),
        *("verdicts/.me.lock", "verdicts/open.html", ".lock", "notes.txt"),
    }


def test_the_record_goes_last_and_is_taken_back_first(machine, address):
    """Whenever the sending breaks off, nothing at the address says that it is whole if it is not."""
    mirror = machine("one")
    fill(mirror, RUN)
    mirror.finish()
    old = there(address)
    (mirror.folder / "kept/x-0.parquet").unlink()
    fill(mirror, {"shards/a/x-0.arrow": "others", "shards/a/x-0.json": "another", "kept/x-1.parquet": "kept anew"})
    fill(mirror, {"dataset/data/x-0.parquet": "others", "report.json": "{ }"})
    new, steps, wrong = here(mirror), 0, []
    real = {name: getattr(mirror.store._fs, name) for name in ("put_file", "rm_file")}

    def step(name):
        def act(*args):
            nonlocal steps
            steps += 1
            now = there(address)
            pair = (now["shards/a/x-0.arrow"], now.get("shards/a/x-0.json"))
            if pair not in (("rows", "record"), ("others", "another")) and pair[1]:
                wrong.append(now)
            if "report.json" in now and now not in (old, new):
                wrong.append(now)
            if steps % 3 == 0:
                raise PermissionError("not now")
            return real[name](*args)

        return act

    for name in real:
        setattr(mirror.store._fs, name, step(name))
    tries = 0
    try:
        while there(address) != new:
            tries += 1
            assert tries < 20
            try:
                mirror.finish()
            except SourceError:
                mirror = machine("one")  # a new start
    finally:
        for name in real:
            delattr(mirror.store._fs, name)
    assert not wrong
    assert tries > 2
    assert here(mirror) == new


def test_another_machine_goes_on(machine, address):
    """It gets everything once, deletes what it sees deleted, and what it adds comes back."""
    one = machine("one")
    fill(one, RUN)
    one.finish()
    two = machine("two")
    assert here(two) == RUN
    (two.folder / "shards/a/x-0.json").unlink()
    (two.folder / "shards/a/x-0.arrow").unlink()
    fill(two, {"shards/b/y-0.arrow": "rows", "shards/b/y-0.json": "record"})
    two.finish()
    assert here(machine("one")) == here(two) == there(address)


def test_the_result_of_another_machine_is_not_mixed_with_ours(machine):
    """What was finished here and never sent gives way to what was finished elsewhere meanwhile; shards of ours that it
    has not stay, and those that it has are its own."""
    one = machine("one")
    fill(one, {**RUN, "kept/x-1.parquet": "ours", "shards/a/x-9.arrow": "rows", "shards/a/x-9.json": "record"})
    two = machine("two")
    theirs = {name: f"their {text}" for name, text in RUN.items()}
    fill(two, theirs)
    two.finish()
    assert here(machine("one")) == {**theirs, "shards/a/x-9.arrow": "rows", "shards/a/x-9.json": "record"}


def test_a_shard_without_its_record_is_not_brought(machine, address):
    """It was broken off there; ours stays whole."""
    fs, root = fsspec.url_to_fs(address)
    fs.pipe_file(f"{root}/shards/a/x-0.arrow", b"of the dead")
    one = machine("one")
    assert not here(one)
    fill(one, SHARD)
    assert here(machine("one")) == SHARD
    one.push()
    assert there(address) == SHARD


def test_names_that_lead_elsewhere_are_not_followed(machine, address, tmp_path):
    """Who can write at the address cannot write elsewhere on this machine, nor fill it with what is no run's."""
    fs, root = fsspec.url_to_fs(address)
    for name in ("kept/../../../evil", "../evil", "kept//x", "video.mp4", "holder.json", "shards/a/b/c.json"):
        fs.pipe_file(f"{root}/{name}", b"foreign")
    fs.pipe_file(f"{root}/kept/x", b"kept")
    assert here(machine("one")) == {"kept/x": "kept"}
    assert not list(tmp_path.rglob("evil"))


def test_who_reads_a_run_brings_no_shards(machine):
    """Nor sends those that it has."""
    one = machine("one")
    fill(one, RUN)
    one.finish()
    reader = machine("two", shards=False)
    assert here(reader) == {name: text for name, text in RUN.items() if name not in SHARD}
    fill(reader, {"shards/a/x-0.arrow": "old", "shards/a/x-0.json": "old", "report.html": "page"})
    reader.finish()
    assert here(machine("one")) == {**RUN, "report.html": "page"}


def test_a_run_that_changes_while_it_is_read(machine, monkeypatch):
    """It is noticed, and not taken for a whole one."""
    one = machine("one")
    fill(one, RUN)
    one.finish()
    real = RunMirror._get

    def get(self, name, stamp):
        real(self, name, stamp)
        if name == "kept/x-0.parquet":
            fill(one, {"report.json": "anew"})
            one.finish()

    monkeypatch.setattr(RunMirror, "_get", get)
    with pytest.raises(RunError, match="was changed while it was read"):
        machine("two")


def test_nothing_is_sent_once_the_hold_is_lost(machine, address):
    """`check` is asked before each object."""
    left = [2]

    def check():
        left[0] -= 1
        if left[0] < 0:
            raise RunError("lost")

    mirror = machine("one", check=check)
    fill(mirror, RUN)
    with pytest.raises(RunError, match="lost"):
        mirror.finish()
    assert len(there(address)) == 1
