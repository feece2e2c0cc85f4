"""The server of a review answers nobody but the page that it gave to whoever has its address; `kun-build review`."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from finished_runs import make_run

from kun_builder.errors import RunError
from kun_builder.result.review import Review
from kun_builder.result.review_server import serve_review
from kun_builder.result.review_store import open_store
from kun_builder.run.verdicts import verdicts_in

PAIRS = [{"id": f"a:{n}", "instruction": f"问{n}", "output": "答", "text": "文", "reason": None} for n in range(3)]
GOOD = {"pair": 0, "good": True, "kinds": []}


@pytest.fixture
def review(tmp_path) -> Review:
    return Review("my-kun", PAIRS, tmp_path / "verdicts")


@pytest.fixture
def served(review):
    with open_store(review, "me") as store, serve_review(review, store) as address:
        yield address


def ask(served, method, what="", body=None, **headers):
    """Status, headers and body of the answer to a request like those of the page; `headers` change it."""
    url = urlsplit(served.url)
    sent = {"Origin": f"http://{url.netloc}", "Content-Type": "application/json", "Host": url.netloc}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    data = body if isinstance(body, bytes) else json.dumps(body)
    path = what if what.startswith("/") else url.path + what
    sent = {name: value for name, value in sent.items() if value is not None}
    connection.request(method, path, data if method == "POST" else None, sent)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_the_page_and_a_verdict(served, review):
    """Who has the address gets the page, and may judge; the verdict is in the file when the answer comes."""
    status, headers, page = ask(served, "GET")
    assert status == 200
    assert "问2".encode() in page
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Python" not in headers["Server"]
    assert ask(served, "POST", "verdict", GOOD)[0] == 204
    assert [(v.id, v.good) for v in verdicts_in(review.folder)] == [("a:0", True)]


def test_only_this_machine_and_its_user(served, review):
    """It listens on 127.0.0.1 only; verdicts and lock can be read by nobody else."""
    url = urlsplit(served.url)
    assert url.hostname == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((socket.gethostbyname_ex("127.0.0.2")[2][0], url.port), timeout=2)
    ask(served, "POST", "verdict", GOOD)
    assert review.folder.stat().st_mode & 0o077 == 0
    assert (review.folder / "me.jsonl").stat().st_mode & 0o077 == 0


def test_addresses_cannot_be_guessed(review):
    """Each start has a token of its own of at least 128 bits; any other path is nothing."""
    tokens = []
    for _ in range(2):
        with open_store(review, "me") as store, serve_review(review, store) as served:
            tokens.append(urlsplit(served.url).path.strip("/"))
            for path in ("/", "/verdict", f"/{'a' * 32}/", f"/{tokens[-1]}", f"/{tokens[-1]}/x", f"/{tokens[0]}é/"):
                assert ask(served, "GET", path.encode("latin-1").decode("latin-1").replace("é", "%C3%A9"))[0] == 404
    assert tokens[0] != tokens[1]
    assert min(map(len, tokens)) >= 22


@pytest.mark.parametrize(
    ("method", "what", "headers"),
    [
        ("GET", "", {"Host": "evil.example"}),
        ("GET", "", {"Host": "evil.example:80"}),
        ("POST", "verdict", {"Host": "evil.example"}),
        ("POST", "verdict", {"Origin": "http://evil.example"}),
        ("POST", "verdict", {"Origin": "null"}),
        ("POST", "verdict", {"Origin": None}),
        ("POST", "verdict", {"Origin": "http://127.0.0.1:1"}),
        ("POST", "end", {"Origin": "http://evil.example"}),
    ],
)
def test_strangers_are_refused(served, review, method, what, headers):
    """A name that was made to mean this machine, and a page from elsewhere, get nothing, even with the token."""
    assert ask(served, method, what, GOOD, **headers)[0] == 403
    assert verdicts_in(review.folder) == []
    assert ask(served, "GET")[0] == 200, "and it goes on"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x" * 5000, {}, 413),
        (b"{}", {"Content_Length": "99999999999999"}, 413),
        (b"{}", {"Content_Length": "-1"}, 413),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"\xff", {}, 400),
        (GOOD, {"Content_Type": "text/plain"}, 400),
        ({**GOOD, "pair": 3}, {}, 400),
        ({**GOOD, "pair": -1}, {}, 400),
        ({**GOOD, "pair": "0"}, {}, 400),
        ({**GOOD, "good": "yes"}, {}, 400),
        ({**GOOD, "kinds": ["<script>"]}, {}, 400),
        ({**GOOD, "kinds": [1]}, {}, 400),
        ({**GOOD, "kinds": "thin"}, {}, 400),
    ],
)
def test_what_is_no_verdict_is_refused(served, review, body, headers, status):
    """Too long, no JSON, no such pair or kind: nothing is written."""
    assert ask(served, "POST", "verdict", body, **headers)[0] == status
    assert verdicts_in(review.folder) == []


def test_methods(served):
    """Nothing but GET and POST is understood."""
    assert ask(served, "PUT", "verdict")[0] == 501
    assert ask(served, "OPTIONS", "verdict")[0] == 501


# --- the file ----------------------------------------------------------------------------------------------------


def test_verdicts_on_other_pairs_stay(review):
    """Another draw adds to the file; a pair whose words have changed since is to be judged anew."""
    other = Review("my-kun", [{**PAIRS[0], "id": "b:0"}, {**PAIRS[1], "output": "另答"}], review.folder)
    with open_store(review, "me") as store:
        store.say(0, True)
        store.say(1, False, ["off_topic"])
    with open_store(other, "me") as store:
        assert store.said() == []
        store.say(0, False)
        store.say(1, True)
    found = {v.id: (v.good, v.output) for v in verdicts_in(review.folder)}
    assert found == {"a:0": (True, "答"), "b:0": (False, "答"), "a:1": (True, "另答")}


def test_one_writer(review):
    """Two reviews under one name would overwrite each other: the second is told so; another name is free."""
    with open_store(review, "me"):
        with (
            pytest.raises(RunError, match="another kun-build review writes the verdicts of `me`") as refused,
            open_store(review, "me"),
        ):
            pass
        assert "--reviewer" in refused.value.hint
        with open_store(review, "wang") as store:
            store.say(0, True)


def test_a_damaged_file_is_named(review):
    """What is no verdict is named with its line, before anything is judged or overwritten."""
    review.folder.mkdir()
    (review.folder / "me.jsonl").write_text('{"id": "a:0", "good": true}\nnonsense\n')
    with pytest.raises(RunError, match=r"me\.jsonl:2 is not a verdict"), open_store(review, "me"):
        pass
    assert (review.folder / "me.jsonl").read_text().endswith("nonsense\n")


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path / "run", {"wudao": 20})


@contextmanager
def start(*args):
    """`kun-build review`, ended whatever the test finds."""
    command = [sys.executable, "-c", "from kun_builder.cli.main import main; main()", "review", *map(str, args)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def address(process):
    return re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", process.stderr.readline())[0]


class At:
    def __init__(self, url):
        self.url = url


def test_the_command_serves_until_it_is_ended(run):
    """The address is on stderr; after the end, what the verdicts say is on stdout, and no door is left open."""
    with start(run, "--sample", 6, "--reviewer", "wang") as process:
        served = At(address(process))
        door = run / "verdicts/open.html"
        assert served.url in door.read_text()
        assert door.stat().st_mode & 0o077 == 0
        for number in range(6):
            assert ask(served, "POST", "verdict", {"pair": number, "good": True})[0] == 204
        assert ask(served, "POST", "end")[0] == 204
        out, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    assert "3 kept rows read, 3 good" in out
    assert sorted(path.name for path in (run / "verdicts").iterdir()) == [".wang.lock", "wang.jsonl"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(run, number):
    """Ctrl-C is a way to end: no traceback, exit status 0, verdicts kept and told."""
    with start(run, "--json") as process:
        served = At(address(process))
        ask(served, "POST", "verdict", {"pair": 0, "good": False, "kinds": ["thin", "off_topic"]})
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0
    assert json.loads(out)["read"] == 1
    assert "Traceback" not in err


def test_wrong_uses_are_named(run, tmp_path):
    """A port that is taken, a name that is a path, two ways at once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with start(run, "--port", taken.getsockname()[1]) as process:
            assert "cannot be used for the review" in process.communicate(timeout=100)[1]
            assert process.returncode == 1
    (tmp_path / "v.jsonl").write_text('{"good": true}\n')
    for args in (["--reviewer", "../x"], ["--file", tmp_path / "p.html", "--take", tmp_path / "v.jsonl"]):
        with start(run, *args) as process:
            assert "Error" in process.communicate(timeout=100)[1]
            assert process.returncode == 2


def test_the_file_is_private(run, tmp_path):
    """`--file` writes the page with its raw texts for the user alone, and says where."""
    page = tmp_path / "pairs.html"
    with start(run, "--file", page) as process:
        assert process.communicate(timeout=100)[0] == f"{page}\n"
    assert page.stat().st_mode & 0o077 == 0
