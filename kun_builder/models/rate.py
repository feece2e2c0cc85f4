"""Requests and tokens per minute at one endpoint, for APIs that bill or block by them (`limits` of a model).

A token bucket for each limit, refilled all the time: in no minute more goes out than the limit, and what goes out is
spread over the minute. What a request takes is known only when it is answered: before, it is taken for the mean of its
stage's requests; then the difference is made up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from kun_builder.types import Request

TOKENS = "tokens_per_minute"
_BURST = 2.0  # seconds' worth that may go out at once after a pause
_SMOOTH = 0.05


class Bucket:
    """Lets through so many per minute, in any minute. May be in debt, where a request took more than was thought."""

    def __init__(self, per_minute: float, now: float) -> None:
        self._most = max(1.0, per_minute * _BURST / 60)
        self._pace = (per_minute - self._most + 1) / 60  # with what goes at once, no minute has more than `per_minute`
        self._level, self._seen = self._most, now

    def pause(self, amount: float, now: float) -> float:
        """Seconds until so much may go; more than the bucket holds goes when it is full."""
        self._level = min(self._most, self._level + (now - self._seen) * self._pace)
        self._seen = now
        return max(0.0, (min(amount, self._most) - self._level) / self._pace)

    def take(self, amount: float) -> None:
        """So much goes, or comes back where it is below zero."""
        self._level -= amount


class Rate:
    """The limits of one endpoint; without any, everything may go at once."""

    def __init__(
        self, limits: Mapping[str, float], sharers: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """limits: by `requests_per_minute` and `tokens_per_minute`, of all `sharers` processes together."""
        self._clock = clock
        self._buckets = {name: Bucket(limit / sharers, clock()) for name, limit in limits.items()}

    def pause(self, tokens: float) -> float:
        """Seconds until a request of so many tokens may be sent."""
        now = self._clock()
        pauses = (bucket.pause(tokens if name == TOKENS else 1, now) for name, bucket in self._buckets.items())
        return max(pauses, default=0.0)

    def take(self, tokens: float, requests: int = 1) -> None:
        """A request of about so many tokens is sent; below zero, with -1 request, it was not sent after all."""
        for name, bucket in self._buckets.items():
            bucket.take(tokens if name == TOKENS else requests)

    def correct(self, guessed: float, tokens: int) -> None:
        """It took so many tokens; a server that tells none leaves it at the guess."""
        if tokens:
            self.take(tokens - guessed, requests=0)


class Sizes:
    """Tokens of a model's requests, prompt and answer together: the running mean of each kind (stage)."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def guess(self, kind: str, request: Request) -> float:
        """About what the request will take; before the first answer of its kind, hardly less."""
        return self._means.get(kind) or _characters(request) + request.max_new_tokens

    def learn(self, kind: str, tokens: int) -> None:
        """A request of this kind took so many."""
        mean = self._means.get(kind)
        self._means[kind] = tokens if mean is None else mean + _SMOOTH * (tokens - mean)


def _characters(request: Request) -> int:
    """Length of the prompt: few tokenizers make more than one token of a character."""
    if isinstance(request.prompt, str):
        return len(request.prompt)
    return sum(len(message["content"]) for message in request.prompt)
