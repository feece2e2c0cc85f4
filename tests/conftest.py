"""Settings of all tests, and the command line in this process."""

import signal
import sys

import pytest
from hypothesis import settings

settings.register_profile("kun", deadline=None)  # a busy machine is no failure
settings.load_profile("kun")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # pytest in the background of a shell: processes would ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def kun(monkeypatch, capsys):
    """Run `kun-build` with these arguments: (exit code, stdout, stderr)."""
    from kun_builder.cli.main import main

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["kun-build", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Answers of other tests are not found: the journal and all else of the user's cache begin empty."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def registry():
    """The built-in plugins, and the stages that the tests of the runner use."""
    from places import STAGES

    from kun_builder.recipe.plugins import load_plugins

    return load_plugins([STAGES])


@pytest.fixture(scope="session")
def s3_server():
    """An S3 server; tests use `s3`."""
    from servers.s3 import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The server, with the environment that s3fs needs for it."""
    from s3fs import S3FileSystem
    from servers.s3 import ENVIRONMENT

    S3FileSystem.clear_instance_cache()  # they keep the keys and the address that they were made with
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_server.url}.items():
        monkeypatch.setenv(name, value)
    yield s3_server
    S3FileSystem.clear_instance_cache()
