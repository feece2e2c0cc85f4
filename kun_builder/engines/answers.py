"""What servers answer, read into a `Completion`: chat, completion and TGI shapes, with their log-probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kun_builder.errors import TransientError
from kun_builder.prompts import restore
from kun_builder.types import Completion, Token

_UNKNOWN = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading an answer of an unforeseen shape raises."""


def openai_answer(body: Any, endpoint: str, stop: Sequence[str] = ()) -> Completion:
    """A chat or completion answer. `stop` is for servers that refuse stop strings: the text is cut here instead.

    Raises TransientError for an answer of another shape: a proxy or a broken server, not the input, is at fault.
    """
    try:
        choice = body["choices"][0]
        message = choice.get("message")
        text, reason = _ended((choice["text"] if message is None else message.get("content")) or "", stop)
        logprobs = choice.get("logprobs")
        usage = body.get("usage") or {}
        details = usage.get("prompt_tokens_details")
        return Completion(
            text,
            reason or _finish(choice.get("finish_reason"), endpoint),
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
            int(details.get("cached_tokens") or 0) if details else 0,
            _tokens(logprobs) if logprobs else (),
        )
    except _UNKNOWN as error:
        raise TransientError(f"{endpoint} answered in an unknown shape: {error!r}", endpoint=endpoint) from error


def tgi_answer(body: Any, headers: Mapping[str, str], endpoint: str, stop: Sequence[str] = ()) -> Completion:
    """An answer of TGI's `/generate` with details. TGI leaves the stop string at the end; it is cut here.

    The number of prompt tokens is in a header; the body has it only together with all prompt log-probabilities.
    """
    try:
        details = body["details"]
        tops = details.get("top_tokens") or ()
        text, reason = _ended(body["generated_text"], stop)
        return Completion(
            text,
            reason or _finish(details["finish_reason"], endpoint),
            int(headers.get("x-prompt-tokens") or 0),
            int(details["generated_tokens"]),
            0,
            tuple(_tgi_tokens(details["tokens"], tops)) if tops else (),
        )
    except _UNKNOWN as error:
        raise TransientError(f"{endpoint} answered in an unknown shape: {error!r}", endpoint=endpoint) from error


def _ended(text: Any, stop: Sequence[str]) -> tuple[str, str]:
    """The text up to the first stop string, as the prompt's values were before they were neutralised; and `stop` as the
    finish reason if one was there."""
    if not isinstance(text, str):
        raise TypeError(f"the text is {text!r:.40}")
    length = len(text)
    for mark in stop:
        text = text.partition(mark)[0]
    reason = "stop" if len(text) < length else ""
    return (restore(text) if "\u200b" in text else text), reason


def _finish(reason: object, endpoint: str) -> str:
    if reason == "abort":  # the server gave up on the request half-way; what it has written is no answer
        raise TransientError(f"{endpoint} aborted the request", endpoint=endpoint)
    return "length" if reason == "length" else "stop"


def _tokens(logprobs: Mapping[str, Any]) -> tuple[Token, ...]:
    content = logprobs.get("content")
    if content is not None:
        return tuple(_token(t, t.get("top_logprobs") or ()) for t in content)
    texts, values = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
    tops = logprobs.get("top_logprobs") or [None] * len(texts)
    return tuple(
        Token(str(text), float(value or 0), tuple(sorted((top or {}).items(), key=lambda item: -item[1])))
        for text, value, top in zip(texts, values, tops, strict=False)
    )


def _token(token: Mapping[str, Any], top: Iterable[Mapping[str, Any]]) -> Token:
    alternatives = tuple((str(t["token"]), float(t["logprob"])) for t in top)
    return Token(str(token["token"]), float(token["logprob"]), alternatives)


def _tgi_tokens(tokens: Iterable[Mapping[str, Any]], tops: Iterable[Sequence[Mapping[str, Any]]]) -> Iterable[Token]:
    for token, top in zip(tokens, tops, strict=False):
        alternatives = tuple((str(t["text"]), float(t["logprob"])) for t in top if t["logprob"] is not None)
        yield Token(str(token["text"]), float(token["logprob"] or 0), alternatives)
