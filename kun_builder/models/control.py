"""Control tokens that only a model's own tokenizer knows, broken in the messages that the model is sent.

`prompts.neutralise` knows those of the common vocabularies, wherever a text goes. A tokenizer has its own list: where
it is at hand, its tokens are broken in the same way, so that no text of a corpus can end a turn or begin one. A raw
prompt for completion is left as it is, since its template may hold such tokens on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kun_builder.engines.tokenizers import control_tokens
from kun_builder.prompts import breaker
from kun_builder.types import ModelSpec, Request

Guard = Callable[[Request], Request]
"""Gives the request as it may be sent: without control tokens in its messages."""


def guard_of(spec: ModelSpec) -> Guard:
    """The guard of the messages to a model. May read the model's tokenizer from the disk or the Hub.

    The tokenizer is at hand if the recipe names it, or if the model runs on this machine.
    """
    own = not (spec.endpoints or spec.endpoints_file)
    broken = breaker(control_tokens(spec) if spec.tokenizer or own else ())

    def guard(request: Request) -> Request:
        if isinstance(request.prompt, str):
            return request
        contents = [broken(message["content"]) for message in request.prompt]
        if all(new is old["content"] for new, old in zip(contents, request.prompt, strict=True)):
            return request
        told = zip(request.prompt, contents, strict=True)
        return replace(request, prompt=tuple({"role": old["role"], "content": new} for old, new in told))

    return guard
