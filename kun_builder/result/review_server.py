"""A review in the browser: a server on 127.0.0.1 that shows the page to whoever has its address, and nobody else.

The address holds a random token. A request must have come for our own address (`Host`: a foreign name that was made to
mean 127.0.0.1 is none) and, if it says something, from our own page (`Origin`). Three things can be asked:

    GET  /TOKEN/          the page
    POST /TOKEN/verdict   {"pair": 17, "good": false, "kinds": ["thin"]}; `good: null` takes the verdict back
    POST /TOKEN/end       nobody judges any more
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from kun_builder.errors import RunError
from kun_builder.result.review import Review, review_page
from kun_builder.result.review_store import Store

_LONGEST = 4096
"""Bytes of a verdict, at most."""
_FORGOTTEN = 8 * 3600.0
"""Seconds without a request after which nobody is taken to be there any more."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the page itself says the rest
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, review: Review, store: Store, port: int) -> None:
        self.review, self.store = review, store
        self.token = secrets.token_urlsafe(24)
        self.writing = threading.Lock()
        self.ended = threading.Event()
        self.asked = time.monotonic()
        super().__init__(("127.0.0.1", port), _Handler)
        names = ("127.0.0.1", "localhost")
        self.hosts = frozenset(f"{name}:{self.server_address[1]}" for name in names)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up in the middle is nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "kun-build", ""
    timeout = 30.0

    def do_GET(self) -> None:
        if self._asks("", said=False):
            with self.server.writing:
                page = review_page(self.server.review, said=self.server.store.said())
            self._answer(200, page.encode(), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        if self.path.endswith("/end"):
            if self._asks("end", said=True):
                self._answer(204)
                self.server.ended.set()
        elif self._asks("verdict", said=True) and (body := self._body()) is not None:
            self._answer(self._verdict(body))

    def _asks(self, what: str, *, said: bool) -> bool:
        """Whether this is a request for `what` that may be answered; if not, it has been refused."""
        origin = self.headers.get("Origin", "").removeprefix("http://")
        if self.headers.get("Host") not in self.server.hosts or (said and origin not in self.server.hosts):
            self._answer(403)
        elif not hmac.compare_digest(self.path.encode(), f"/{self.server.token}/{what}".encode()):
            self._answer(404)
        else:
            self.server.asked = time.monotonic()
            return True
        return False

    def _body(self) -> Mapping[str, Any] | None:
        """The verdict that was sent; None if it was none, which has been answered."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > _LONGEST:
            self._answer(413 if length else 411)
            return None
        try:
            found = orjson.loads(self.rfile.read(int(length)))
        except orjson.JSONDecodeError:
            found = None
        if isinstance(found, dict) and self.headers.get_content_type() == "application/json":
            return found
        self._answer(400)
        return None

    def _verdict(self, body: Mapping[str, Any]) -> int:
        """Write it; returns the status of the answer."""
        number, good, kinds = body.get("pair"), body.get("good"), body.get("kinds") or []
        if not isinstance(number, int) or not isinstance(good, bool | None) or not _words(kinds):
            return 400
        try:
            with self.server.writing:
                self.server.store.say(number, good, kinds)
        except ValueError:
            return 400
        except OSError:  # no space left, for example: the page says that it was not saved
            return 500
        return 204

    def _answer(self, status: int, body: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The address is a secret, and every request holds it."""


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


class Served:
    """A review that is being served at `url`."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.url = f"http://127.0.0.1:{server.server_address[1]}/{server.token}/"

    def wait(self) -> bool:
        """Wait until the reviewer ends the review. False if nobody asked for anything for eight hours instead."""
        while not self._server.ended.wait(timeout=60):
            if time.monotonic() - self._server.asked > _FORGOTTEN:
                return False
        return True


@contextmanager
def serve_review(review: Review, store: Store, port: int = 0) -> Iterator[Served]:
    """Serve `review` while the block runs; port 0 takes a free one. Raises RunError if the port is taken."""
    try:
        server = _Server(review, store, port)
    except OSError as error:
        raise RunError(f"port {port} cannot be used for the review: {error.strerror}", hint="choose another") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="review", daemon=True)
    thread.start()
    try:
        yield Served(server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
