"""A finished run is one value: what is read from its files is read once."""

import sys
from collections import Counter

from finished_runs import make_run

from kun_builder.result.finished import open_run
from kun_builder.result.release import Base, compose


def test_each_data_file_is_hashed_once(tmp_path):
    """Composing a release, and composing it again on a newer head, reads every data file once."""
    run = open_run(make_run(tmp_path / "run", {"wudao": 30, "skypile": 20}))
    opened, watching = Counter(), True

    def watch(event, arguments):
        if watching and event == "open":
            opened[str(arguments[0])] += 1

    sys.addaudithook(watch)  # it stays for good, so it is told when to look away
    first, second = (compose(run, Base(), "alice/x") for _ in range(2))
    watching = False
    assert first.facts == second.facts
    assert run.files
    assert {path: opened[str(file)] for path, file in run.files.items()} == dict.fromkeys(run.files, 1)
