"""An OpenAI-style server whose pretended model judges: a function says which letter it gives, how surely."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def judging(say: Callable[[str], Mapping[str, float] | str]) -> Iterator[tuple[str, list[str]]]:
    """Serve on 127.0.0.1; yields the address and the prompts that were asked, in the order of asking.

    `say` gets a prompt and returns the probabilities of first tokens, or a text, which is then all there is.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send({"data": [{"id": "org/judge", "max_model_len": 8192}]} if self.path == "/v1/models" else {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][-1]["content"]
            if "\n" in prompt:  # else the engine asks whether anybody is there
                asked.append(prompt)
            said = say(prompt)
            logprobs = None
            if not isinstance(said, str):
                top = [
                    {"token": text, "logprob": math.log(p), "bytes": None}
                    for text, p in sorted(said.items(), key=lambda pair: -pair[1])
                ]
                said = top[0]["token"]
                logprobs = {"content": [{**top[0], "top_logprobs": top}]} if body.get("logprobs") else None
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
            usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
            self._send({"id": "1", "object": "chat.completion", "model": "judge", "choices": [choice], "usage": usage})

        def _send(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
