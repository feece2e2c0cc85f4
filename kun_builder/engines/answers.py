"""What servers answer, read into a `Completion`: chat, completion and TGI shapes, with their log-probabilities.

Nothing of it is trusted: numbers are checked before they are counted or written down, reasoning is taken off, and an
error that comes with status 200 is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kun_builder.engines.endings import ENDS, finish, word_of
from kun_builder.engines.prompt_tokens import of_openai, of_tgi
from kun_builder.engines.reasoning import Habits, ends_reasoning, reasoning_beside
from kun_builder.engines.reported import error_in_answer
from kun_builder.errors import TransientError
from kun_builder.prompts import restore
from kun_builder.types import Completion, Token

_UNKNOWN = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading an answer of an unforeseen shape raises."""

_TELLING = frozenset({"choices", "error", "message", "detail"})
_MOST_TOKENS = 10**8
"""No answer has more tokens than this, so a larger number is taken for a mistake of the server."""

_YES = re.compile(r"\W*yes\W*", re.IGNORECASE)
_TEXT_PARTS = ("text", "output_text")
_SHOWN = 200
_REPLACED = "\ufffd"  # at the end of what was cut off, the first bytes of a character
_TAG = 40  # characters that the end tag of a reasoning has at most


def openai_answer(
    body: Any,
    endpoint: str,
    stop: Sequence[str] = (),
    *,
    reasoning_is_answer: bool = False,
    habits: Habits | None = None,
    shown: Callable[[str], str] = str,
    most: int = 0,
) -> Completion:
    """Read a chat or completion answer into a `Completion`.

    stop: strings at which the text is cut here, for servers that refuse stop strings.
    reasoning_is_answer: the model does not think, so what the server's parser has put into the reasoning field is the
        answer.
    habits: how the model has been seen to think; they are updated by this answer.
    shown: takes secrets out of the server's words before they are quoted in an error.
    most: tokens that were asked for at most, to know an answer that was cut off where the server does not say it.

    Raises RejectedError for an error that came with status 200 and for an answer without choices; TransientError if
    that error is one that passes, or the answer has another shape: a proxy or a broken server is at fault, not the row;
    FatalError if it concerns the account.
    """
    try:
        choice = _choice(body, endpoint, shown)
        message = choice.get("message")
        said = _said(choice)
        beside = "" if message is None else reasoning_beside(message)
        if beside and not said and reasoning_is_answer:
            said, beside = beside, ""
        refusal = message.get("refusal") if message is not None and not said else None
        habits = habits or Habits()
        answer, thought = habits.split(said)
        habits.thinks = habits.thinks or bool(beside)
        text, ended = _ended(answer, stop)
        prompt, completion, cached, reasoning = _usage(mapping(body.get("usage")), len(beside or thought))
        end = ended or finish(choice.get("finish_reason"), endpoint, completion, most)
        if refusal:
            end = f"refusal: {refusal}"[:_SHOWN]
        if (beside or thought) and not text and end == "stop":
            end = "reasoning without an answer"
        if end == "length":
            text = text.rstrip(_REPLACED)
        tokens = _tokens(mapping(choice.get("logprobs")))
        if beside or thought:
            tokens = _of_answer(tokens, text)
        return Completion(
            *(text, end, prompt, completion, cached, tokens),
            reasoning_tokens=reasoning,
            prompt_logprobs=of_openai(body),
        )
    except _UNKNOWN as error:
        raise _unknown_shape(error, body, endpoint, shown) from error


def _choice(body: Any, endpoint: str, shown: Callable[[str], str]) -> Mapping[str, Any]:
    """The answer's choice. Raises the error that stands in its place, or beside it: a gateway that loses its server
    half-way has already answered with status 200."""
    if not body.get("choices") and body.keys() & _TELLING:
        raise error_in_answer(body, endpoint, shown)
    choice: Mapping[str, Any] = body["choices"][0]
    error = choice.get("error") or body.get("error")
    if error and word_of(choice.get("finish_reason")) not in ENDS:
        raise error_in_answer({"error": error}, endpoint, shown)
    return choice


def _said(choice: Mapping[str, Any]) -> str:
    """The text of a choice; empty for one from which a filter has taken the message away."""
    message = choice.get("message")
    if message is not None:
        return _content(message.get("content"))
    if "text" not in choice and word_of(choice.get("finish_reason")) not in {"", *ENDS}:
        return ""
    return choice["text"] or ""


def message_text(body: Any) -> str:
    """The text of a chat answer as it was sent, with any reasoning in it; empty if there is none."""
    try:
        return _content(body["choices"][0]["message"].get("content"))
    except _UNKNOWN:
        return ""


def swallowed_yes(body: Any, endpoint: str, shown: Callable[[str], str]) -> bool:
    """Whether the server's parser has put a plain yes into the reasoning field of a chat answer."""
    answer = openai_answer(body, endpoint, reasoning_is_answer=True, shown=shown)
    return bool(_YES.fullmatch(answer.text)) and not message_text(body)


