"""The live figures of a run for Prometheus: `http://127.0.0.1:PORT/metrics` in its text format, version 0.0.4."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kun_builder.errors import RunError
from kun_builder.status import Status

_GAUGES = {"rows_done": "done", "requests_in_flight": "in_flight"}
_COUNTERS = {
    "requests": "requests",
    "answers_reused": "reused",
    "retries": "retries",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
}


@contextmanager
def serve_metrics(status: Status, port: int) -> Iterator[int]:
    """Serve the figures of `status` on 127.0.0.1 while the block runs; port 0 takes a free one. Yields the port.

    Raises RunError if the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exposition(status).encode() if self.path == "/metrics" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: Prometheus asks every few seconds."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise RunError(f"port {port} cannot be used for metrics: {error.strerror}", hint="choose another") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def exposition(status: Status) -> str:
    """The figures in Prometheus' text format."""
    lines = []
    for name, attribute in _GAUGES.items():
        lines += [f"# TYPE kun_{name} gauge", f"kun_{name}{_phase(status, name)} {getattr(status, attribute)}"]
    for name, attribute in _COUNTERS.items():
        lines += [f"# TYPE kun_{name}_total counter", f"kun_{name}_total {getattr(status, attribute)}"]
    lines.append("# TYPE kun_rows_rejected_total counter")
    for what, rows in sorted(status.drops.copy().items()):
        stage, _, reason = what.partition(": ")
        lines.append(f'kun_rows_rejected_total{{stage="{_escape(stage)}",reason="{_escape(reason)}"}} {rows}')
    return "\n".join(lines) + "\n"


def _phase(status: Status, name: str) -> str:
    return f'{{phase="{_escape(status.phase)}"}}' if name == "rows_done" else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
