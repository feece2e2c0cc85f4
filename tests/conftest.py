"""Settings of all tests, and the command line in this process."""

import signal
import sys

import pytest
from hypothesis import settings

settings.register_profile("kun", deadline=None)  # a busy machine is no failure
settings.load_profile("kun")


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
