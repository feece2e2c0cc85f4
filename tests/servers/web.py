"""A web server with files, as bad as a test needs it: without ranges, breaking off, refusing, changing what it has."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """files: what it serves, by path. ranged: whether it serves parts. cuts: each number breaks one answer off after so
    many bytes. status: with which to refuse everything. asked: method, path and first byte of each request. sent: bytes
    of files."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    ranged: bool = True
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    sent: int = 0
    url: str = ""


@contextmanager
def web_server() -> Iterator[Web]:
    """Run the server; what it does may be changed while it runs."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def _answer(self) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            web.asked.append((self.command, self.path, int(asked[1]) if asked else 0))
            content = web.files.get(self.path.partition("?")[0])
            if content is None or web.status != 200:
                self.send_error(404 if web.status == 200 else web.status)
                return
            tag, part = f'"{hash(content)}"', content
            if asked and web.ranged:
                part = content[int(asked[1]) : int(asked[2]) + 1]
            self.send_response(206 if part is not content else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", tag)
            if part is not content:
                self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{len(content)}")
            self.end_headers()
            if self.command == "GET":
                tried = asked and asked[1] == asked[2]  # only to see whether parts are served
                cut = web.cuts.pop(0) if web.cuts and web.cuts[0] < len(part) and not tried else len(part)
                self.close_connection = cut < len(part)
                web.sent += cut
                with suppress(OSError):  # the client has heard enough
                    self.wfile.write(part[:cut])

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
