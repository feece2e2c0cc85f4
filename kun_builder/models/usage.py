"""What models were asked and what it took: counted where answers arrive, added up over rows and shards."""

from __future__ import annotations

from dataclasses import dataclass, fields

from kun_builder.types import Completion


@dataclass
class Tally:
    """Requests and tokens of one stage at one model; `reused` answers came out of the journal."""

    requests: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    reasoning_tokens: int = 0

    def add(self, completion: Completion) -> None:
        """Count one answer. One from the journal counts as `reused` only, since it was paid for before."""
        if completion.cached:
            self.reused += 1
            return
        self.requests += 1
        self.prompt_tokens += completion.prompt_tokens
        self.completion_tokens += completion.completion_tokens
        self.cached_prompt_tokens += completion.cached_prompt_tokens
        self.reasoning_tokens += completion.reasoning_tokens

    def merge(self, other: Tally) -> None:
        """Add the figures of `other`."""
        for name in (one.name for one in fields(Tally)):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Usage(Tally):
    """What one stage cost at one model, useless answers included. `truncated`, `empty` and `off_schema` count answers
    with that flaw, `retries` the requests that failed and were sent again."""

    retries: int = 0
    truncated: int = 0
    empty: int = 0
    off_schema: int = 0
