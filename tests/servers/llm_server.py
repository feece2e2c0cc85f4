"""A server with a pretended model: loopback HTTP with the timing and the faults of a real one.

This is the program that serves; `servers.llm_simulator` starts it, asks it what it has seen, and ends it.

It speaks the OpenAI protocol as vLLM does: `/v1/chat/completions`, `/v1/completions`, `/v1/models`, `/health`,
`/metrics`. Requests are served in the order in which they come by a fixed number of slots (continuous batching): a
request takes a slot as soon as one is free, for the time of its prefill and of its tokens. That schedule is reckoned
when the request comes, on a clock that the server's own load does not touch; only the answer waits for the real clock.

An answer is a function of the request alone. Faults fall by digest of the request and number of the attempt, so that
the same run has the same faults. What is answered is counted by digest: `/stats` tells repeats and saturation.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import heapq
import itertools
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

_TEXT = "".join(chr(0x4E00 + (i * 7919) % 6000) for i in range(8192))
_STATUS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Faults:
    """Share of requests that end otherwise: refused, cut off, ten times slower, or answered with something else.

    `truncated` answers stop at the token limit, `empty` ones say nothing.
    """

    http_429: float = 0.0
    http_503: float = 0.0
    disconnect: float = 0.0
    slow: float = 0.0
    garbage: float = 0.0
    rejected: float = 0.0
    truncated: float = 0.0
    empty: float = 0.0
    retry_after: float = 0.1

    def draw(self, digest: bytes, attempt: int) -> str:
        """What becomes of this attempt."""
        luck = int.from_bytes(hashlib.blake2b(digest + attempt.to_bytes(4, "big"), digest_size=6).digest(), "big")
        left = luck / 2**48
        for name in ("http_429", "http_503", "disconnect", "slow", "garbage", "rejected", "truncated", "empty"):
            left -= getattr(self, name)
            if left < 0:
                return name
        return ""


@dataclass(frozen=True)
class Settings:
    """slots: requests served at once. step, prefill: seconds per token out and in. speed: how much faster all is.
    queue: whether `/metrics` tells the waiting requests. limit: requests at once beyond which 429 is answered.
    asking: a part of those system prompts that are answered with a question."""

    model: str = "simulated/model"
    slots: int = 128
    step: float = 0.0103
    prefill: float = 0.0001
    speed: float = 1.0
    queue: bool = True
    limit: int = 0
    asking: str = ""
    faults: Faults = field(default_factory=Faults)


class Model:
    """The schedule of the slots, the answers and the counts."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.faults = settings, settings.faults
        self.free = [0.0] * settings.slots
        self.starts: deque[float] = deque()
        self.times = array("d")
        self.attempts: Counter[bytes] = Counter()
        self.answered: dict[bytes, tuple[float, int]] = {}
        """When each request was last answered, and as which of all answers."""
        self.repeated: list[tuple[float, int, str]] = []
        """See `Repeat` of `servers.llm_simulator`."""
        self.heads: set[str] = set()
        self.faulty: Counter[str] = Counter()
        self.first = self.last = 0.0
        self.in_flight = self.most = 0

    def waiting(self) -> int:
        """Requests that no slot has taken yet."""
        now = time.monotonic()
        while self.starts and self.starts[0] <= now:
            self.starts.popleft()
        return len(self.starts)

    def schedule(self, seconds: float) -> float:
        """The time at which a request that comes now is finished."""
        now = time.monotonic()
        start = max(now, heapq.heappop(self.free))
        heapq.heappush(self.free, start + seconds)
        if start > now:
            self.starts.append(start)
        return start + seconds

    def answer(self, body: dict[str, Any], digest: bytes, fault: str) -> tuple[bytes, float]:
        """The answer's JSON and the seconds that it takes a slot."""
        chat = "messages" in body
        most = body.get("max_tokens") or 16
        count = max(1, most * (5 + digest[0] % 11) // 16)  # between a third of the limit and all but a bit of it
        prompt = "".join(m["content"] for m in body["messages"]) if chat else body["prompt"]
        cached = self._cached(body["messages"][0]["content"]) if chat and len(body["messages"]) > 1 else 0
        choices = (body.get("structured_outputs") or {}).get("choice")
        count = most if fault == "truncated" else 1 if choices or fault == "empty" else count
        at = int.from_bytes(digest[1:3], "big") % 4096
        text = choices[digest[3] % len(choices)] if choices else digest[:4].hex() + _TEXT[at : at + count]
        if self.settings.asking and chat and self.settings.asking in body["messages"][0]["content"]:
            text = f"请介绍第{digest[:4].hex()}号话题的主要内容是什么？"
        text = "" if fault == "empty" else text
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if fault == "truncated" else "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        if body.get("logprobs"):
            choice["logprobs"] = _logprobs(text, digest, chat)
        usage = {"prompt_tokens": len(prompt), "completion_tokens": count, "total_tokens": len(prompt) + count}
        answer = {
            "id": digest.hex(),
            "object": "chat.completion" if chat else "text_completion",
            "model": self.settings.model,
            "choices": [choice],
            "usage": {**usage, "prompt_tokens_details": {"cached_tokens": cached}},
        }
        seconds = (len(prompt) - cached) * self.settings.prefill + count * self.settings.step
        return orjson.dumps(answer), seconds / self.settings.speed * (10 if fault == "slow" else 1)

    def _cached(self, head: str) -> int:
        if head in self.heads:
            return len(head)
        self.heads.add(head)
        return 0

    def counts(self) -> dict[str, Any]:
        """What came and what was answered."""
        return {
            "answered": len(self.answered) + len(self.repeated),
            "different": len(self.answered),
            "repeated": len(self.repeated),
            "attempts": self.attempts.total(),
            "faults": dict(self.faulty),
            "in_flight": self.in_flight,
            "most_in_flight": self.most,
        }

    def stats(self) -> dict[str, Any]:
        """Counts and saturation: the time in which the same slots serve the same requests in the order in which they
        came, none of them ever late, against the time that it took."""
        slots = [0.0] * self.settings.slots
        for seconds in self.times:
            heapq.heappush(slots, heapq.heappop(slots) + seconds)
        taken, ideal = self.last - self.first, max(slots)
        times = {"first": self.first, "last": self.last, "ideal": ideal, "taken": taken}
        return self.counts() | times | {"saturation": ideal / taken if taken else 0.0}


def _logprobs(text: str, digest: bytes, chat: bool) -> dict[str, Any]:
    first, likely = text[:1], -(digest[4] + 1) / 256
    if not chat:
        return {"tokens": [first], "token_logprobs": [likely], "top_logprobs": [{first: likely, "差": -2.0}]}
    top = [{"token": first, "logprob": likely}, {"token": "差", "logprob": -2.0}]
    return {"content": [{"token": first, "logprob": likely, "top_logprobs": top}]}


class Clock:
    """Calls back at given times with a single timer, since there are thousands."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at `when`."""
        heapq.heappush(self._due, (when, next(self._numbers), call))
        if self._timer is None or when < self._timer.when():
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(self._due[0][0], self._run) if self._due else None

    def _run(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()
        self._arm()


class Connection(asyncio.Protocol):
    """As much of HTTP/1.1 as clients with keep-alive and bodies of known length need."""

    def __init__(self, model: Model, clock: Clock) -> None:
        self._model, self._clock = model, clock
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone; what it waited for is answered to nobody."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take requests out of the stream."""
        self._data = self._data + data if self._data else data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            body = self._data[end + 4 : end + 4 + length]
            self._data = self._data[end + 4 + length :]
            method, path, _ = head.split(b" ", 2)
            self._handle(method, path, body)

    def _handle(self, method: bytes, path: bytes, body: bytes) -> None:
        model = self._model
        if path == b"/stats":
            self._send(200, orjson.dumps(model.stats()))
        elif path == b"/counts":
            self._send(200, orjson.dumps(model.counts()))
        elif path == b"/repeated":
            self._send(200, orjson.dumps(model.repeated))
        elif method == b"POST" and path in (b"/v1/chat/completions", b"/v1/completions"):
            self._complete(body)
        elif path == b"/health":
            self._send(200, b"")
        elif path == b"/v1/models":
            entry = {"id": model.settings.model, "object": "model", "owned_by": "vllm", "max_model_len": 32768}
            self._send(200, orjson.dumps({"object": "list", "data": [entry]}))
        elif path == b"/metrics" and model.settings.queue:
            waiting = model.waiting()
            text = f"vllm:num_requests_waiting {waiting}.0\nvllm:num_requests_running {model.in_flight - waiting}.0\n"
            self._send(200, text.encode())
        else:
            self._send(404, b'{"error": {"message": "no such route"}}')

    def _complete(self, raw: bytes) -> None:
        model = self._model
        digest = hashlib.blake2b(raw, digest_size=12).digest()
        body = orjson.loads(raw)
        probe = b"Say yes." in raw  # a question of the start: no part of the work
        fault = "" if probe else model.faults.draw(digest, model.attempts[digest])
        if not probe:
            model.attempts[digest] += 1
            model.first = model.first or time.monotonic()
        if model.settings.limit and model.in_flight >= model.settings.limit:
            fault = "http_429"
        if fault:
            model.faulty[fault] += 1
        if fault in ("http_429", "http_503", "rejected"):
            status = 400 if fault == "rejected" else int(fault[-3:])
            self._send(status, b'{"error": {"message": "as told"}}', retry_after=model.faults.retry_after)
            return
        payload, seconds = model.answer(body, digest, fault)
        if not probe:
            model.times.append(seconds)
        model.in_flight += 1
        model.most = max(model.most, model.in_flight)
        self._clock.at(model.schedule(seconds), lambda: self._finish(payload, digest, fault, probe))

    def _finish(self, payload: bytes, digest: bytes, fault: str, probe: bool) -> None:
        model = self._model
        model.in_flight -= 1
        if self._transport is None or self._transport.is_closing():
            return
        if fault == "disconnect":
            self._transport.abort()
            return
        if not probe:
            model.last = time.monotonic()
        if not probe and fault != "garbage":
            if digest in model.answered:
                model.repeated.append((*model.answered[digest], digest[:4].hex()))
            model.answered[digest] = model.last, len(model.answered) + len(model.repeated)
        self._send(200, b"<html>no model here</html>" if fault == "garbage" else payload)

    def _send(self, status: int, payload: bytes, retry_after: float = 0.0) -> None:
        if self._transport is None:
            return
        head = (
            f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}"
        )
        if status in (429, 503) and retry_after:
            head += f"\r\nRetry-After: {retry_after:g}"
        self._transport.write(head.encode() + b"\r\n\r\n" + payload)


async def _serve(settings: Settings, port: int) -> None:
    loop = asyncio.get_running_loop()
    model, clock = Model(settings), Clock()
    server = await loop.create_server(lambda: Connection(model, clock), "127.0.0.1", port, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), closed.set)  # nothing is ever written there: it can only be its end
    await closed.wait()
    server.close()


def main() -> None:
    """`llm_server.py PORT [SETTINGS]`: port 0 takes a free one, which is printed; ends with its standard input."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("settings", nargs="?", default="{}")
    arguments = parser.parse_args()
    values = orjson.loads(arguments.settings)
    values["faults"] = Faults(**values.get("faults", {}))
    asyncio.run(_serve(Settings(**values), arguments.port))


if __name__ == "__main__":
    main()
