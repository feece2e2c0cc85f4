"""An OpenAI-style server whose pretended model says what the method wants to hear: every row comes through."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send({"data": [{"id": "agreeable", "max_model_len": 8192}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = answer(body["messages"])
        token = {"token": text, "logprob": -0.01, "bytes": None}
        logprobs = {"content": [{**token, "top_logprobs": [token]}]} if body.get("logprobs") else None
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
        usage = {"prompt_tokens": 10, "completion_tokens": len(text), "total_tokens": 10 + len(text)}
        self._send({"id": "1", "object": "chat.completion", "model": "agreeable", "choices": [choice], "usage": usage})

    def _send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


def answer(messages: list[dict[str, str]]) -> str:
    """A question for what asks for one, the good word for a judgement, the text itself to be polished."""
    system, text = messages[0]["content"], messages[-1]["content"]
    if "评价" in system or "请评价" in text:
        return "好"
    if "编辑" in system:
        return text.partition("资料：")[2].rpartition("问题：")[0].strip()
    return f"请介绍第{zlib.crc32(text.encode()) % 1000}号话题的主要内容是什么？"


@contextmanager
def agreeable() -> Iterator[str]:
    """Serve on 127.0.0.1; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
