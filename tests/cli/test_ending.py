"""`--time-limit` and SIGTERM end a build in order: what was asked is answered and kept, and the exit code says so."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import click
import pytest
from places import KUN_BUILD, STAGES
from servers.llm_simulator import simulator

from kun_builder.cli.ending import ending, seconds_of
from kun_builder.errors import Stopped
from kun_builder.status import Passage, Status

ROWS = 300
ENDS = {"--time-limit": signal.SIGALRM, "SIGTERM": signal.SIGTERM}
"""Signals that end a build. That of the limit is sent by hand, when there is something to end."""
SLOW = """
import os, signal, time
from kun_builder import BatchStage, hookimpl
kun_api = 1
def sleep(table):
    with open("falls asleep", "w") as file:
        file.write(str(signal.getitimer(signal.ITIMER_REAL)[0]))
    os.rename("falls asleep", "asleep")
    time.sleep(600)
    return table
@hookimpl
def kun_stages():
    return [BatchStage(name="sleep", run=sleep)]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A recipe of three requests a row."""
    monkeypatch.chdir(tmp_path)
    rows = (json.dumps({"text": f"第{number}段文字"}) + "\n" for number in range(ROWS))
    (tmp_path / "rows.jsonl").write_text("".join(rows), "utf-8")
    write(tmp_path, "ask, judge: {threshold: 0}, rewrite")
    return tmp_path


def write(folder, stages):
    (folder / "recipe.yaml").write_text(
        "name: small\nmodels: {chat: {model: simulated/model, revision: one, concurrency: 16}}\n"
        "journal: journal\nshard_rows: 50\n"
        "splits: {web: {source: lines, path: rows.jsonl}}\n"
        f"plugins: {{dirs: ['{STAGES}', .]}}\nstages: [{stages}]\n"
    )


def start(server, *args, program=(KUN_BUILD,)):
    return subprocess.Popen([*program, "--endpoint", server.url, *args], stderr=subprocess.PIPE, text=True)


def after(server, answers, process):
    while server.counts()["answered"] < answers:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def generations(folder):
    shown = subprocess.run([KUN_BUILD, "cache", "--journal", "journal", "--json"], capture_output=True, cwd=folder)
    return json.loads(shown.stdout)["generations"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--time-limit", "SIGTERM"])
def test_what_is_under_way_is_answered_and_kept(folder, how):
    """Every request that reached the server is in the journal when the build ends with 75; the next one asks exactly
    the rest."""
    with simulator(slots=16, speed=2.0) as server:
        process = start(server, *(["--time-limit", "10m"] if how == "--time-limit" else []))
        after(server, 20, process)
        process.send_signal(ENDS[how])
        _, said = process.communicate(timeout=200)
        assert process.returncode == 75, said
        why = "its time limit is reached" if how == "--time-limit" else "it was told to end (SIGTERM)"
        assert f"{why}: nothing more is asked" in said
        assert f"Error: the run is not finished: {why}\nHint: all that was answered is kept; run the same" in said
        counts = server.counts()
        assert 20 <= generations(folder) == counts["answered"] == counts["attempts"] < 3 * ROWS
    with simulator(slots=64, speed=50.0) as fast:
        process = start(fast, "--time-limit", "10m")
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
        assert fast.counts()["answered"] == 3 * ROWS - counts["answered"]


@pytest.mark.slow
def test_a_second_sigterm_waits_for_nothing(folder):
    """Answers that take too long are given up at the second signal; the exit code is the same."""
    patient = "from kun_builder.cli import ending, main; ending.PATIENCE = 600; main.main()"
    with simulator(slots=16, speed=0.02) as server:
        process = start(server, program=(sys.executable, "-c", patient))
        while server.counts()["in_flight"] < 16:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        said = ""
        while "it was told to end (SIGTERM): nothing more is asked" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=100)[1]
        assert server.counts()["answered"] < 16
    assert process.returncode == 75, said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--time-limit", "SIGTERM"])
def test_a_stage_that_asks_nobody_is_not_waited_for(folder, how):
    """Where no answer is under way, a build ends at once. The limit has been counted from its start."""
    (folder / "slow.py").write_text(SLOW, "utf-8")
    write(folder, "sleep, ask, judge, rewrite")
    with simulator(speed=50.0) as server:
        process = start(server, *(["--time-limit", "10m"] if how == "--time-limit" else []))
        while not (folder / "asleep").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        left = float((folder / "asleep").read_text())
        assert 0 < left < 600 if how == "--time-limit" else left == 0
        process.send_signal(ENDS[how])
        _, said = process.communicate(timeout=100)
        assert process.returncode == 75, said
        assert "Traceback" not in said
        assert server.counts()["answered"] == 0


@pytest.mark.slow
def test_a_limit_that_passes_ends_a_build_wherever_it_is(folder):
    """Reading or in a stage: nothing but the limit ends this one, and nobody is asked."""
    (folder / "slow.py").write_text(SLOW, "utf-8")
    write(folder, "sleep, ask, judge, rewrite")
    with simulator(speed=50.0) as server:
        process = start(server, "--time-limit", "2s")
        _, said = process.communicate(timeout=100)
        assert process.returncode == 75, said
        assert "Error: the run is not finished: its time limit is reached" in said
        assert "Traceback" not in said
        assert server.counts()["answered"] == 0


def test_who_ended_a_build_is_told_also_where_an_answer_never_came(monkeypatch):
    """The end of waiting for answers is no time limit, which nobody has set."""
    monkeypatch.setattr("kun_builder.cli.ending.PATIENCE", 0.05)
    status = Status(passages={"ask": Passage(asks=True)})

    def waits():
        with ending(status, None):
            signal.raise_signal(signal.SIGTERM)
            time.sleep(10)

    with pytest.raises(Stopped, match=r"told to end \(SIGTERM\)"):
        waits()


class Silent(NamedTuple):
    """A server that takes connections and never says anything."""

    url: str


def test_a_build_ends_in_order_while_a_server_is_asked_who_it_is(folder):
    """Connections that were just being made are closed, and nothing is told but the end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = start(Silent(f"http://127.0.0.1:{server.getsockname()[1]}"))
        connection, _ = server.accept()
        with connection:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=100)
            assert process.returncode == 75, said
            assert "Error: the run is not finished: it was told to end (SIGTERM)" in said
            assert not [words for words in ("Traceback", "Task was destroyed", "Unhandled") if words in said], said


@pytest.mark.parametrize(
    ("text", "seconds"), [("3h45m", 13_500), ("90m", 5400), ("45s", 45), ("1d12h", 129_600), ("1d2h3m4s", 93_784)]
)
def test_durations(text, seconds):
    """Days, hours, minutes and seconds, largest first."""
    assert seconds_of(None, None, text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "5m3h", "-5m", "1.5h", "3:45:00", "5 m"])
def test_what_is_no_duration(text):
    """Anything else is refused, with examples."""
    with pytest.raises(click.BadParameter, match="is no duration like 3h45m"):
        seconds_of(None, None, text)
