"""`kun-build plugins search` against an index on 127.0.0.1."""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from places import KUN_BUILD

TOLD = "Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nSummary: {summary}\nKeywords: {keywords}\n\nLong\n"
PACKAGES = {
    "kun-poems": ("0.2.0", "Tang poems", "poetry,kun-builder"),
    "Kun_Recipes": ("1.0.0", "Cooking \x1b[31mred", "kun-builder cooking"),
    "kun-tea": ("3.1", "A shop", "tea"),
    "numpy": ("2.0", "Arrays", "kun-builder"),
    "kun-builder": ("0.1.0", "This", "kun-builder"),
}


class Handler(BaseHTTPRequestHandler):
    """PEP 691 and PEP 658, as far as they are needed; what was asked is in `server.asked`."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        parts = self.path.strip("/").split("/")
        names = {name.replace("_", "-").lower(): name for name in PACKAGES}
        if parts == ["simple"]:
            names["kun-gone"] = "kun-gone"
            self.answer({"meta": {"api-version": "1.1"}, "projects": [{"name": name} for name in names.values()]})
        elif parts[0] == "simple" and parts[1] in names:
            name = parts[1].replace("-", "_")
            version = PACKAGES[names[parts[1]]][0]
            newest = {"core-metadata": {"sha256": "0"}, "upload-time": "2026-02-01T00:00:00Z"}
            files = [
                {"url": f"../../files/{name}-{version}-py3-none-any.whl#sha256=0", **newest, "yanked": False},
                {"url": f"../../files/{name}-0.0.1-py3-none-any.whl", **newest, "upload-time": "2025"},
                {"url": f"../../files/{name}-9.9.9-py3-none-any.whl", **newest, "upload-time": "2027", "yanked": "no"},
                {"url": f"../../files/{name}-10.tar.gz", "upload-time": "2027"},
            ]
            self.answer({"name": parts[1], "files": files})
        elif parts[0] == "files":
            name, version = parts[1].split("-")[:2]
            known, summary, keywords = PACKAGES[names[name.replace("_", "-")]]
            said = TOLD.format(name=name, version=version, summary=summary, keywords=keywords)
            self.answer(said if version == known and parts[1].endswith(".whl.metadata") else None)
        else:
            self.answer(None)

    def answer(self, value):
        body = b"" if value is None else (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(404 if value is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Silence."""


@contextmanager
def index():
    """An index; (its address with a password, what it was asked)."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://me:secret@127.0.0.1:{server.server_port}/simple", server.asked
        finally:
            server.shutdown()
            thread.join()


def search(url, *args, **variables):
    """Run it with pip's setting in the environment."""
    variables = {"PATH": "/usr/bin:/bin", "PIP_INDEX_URL": url, "COLUMNS": "150", **variables}
    command = [KUN_BUILD, "plugins", "search", *args]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=100)


@pytest.mark.parametrize("place", [":env:", "global"])
def test_plugins_are_found_by_keyword_on_the_index_of_pip(tmp_path, place):
    """Of the packages called `kun-...`, those with the keyword are shown, by the newest file that is not yanked; no
    other package is asked about, and the password goes to the index and nowhere else. Pip's settings say which it is,
    the environment before its file."""
    with index() as (url, asked):
        settings = tmp_path / "pip.conf"
        settings.write_text(f"[global]\nindex-url = {url if place == 'global' else 'http://127.0.0.1:9/simple'}\n")
        done = search(url if place == ":env:" else "", "--json", PIP_CONFIG_FILE=str(settings))
    assert done.returncode == 0, done.stderr
    found = {one["name"]: (one["version"], one["summary"]) for one in json.loads(done.stdout)}
    assert found == {"kun-poems": ("0.2.0", "Tang poems"), "kun-recipes": ("1.0.0", "Cooking \x1b[31mred")}
    pages = {path for path, _ in asked if path.startswith("/simple/")}
    assert pages == {"/simple/", *(f"/simple/kun-{name}/" for name in ("gone", "poems", "recipes", "tea"))}
    assert {key for _, key in asked} == {"Basic bWU6c2VjcmV0"}
    assert "secret" not in done.stderr + done.stdout


def test_a_word_narrows_it_down_and_nothing_steers_the_terminal():
    """The word is looked for in name, summary and keywords, whatever its case."""
    with index() as (url, _):
        done = search(url, "COOK")
        nothing = search(url, "sport")
    assert "kun-recipes" in done.stdout
    assert "kun-poems" not in done.stdout
    assert "\x1b" not in done.stdout
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "no plugin is there of 4 packages called kun-..." in nothing.stderr


@pytest.mark.parametrize("variables", [{"KUN_OFFLINE": "1"}, {"PIP_INDEX_URL": "http://me:secret@127.0.0.1:9/simple"}])
def test_without_an_index_it_says_so(variables):
    """Offline nothing is asked; an index that does not answer is named without its password."""
    with index() as (url, asked):
        done = search(url, **variables)
    assert (done.returncode, asked) == (1, [])
    assert "downloads are switched off" in done.stderr or "127.0.0.1:9/simple/ could not be searched" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
