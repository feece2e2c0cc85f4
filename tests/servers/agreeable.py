"""A server whose pretended model says what the method wants to hear: every row comes through. It speaks the protocols
of OpenAI and, as far as a run needs it, of Text Generation Inference."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from servers.replies import JsonHandler


class _Handler(JsonHandler):
    def do_GET(self) -> None:
        about = {"/v1/models": {"data": [{"id": "agreeable", "max_model_len": 8192}]}}
        tgi = {"/info": {"model_id": "agreeable", "max_total_tokens": 8192}}
        self.send((about | tgi).get(self.path, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self.send([{"id": 0, "text": c, "start": n, "stop": n + 1} for n, c in enumerate(body["inputs"])])
            return
        if self.path == "/generate":
            self.send(_generated(answer([{"content": body["inputs"]}])))
            return
        self.send(chat(body))


def chat(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to the body of a request to `/v1/chat/completions`, as OpenAI's servers give it."""
    text = answer(body["messages"])
    token = {"token": text, "logprob": -0.01, "bytes": None}
    logprobs = {"content": [{**token, "top_logprobs": [token]}]} if body.get("logprobs") else None
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
    usage = {"prompt_tokens": 10, "completion_tokens": len(text), "total_tokens": 10 + len(text)}
    return {"id": "1", "object": "chat.completion", "model": "agreeable", "choices": [choice], "usage": usage}


def _generated(text: str) -> dict[str, Any]:
    token = {"id": 0, "text": text, "logprob": -0.01, "special": False}
    details = {"finish_reason": "eos_token", "generated_tokens": len(text), "seed": None, "prefill": []}
    return {"generated_text": text, "details": {**details, "tokens": [token], "top_tokens": [[token]]}}


def answer(messages: list[dict[str, str]]) -> str:
    """A question for what asks for one, the good word for a judgement, the text itself to be polished; in the language
    of what it is told to do."""
    system, text = messages[0]["content"], messages[-1]["content"]
    if "评价" in system or "请评价" in text:
        return "好"
    if "You judge" in system or "Judge this pair" in text:
        return "good"
    if "编辑" in system:
        return text.partition("资料：")[2].rpartition("问题：")[0].strip()
    if "You edit" in system:
        return text.partition("Material:")[2].rpartition("Question:")[0].strip()
    topic = zlib.crc32(text.encode()) % 1000
    if "You write questions" in system:
        return f"What are the main points of topic {topic}, and how do they hang together?"
    return f"请介绍第{topic}号话题的主要内容是什么？"


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