def tgi_answer(
    body: Any,
    headers: Mapping[str, str],
    endpoint: str,
    stop: Sequence[str] = (),
    *,
    habits: Habits | None = None,
    shown: Callable[[str], str] = str,
) -> Completion:
    """An answer of TGI's `/generate` with details. TGI leaves the stop string at the end; it is cut here.

    The number of prompt tokens is in a header; the body has it only together with all prompt log-probabilities.
    """
    try:
        if isinstance(body, dict) and "error" in body:
            raise error_in_answer(body, endpoint, shown)
        details = body["details"]
        tops = details.get("top_tokens") or ()
        if not isinstance(body["generated_text"], str):
            raise TypeError(f"the text is {body['generated_text']!r:.40}")
        answer, thought = (habits or Habits()).split(body["generated_text"])
        text, reason = _ended(answer, stop)
        tokens = _tgi_tokens(details.get("tokens"), tops) if tops else ()
        return Completion(
            text,
            reason or finish(details["finish_reason"], endpoint),
            count(headers.get("x-prompt-tokens")),
            count(details["generated_tokens"]),
            0,
            _of_answer(tokens, text) if thought else tokens,
            reasoning_tokens=_share(len(thought), len(body["generated_text"]), count(details["generated_tokens"])),
            prompt_logprobs=of_tgi(details),
        )
    except _UNKNOWN as error:
        raise _unknown_shape(error, body, endpoint, shown) from error


def count(value: object) -> int:
    """The number of tokens that a server reports; 0 if the value cannot be such a number."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else 0


def _unknown_shape(error: Exception, body: Any, endpoint: str, shown: Callable[[str], str]) -> TransientError:
    said = shown(json.dumps(body, ensure_ascii=False))
    message = f"{endpoint} answered in an unknown shape ({error!r:.80}): {said[:_SHOWN]}"
    return TransientError(message, status=200, endpoint=endpoint)


def _content(content: Any) -> str:
    """The text of a message, given whole, as a part or a list of parts; parts that hold reasoning are left out."""
    if isinstance(content, dict) and "text" in content:
        content = [content]
    if isinstance(content, list):
        return "".join(map(_part, content))
    if content is not None and not isinstance(content, str):
        raise TypeError(f"the text is {content!r:.40}")
    return content or ""


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    known = isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS
    return str(part.get("text") or "") if known else ""


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping; else an empty one: optional parts of an answer may have any shape."""
    return value if isinstance(value, dict) else {}


def _usage(usage: Mapping[str, Any], thought: int) -> tuple[int, int, int, int]:
    """Tokens of prompt and answer; of the prompt, those from the cache; of the answer, those of reasoning."""
    prompt, completion = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    details, of_answer = (mapping(usage.get(f"{what}_tokens_details")) for what in ("prompt", "completion"))
    reasoning = count(of_answer.get("reasoning_tokens")) or (min(completion, max(1, thought // 2)) if thought else 0)
    return prompt, completion, min(prompt, count(details.get("cached_tokens"))), min(completion, reasoning)


def _share(part: int, whole: int, tokens: int) -> int:
    return round(tokens * part / whole) if whole else 0


def _ended(text: str, stop: Sequence[str]) -> tuple[str, str]:
    """The text up to the first stop string, and the finish reason `stop` if there was one, else "".

    Control tokens that were broken in the prompt's values (`prompts.neutralise`) are whole again in the text."""
    length = len(text)
    for mark in stop:
        text = text.partition(mark)[0]
    reason = "stop" if len(text) < length else ""
    return (restore(text) if "\u200b" in text else text), reason


def _tokens(logprobs: Mapping[str, Any]) -> tuple[Token, ...]:
    """The tokens with their log-probabilities; none if their shape is unknown, for the answer is good without them."""
    try:
        content = logprobs.get("content")
        if content is not None:
            return tuple(_token(t, t.get("top_logprobs") or ()) for t in content)
        texts, values = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
        tops = logprobs.get("top_logprobs") or [None] * len(texts)
        return tuple(
            Token(str(text), _logprob(value), _sorted((str(t), p) for t, p in (top or {}).items()))
            for text, value, top in zip(texts, values, tops, strict=False)
        )
    except _UNKNOWN:
        return ()


def _of_answer(tokens: tuple[Token, ...], text: str) -> tuple[Token, ...]:
    """The tokens of the answer alone. Most servers list those of the reasoning too, wherever they put its text; the
    token 好 in the thought 好的，我先想一想 must not be taken for the verdict 好."""
    said = "".join(token.text for token in tokens)
    return tokens if text and said.strip() == text.strip() else _behind(tokens)


def _behind(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """The tokens behind the end tag of the reasoning; none if no reasoning ends among the tokens."""
    said = ""
    for number, token in enumerate(tokens):
        if ends_reasoning(said) and token.text.strip():
            return tokens[number:]
        said = (said + token.text)[-_TAG:]
    return ()


def _token(token: Mapping[str, Any], top: Iterable[Mapping[str, Any]]) -> Token:
    return Token(
        str(token["token"]), _logprob(token.get("logprob")), _known((t["token"], t.get("logprob")) for t in top)
    )


def _tgi_tokens(tokens: Any, tops: Any) -> tuple[Token, ...]:
    try:
        return tuple(
            Token(
                str(token["text"]), _logprob(token.get("logprob")), _known((t["text"], t.get("logprob")) for t in top)
            )
            for token, top in zip(tokens, tops, strict=False)
        )
    except _UNKNOWN:
        return ()


def _logprob(value: object) -> float:
    return min(float(value), 0.0) if isinstance(value, int | float) and _is_logprob(value) else 0.0


def _is_logprob(value: object) -> bool:
    """Whether a value can be the logarithm of a probability: a number, finite, and (but for rounding) not above 0."""
    return isinstance(value, int | float) and math.isfinite(value) and value <= 0.01


def _known(top: Iterable[tuple[Any, Any]]) -> tuple[tuple[str, float], ...]:
    """The alternatives that have a log-probability. Servers send null, NaN or -Infinity for impossible tokens."""
    return tuple((str(text), min(float(p), 0.0)) for text, p in top if _is_logprob(p))


def _sorted(top: Iterable[tuple[str, Any]]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(_known(top), key=lambda item: -item[1]))
