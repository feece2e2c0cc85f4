"""`kun-build RECIPE` from the outside: progress and messages on stderr, the result on stdout, Ctrl-C without a loss."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from places import KUN_BUILD, STAGES
from servers.llm_simulator import simulator

from kun_builder.cli.funnel import show_result
from kun_builder.cli.output import Output, printable
from kun_builder.cli.progress import Meter, describe, describe_drops, progress
from kun_builder.recipe.recipe import Recipe
from kun_builder.report import RunReport, SplitReport, StepCounts
from kun_builder.status import Passage, Phase, Status


@pytest.fixture(scope="module")
def server():
    with simulator(speed=50.0) as server:
        yield server


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe over 30 rows, one of them dropped, one broken."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"text": f"第{number}段文字"}) for number in range(30)]
    rows[3], rows[4] = '{"text": "bad"}', '{"text": '
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: small\nmodels: {chat: {endpoints: ['http://127.0.0.1:9']}}\n"
        "splits: {web: {source: lines, path: rows.jsonl}}\n"
        f"plugins: {{dirs: ['{STAGES}']}}\nstages: [clean, same, ask, judge, rewrite]\n"
    )
    return path


def kun(*args, **options):
    return subprocess.run([KUN_BUILD, *args], capture_output=True, text=True, **options)


def test_build_shows_the_funnel_rows_and_the_way_to_load(recipe, server, tmp_path):
    """A build ends with the funnel of each split, three rows, where the rejected are, and a command that loads it."""
    done = kun("--endpoint", server.url)
    assert done.returncode == 0, done.stderr
    assert "web: 30 read, " in done.stdout
    for words in (r"clean +29 +28 +bad 1", r"judge +28 +\d+ +low_score \d+"):
        assert re.search(words, done.stdout), done.stdout
    assert done.stdout.count("[web] ") == 3
    assert "are in runs/small/rejected, with their reasons" in done.stdout
    command = re.search(r"load it: +python (-c .*)", done.stdout)[1]
    loaded = subprocess.run([sys.executable, *shlex.split(command)], capture_output=True, text=True)
    assert "features: ['instruction', 'output']" in loaded.stdout, loaded.stderr
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d write: \d+/\d+ rows", done.stderr, re.MULTILINE)
    assert "dropped: " in done.stderr
    again = kun("recipe.yaml", "--endpoint", server.url)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert again.stdout == done.stdout


@pytest.mark.parametrize("name", ["a [1] b", "it's", 'say "$HOME" `x`', "{a}*?", "[abc]/d\x1b[31me"])
def test_the_way_to_load_works_in_every_folder(recipe, server, monkeypatch, name):
    """Whatever a run folder is called, and however narrow the terminal, the command stands on one line and loads it."""
    monkeypatch.setenv("COLUMNS", "40")
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        [KUN_BUILD, "recipe.yaml", "--limit", "20", "--output", name, "--endpoint", server.url],
        stdout=terminal, stderr=subprocess.PIPE, text=True,
    ) as build:  # fmt: skip
        os.close(terminal)
        printed = b"".join(iter(lambda: _read(screen), b"")).decode()
        assert build.wait() == 0, build.stderr.read()
    assert "\x1b[31m" not in printed
    (command,) = [line for line in printed.splitlines() if line.startswith("load it:")]
    shell = command.removeprefix("load it:").strip().replace("python", shlex.quote(sys.executable), 1)
    loaded = subprocess.run(shell, shell=True, capture_output=True, text=True)
    assert "features: ['instruction', 'output']" in loaded.stdout, loaded.stderr


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 1 << 16)
    except OSError:  # the terminal is closed
        return b""


@pytest.mark.parametrize(
    ("folder", "said"), [("a::b", "Error: .*`::`.*a::b"), ("a\udcff", r"Error: a byte that is not UTF-8 .*a\\xff")]
)
def test_a_folder_that_no_reader_could_open_is_refused(recipe, server, folder, said):
    """`::` or a byte that is no text in the path of a run folder is an error before anything is asked."""
    asked = server.stats()["attempts"]
    done = kun("recipe.yaml", "--output", folder, "--endpoint", server.url)
    assert done.returncode == 1
    assert re.search(said, done.stderr)
    assert "Traceback" not in done.stderr
    assert server.stats()["attempts"] == asked


def test_file_names_do_not_steer_the_terminal(recipe, server, tmp_path):
    """Names of files with control characters, line ends and marks of direction are escaped wherever they are shown."""
    (tmp_path / "rows.jsonl").unlink()
    name = "evil\x1b[31m\u202e\nError: fake"
    for number in range(12):
        (tmp_path / "data" / f"{number}{name}").mkdir(parents=True)
        (tmp_path / "data" / f"{number}{name}" / "x.jsonl").write_text('{"text": \n')
    recipe.write_text(recipe.read_text().replace("rows.jsonl", "'data/**/*.jsonl'"))
    for command in (("recipe.yaml",), ("plan", "recipe.yaml")):
        done = kun(*command, "--endpoint", server.url)
        assert "\x1b[31m" not in done.stdout + done.stderr
        assert "\u202e" not in done.stdout + done.stderr
        assert "\nError: fake" not in done.stdout + done.stderr
    recipe.write_text(recipe.read_text().replace("data/**/*.jsonl", "data/nothing"))
    done = kun("recipe.yaml", "--endpoint", server.url)
    assert "evil\\x1b[31m\\u202e\\nError: fake" in done.stderr


def test_build_as_json_and_quiet(recipe, server):
    """With `--json` stdout is one object; with `-q` the dataset's folder, and nothing is on stderr."""
    done = kun("--endpoint", server.url, "--json", "--log-format", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["dataset"] == "runs/small/dataset"
    assert result["splits"]["web"]["read"] == 30
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    figures = {"phase", "done", "total", "in_flight", "tokens_per_second", "drops", "left"}
    assert [line for line in lines if figures <= set(line)]
    done = kun("recipe.yaml", "--endpoint", server.url, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "runs/small/dataset\n", "")


@pytest.mark.slow
def test_limit_output_and_fresh(recipe, server):
    """`--limit` builds from so many rows in the folder of `--output`; `--fresh` computes it again."""
    first = kun("recipe.yaml", "--limit", "5", "--output", "try", "--endpoint", server.url, "--json")
    assert json.loads(first.stdout)["splits"]["web"]["read"] == 5
    asked = server.stats()["attempts"]
    kun("recipe.yaml", "--limit", "5", "--output", "try", "--endpoint", server.url)
    assert server.stats()["attempts"] == asked
    kun("recipe.yaml", "--limit", "5", "--output", "try", "--endpoint", server.url, "--fresh")
    assert server.stats()["attempts"] > asked


def test_progress_on_a_terminal(recipe, server):
    """On a terminal progress is drawn in place, with rates, and gone at the end."""
    master, slave = pty.openpty()
    process = subprocess.Popen([KUN_BUILD, "--endpoint", server.url], stdout=subprocess.PIPE, stderr=slave, text=True)
    os.close(slave)
    drawn = b""
    while True:
        try:
            drawn += os.read(master, 65536)
        except OSError:  # the other end is closed
            break
    out, _ = process.communicate()
    os.close(master)
    assert process.returncode == 0
    assert b"\x1b[?25l" in drawn  # the cursor is hidden while it draws
    assert b"\x1b[?25h" in drawn
    assert re.search("rows[^\r\n]*\r\n[^\r\n]*━".encode(), drawn)  # the bar has a line of its own
    assert "web: 30 read" in out


@pytest.mark.slow
def test_interrupted_run_goes_on(recipe):
    """Ctrl-C ends a build at once with exit code 130; the next run asks only for what is missing."""
    with simulator(speed=0.5) as slow:
        process = subprocess.Popen(
            [KUN_BUILD, "--endpoint", slow.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 60
        while slow.stats()["attempts"] < 30 and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - began < 15
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.endswith("Error: interrupted\nHint: what is finished is kept; run the same command again to go on\n")
    with simulator(speed=50.0) as fast:
        done = kun("--endpoint", fast.url)
    assert done.returncode == 0, done.stderr


# --- without a run ---------------------------------------------------------------------------------------------


def test_rates_are_of_the_last_half_minute(monkeypatch):
    """Rates and time left come from a moving window of the current phase."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    status = Status(started=40.0)
    status.begin("label", 1000)
    meter = Meter(status)
    assert meter.read()["per_second"] is None
    for done, tokens in ((100, 5000), (200, 10000)):
        now[0] += 10
        status.done, status.completion_tokens = done, tokens
        figures = meter.read()
    assert (figures["per_second"], figures["tokens_per_second"], figures["left"]) == (10.0, 500.0, 80.0)
    now[0] += 30
    status.done, status.in_flight, status.retries = 230, 64, 2
    status.drops.update({"score: low": 40, "label: statement": 3, **{f"s{n}: r": 1 for n in range(6)}})
    figures = meter.read()
    assert figures["per_second"] == 1.0
    assert describe(figures) == "label: 230/1,000 rows, 1/s, 64 requests in flight, 2 retries, 12:50 left"
    assert describe_drops(figures) == (
        "dropped: score: low 40, label: statement 3, s0: r 1, s1: r 1, s2: r 1, s3: r 1, other 2"
    )
    status.begin("read wudao", 5_000_000_000, "bytes")
    status.in_flight = status.retries = 0
    assert describe(meter.read()) == "read wudao: 0.0 MB/5,000.0 MB"
    assert describe_drops(Meter(Status()).read()) == ""


def test_reading_is_shown_while_models_are_asked():
    """As long as nobody knows how many rows there will be, progress is that of the reading; then that of the rows."""
    status = Status()
    status.begin("label", None)
    status.reading = Phase("read wudao", 5_000_000_000, "bytes", 1_000_000_000)
    status.in_flight, status.done, status.requests = 3, 20, 25
    status.passages["label"] = Passage(True, come=23, left=20, passed=20, answers=20)
    meter = Meter(status)
    assert describe(meter.read()) == "read wudao: 1,000.0 MB/5,000.0 MB, 25 answers, 3 requests in flight"
    status.reading, status.total = None, 40
    assert describe(meter.read()) == "label: 20/40 rows, 25 answers, 3 requests in flight"


def test_rates_of_slow_units_are_of_more_than_half_a_minute(monkeypatch):
    """Where a unit takes minutes, the time left comes from the last ten of them."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    status = Status(started=0.0)
    status.begin("train label", 100, "steps")
    meter = Meter(status)
    for second in range(3600):
        now[0], status.done = float(second), second // 120
        figures = meter.read()
    assert figures["left"] == pytest.approx((100 - 29) * 120, rel=0.15)


def test_time_left_counts_answers(monkeypatch):
    """Where all rows are under way and none is finished, the time left follows from the answers that are still to come:
    58 rows of four answers each, two of them at the first step, one each three seconds."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    status = Status(started=0.0)
    status.begin("label > score > refine > polish", 58)
    status.passages = {name: Passage(name != "refine") for name in ("label", "score", "refine", "polish")}
    label, score, refine, polish = status.passages.values()
    label.come = 58
    meter = Meter(status)
    assert meter.read()["left"] is None
    for answer in range(1, 58 * 4):
        now[0], status.requests = answer * 3.0, answer
        label.left = label.passed = score.come = min(max(answer - 58, 0), 58)
        score.left = score.passed = refine.come = refine.left = refine.passed = polish.come = min(
            max(answer - 116, 0), 58
        )
        polish.left = polish.passed = status.done = max(answer - 174, 0)
        label.answers, score.answers, polish.answers = label.left * 2, score.left, polish.left
        figures = meter.read()
        assert figures["left"] == pytest.approx((58 * 4 - answer) * 3, rel=0.35)
    assert figures["left"] == pytest.approx(3)


def test_quiet_run_says_nothing(capsys):
    """In quiet mode there is neither progress nor a message."""
    status = Status()
    with progress(status, Output("quiet")):
        status.begin("label", 10)
        status.say("hello")
    assert capsys.readouterr() == ("", "")


def test_messages_of_a_run_are_shown(capsys):
    """What a run says is on stderr, as JSON if asked."""
    status = Status()
    with progress(status, Output()):
        status.say("model fetched")
    with progress(status, Output(json_log=True)):
        status.say("model fetched")
    assert capsys.readouterr() == ("", 'model fetched\n{"message": "model fetched"}\n')


def test_text_of_a_corpus_cannot_steer_the_terminal(tmp_path, capsys):
    """Control characters in a shown row are escaped, and markup in it is only text."""
    assert printable("a\x1b[31mred\x07\n b\u202e") == "a\\x1b[31mred\\x07 b\\u202e"
    folder = tmp_path / "run"
    (folder / "dataset").mkdir(parents=True)
    row = {"instruction": "\x1b]0;owned\x07[bold]问", "output": "x" * 500}
    (folder / "dataset/web.jsonl").write_text(json.dumps(row) + "\n")
    counts = StepCounts(label="ask", stage="ask", rows_in=2, rows_out=1, dropped={"low": 1})
    report = RunReport(
        name="r", version="0", status="complete", signature="", created="", seconds=0, seed=0, limit=None,
        format="jsonl", splits={"web": SplitReport(source="s", read=2, kept=1, stages=(counts,))}, models={}, steps=(),
    )  # fmt: skip
    show_result(report, Recipe.model_construct(output=folder), Output())
    out = capsys.readouterr().out
    assert "\\x1b]0;owned\\x07[bold]问" in out
    assert "\x1b" not in out
    assert "x" * 200 + "..." in out
    assert "1 of 2 rows are in" in out
