"""A package index on 127.0.0.1 that pip can download from: data wheels, made on the fly."""

from __future__ import annotations

import io
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TRAP = "raise SystemExit('code of a data wheel was run')\n"


def data_wheel(name: str, version: str, data: bytes) -> bytes:
    """A wheel with one data file, and with code that must never run."""
    package, buffer = name.replace("-", "_"), io.BytesIO()
    info = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{package}/__init__.py", TRAP)
        wheel.writestr(f"{package}/data/part.bin", data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


class Index:
    """Wheels by package name; `downloads` counts them; `gate` is called before each and may raise or wait."""

    def __init__(self, version: str, parts: dict[str, bytes]) -> None:
        self.version = version
        self.wheels = {name: data_wheel(name, version, data) for name, data in parts.items()}
        self.downloads: Counter[str] = Counter()
        self.gate: Callable[[str], None] = lambda name: None
        self.url = ""

    def answer(self, path: str) -> bytes | None:
        """The body for a path: a project page or a wheel; None if there is none."""
        name = path.strip("/").split("/")[1]
        if name not in self.wheels:
            return None
        if not path.endswith(".whl"):
            file = f"{name.replace('-', '_')}-{self.version}-py3-none-any.whl"
            return f'<!DOCTYPE html><html><body><a href="{file}">{file}</a></body></html>'.encode()
        self.gate(name)
        self.downloads[name] += 1
        return self.wheels[name]


@contextmanager
def serve_index(index: Index) -> Iterator[Index]:
    """Serve an index from a thread; its address for pip is `index.url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                body = index.answer(self.path)
            except OSError:
                body = None
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *arguments: object) -> None:
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            index.url = f"http://127.0.0.1:{server.server_port}/simple/"
            yield index
        finally:
            server.shutdown()
            thread.join()
