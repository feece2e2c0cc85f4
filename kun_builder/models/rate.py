"""Requests and tokens per minute at one endpoint, for APIs that bill or block by them (`limits` of a model).

There is a token bucket for each limit. It is refilled all the time, so that no minute has more than the limit, and what
is sent is spread over the minute. How many tokens a request takes is known only when it is answered. Until then it is
counted with the mean of its stage's requests; with the answer, the bucket is corrected by the difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from kun_builder.types import Request

TOKENS = "tokens_per_minute"
_BURST = 2.0  # seconds' worth that may go out at once after a pause
_SMOOTH = 0.05


class Bucket:
    """A token bucket: in any minute, at most `per_minute` requests or tokens are taken from it.

    Its level may fall below zero, where a request took more than was guessed; the next one then waits for longer.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self._most = max(1.0, per_minute * _BURST / 60)
        self._pace = (per_minute - self._most + 1) / 60  # with what goes at once, no minute has more than `per_minute`
        self._level, self._seen = self._most, now

    def pause(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken. What is more than the bucket can hold may be taken when it is full."""
        self._level = min(self._most, self._level + (now - self._seen) * self._pace)
        self._seen = now
        return max(0.0, (min(amount, self._most) - self._level) / self._pace)

    def take(self, amount: float) -> None:
        """Take `amount` from the bucket, or put it back where it is negative."""
        self._level -= amount


class Rate:
    """The limits of one endpoint. Without any, every request may be sent at once."""

    def __init__(
        self, limits: Mapping[str, float], sharers: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """limits: `requests_per_minute` and `tokens_per_minute`, as far as they are set. They hold for all `sharers`
        processes of the run together: this one keeps to its share.
        """
        self._clock = clock
        self._buckets = {name: Bucket(limit / sharers, clock()) for name, limit in limits.items()}

    def pause(self, tokens: float) -> float:
        """Seconds until a request of about so many tokens may be sent; 0 if it may be sent now."""
        now = self._clock()
        pauses = (bucket.pause(tokens if name == TOKENS else 1, now) for name, bucket in self._buckets.items())
        return max(pauses, default=0.0)

    def take(self, tokens: float, requests: int = 1) -> None:
        """Count a request of about so many tokens that is being sent. Negative numbers undo it for one that was not."""
        for name, bucket in self._buckets.items():
            bucket.take(tokens if name == TOKENS else requests)

    def correct(self, guessed: float, tokens: int) -> None:
        """Correct the count of an answered request, which was guessed to take `guessed` tokens and took `tokens`.

        Some servers do not tell how many tokens they used: `tokens` is then 0, and the guess stands.
        """
        if tokens:
            self.take(tokens - guessed, requests=0)


class Sizes:
    """How many tokens the requests of a model take, prompt and answer together: a running mean for each stage."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def guess(self, kind: str, request: Request) -> float:
        """About how many tokens the request will take. `kind` is the stage that asks.

        Before the first answer of its kind, this is a number that it can hardly exceed.
        """
        return self._means.get(kind) or _characters(request) + request.max_new_tokens

    def learn(self, kind: str, tokens: int) -> None:
        """Note that a request of this kind took so many tokens."""
        mean = self._means.get(kind)
        self._means[kind] = tokens if mean is None else mean + _SMOOTH * (tokens - mean)


def _characters(request: Request) -> int:
    """Length of the prompt in characters. Few tokenizers make more than one token of a character."""
    if isinstance(request.prompt, str):
        return len(request.prompt)
    return sum(len(message["content"]) for message in request.prompt)
