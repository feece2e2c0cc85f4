"""A server that speaks the protocol with a pretended model: `python tests/server.py`, then `kun-build recipe.yaml`."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "请问这段文字主要讲了什么内容？"


def reply(path: str, body: Any) -> Any:
    """What the server answers to a path and the JSON that came with it."""
    if path == "/info":
        return {"model": "pretended", "context": 4096}
    return {"text": ANSWER, "stopped": True, "tokens_in": len(body["prompt"]), "tokens_out": len(ANSWER)}


class Handler(BaseHTTPRequestHandler):
    """JSON in, JSON out."""

    def do_GET(self) -> None:
        """Answer a GET."""
        self._send(reply(self.path, None))

    def do_POST(self) -> None:
        """Answer a POST."""
        self._send(reply(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    def _send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8317), Handler).serve_forever()
