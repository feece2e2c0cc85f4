"""What a record of the journal says: a question, which is its key, and the answer with the time at which it came.

A record may be whole and yet make no sense, because another version or another program wrote it. It then counts as
missing.
"""

from __future__ import annotations

import math
from dataclasses import fields
from operator import attrgetter
from typing import Any

import orjson

from kun_builder.types import Completion, Request, Token

_LATER = ("schema", "prompt_logprobs")
"""Fields that earlier versions did not know: they come last, and only as far as they are set."""
_KEYED = tuple(f.name for f in fields(Request) if f.name not in ("on_length", "on_empty", *_LATER))
_fields_of = attrgetter(*_KEYED)
_MOST_TOKENS = 10**8
_UNKNOWN = (ValueError, TypeError, LookupError)
"""What reading a record of an unforeseen shape raises."""


def pack_question(model: str, revision: str, request: Request) -> bytes:
    """The model and everything in the request that an answer depends on, as JSON. Questions that set none of the later
    fields have the same bytes as those of earlier versions, so that old answers are found."""
    later: tuple[Any, ...] = () if request.schema is None else (request.schema,)
    if request.prompt_logprobs:
        later = (request.schema, True)
    return orjson.dumps((model, revision, *_fields_of(request), *later), option=orjson.OPT_SORT_KEYS)


def pack_answer(completion: Completion, when: float) -> bytes:
    """An answer and its Unix time, as JSON."""
    told = [(token.text, token.logprob) for token in completion.prompt_logprobs]
    answer = (
        completion.text,
        completion.finish_reason,
        completion.prompt_tokens,
        completion.completion_tokens,
        completion.cached_prompt_tokens,
        [(token.text, token.logprob, token.top) for token in completion.tokens],
        completion.reasoning_tokens,
        *([told] if told else ()),
    )
    return orjson.dumps((answer, when))


def unpack_answer(packed: bytes, key: str) -> Completion | None:
    """The answer in a record; None if it makes no sense. Records of earlier versions have no reasoning tokens, and most
    have no tokens of the prompt."""
    try:
        (text, finish, prompt, generated, cached, tokens, *later), when = orjson.loads(packed)
        reasoning, of_prompt = (later[0] if later else 0), (later[1] if len(later) > 1 else ())
        counts = (prompt, generated, cached, reasoning)
        if any(type(count) is not int or not 0 <= count <= _MOST_TOKENS for count in counts):
            return None
        if not (isinstance(text, str) and isinstance(finish, str) and isinstance(when, int | float)):
            return None
        read = tuple(Token(token, logprob, tuple((t, p) for t, p in top)) for token, logprob, top in tokens)
        told = tuple(Token(token, logprob) for token, logprob in of_prompt)
        if not all(_makes_sense(token) for token in (*read, *told)):
            return None
    except _UNKNOWN:
        return None
    return Completion(text, finish, prompt, generated, cached, read, key, True, reasoning, prompt_logprobs=told)


def marked(c: Completion, key: str, *, cached: bool) -> Completion:
    """The completion with its place in the journal; `dataclasses.replace` takes ten times as long."""
    return Completion(
        c.text,
        c.finish_reason,
        c.prompt_tokens,
        c.completion_tokens,
        c.cached_prompt_tokens,
        c.tokens,
        key,
        cached,
        c.reasoning_tokens,
        prompt_logprobs=c.prompt_logprobs,
    )


def _makes_sense(token: Token) -> bool:
    pairs = ((token.text, token.logprob), *token.top)
    return all(isinstance(text, str) and isinstance(p, int | float) and math.isfinite(p) for text, p in pairs)


def unpack_question(packed: bytes) -> tuple[str, str, Request] | None:
    """Model, revision and request of a record; None if it makes no sense."""
    try:
        model, revision, *values = orjson.loads(packed)
        facts: list[Any] = [tuple(value) if isinstance(value, list) else value for value in values]
        names = (*_KEYED, *_LATER)[: max(len(facts), len(_KEYED))]
        return str(model), str(revision), Request(**dict(zip(names, facts, strict=True)))
    except _UNKNOWN:
        return None
