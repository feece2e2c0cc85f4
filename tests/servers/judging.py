"""An OpenAI-style server whose pretended model judges: a function says which letter it gives, how surely."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from servers.replies import Reply, replies, said


@contextmanager
def judging(say: Callable[[str], Mapping[str, float] | str]) -> Iterator[tuple[str, list[str]]]:
    """Serve on 127.0.0.1; yields the address and the prompts that were asked, in the order of asking.

    `say` gets a prompt and returns the probabilities of first tokens, or a text, which is then all there is.
    """
    asked: list[str] = []

    def reply(body: dict[str, Any]) -> Reply:
        prompt = body["messages"][-1]["content"]
        if "\n" in prompt:  # else the engine asks whether anybody is there
            asked.append(prompt)
        letters = say(prompt)
        if isinstance(letters, str):
            return said(letters)
        top = [
            {"token": text, "logprob": math.log(p), "bytes": None}
            for text, p in sorted(letters.items(), key=lambda pair: -pair[1])
        ]
        return said(top[0]["token"], logprobs=[{**top[0], "top_logprobs": top}] if body.get("logprobs") else None)

    with replies(reply, model="org/judge") as server:
        yield server.url, asked
