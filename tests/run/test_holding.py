"""A run folder has one holder, whatever machine it is on."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from kun_builder.errors import RunError
from kun_builder.run.folder import RunFolder
from kun_builder.run.holding import local_locks

HOLD = """
import sys, pathlib
from kun_builder.run.folder import RunFolder
with RunFolder(pathlib.Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_with_the_first_ones_name(tmp_path):
    """Process and machine of the holder are told; when it is killed, the folder is free."""
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        name = f"process {holder.pid} on {socket.gethostname()}"
        with pytest.raises(RunError, match=rf"another kun-build \({name}\) is working in"), folder.lock():
            pass
        holder.kill()
    with folder.lock():
        pass


def test_the_holder_is_on_the_disk_of_the_server(tmp_path, monkeypatch):
    """The name is synced, since on NFS another machine sees only what has reached the server."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.pread(fd, 99, 0).decode()))
    with RunFolder(tmp_path).lock():
        assert synced == [f"{os.getpid()} on {socket.gethostname()}"]


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    """Lustre without `flock`, for example: an error with the cure."""

    def refuse(file, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(RunError, match="cannot be locked: Function not implemented") as error,
        RunFolder(tmp_path).lock(),
    ):
        pass
    assert "--output" in error.value.hint


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:44 / /nfs rw shared:2 - nfs4 server:/a rw,vers=4.2,local_lock=none,addr=10.0.0.1
24 22 0:45 / /old rw shared:3 - nfs server:/b rw,vers=3,nolock,local_lock=all,addr=10.0.0.1
25 24 0:46 / /old/a\\040b rw shared:4 - nfs server:/c rw,vers=3,local_lock=posix,addr=10.0.0.1
26 22 0:47 / /lustre rw - lustre mds:/d rw,localflock
27 22 8:2 / /local rw - ext4 /dev/nolock rw
"""


@pytest.mark.parametrize(
    ("folder", "option"),
    [
        *(("/home/run", ""), ("/nfs/run", ""), ("/old/run", "nolock"), ("/old/a b/run", ""), ("/older/run", "")),
        *(("/lustre/run", "localflock"), ("/local/run", "")),
    ],
)
def test_locks_that_other_machines_do_not_see_are_none(folder, option):
    """NFS mounted without locks over the network is known by its options; the innermost mount counts."""
    from pathlib import Path

    assert local_locks(Path(folder), MOUNTS) == option


def test_a_run_on_such_a_mount_is_refused(tmp_path, monkeypatch):
    """The error has the option and the cure."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"24 1 0:45 / {tmp_path} rw - nfs server:/b rw,vers=3,local_lock=flock\n")
    monkeypatch.setattr("kun_builder.run.holding._MOUNTS", mounts)
    with pytest.raises(RunError, match="mounted with `local_lock=flock`") as error, RunFolder(tmp_path / "run").lock():
        pass
    assert "--output" in error.value.hint
