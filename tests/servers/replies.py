"""A chat server in a thread that is one function, for whole builds: `with replies(function) as server`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

Reply: TypeAlias = "tuple[int, Any]"
"""A status and a body: bytes as they are, anything else as JSON."""


class JsonHandler(BaseHTTPRequestHandler):
    """A handler that answers with JSON, and says nothing on the terminal."""

    protocol_version = "HTTP/1.1"

    def send(self, value: Any, status: int = 200) -> None:
        """Answer with `value`: bytes as they are, anything else as JSON."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Silence."""


class Replies:
    """A running server. `asked` are the bodies of all POST requests, the questions of the start included."""

    def __init__(self, reply: Callable[[dict[str, Any]], Reply], model: str) -> None:
        self.asked: list[dict[str, Any]] = []
        replies = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                known = self.path == "/v1/models"
                self.send({"data": [{"id": model, "max_model_len": 8192}]} if known else {}, 200 if known else 404)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v1/chat/completions":
                    self.send({}, 404)
                    return
                replies.asked.append(body)
                status, value = reply(body)
                self.send(value, status)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def replies(reply: Callable[[dict[str, Any]], Reply], model: str = "m") -> Iterator[Replies]:
    """Answer each request to the chat route by `reply(body)`, as `model`, on a free port of 127.0.0.1."""
    running = Replies(reply, model)
    thread = threading.Thread(target=running.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.server.shutdown()
        thread.join()
        running.server.server_close()


def said(text: str | None, finish: str = "stop", *, logprobs: Any = None, **message: Any) -> Reply:
    """An answer that is in order; `logprobs` are those of its tokens."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    choice |= {"logprobs": {"content": logprobs}} if logprobs else {}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 30, "completion_tokens": 20}}
