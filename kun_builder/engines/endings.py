"""How an answer ended, in the words of many servers: brought to its end, cut off, or given up half-way."""

from __future__ import annotations

from collections.abc import Mapping

from kun_builder.errors import TransientError

ENDS = frozenset(
    {
        "stop",
        "eos",
        "eos_token",
        "stop_sequence",
        "end",
        "end_turn",
        "completed",
        "complete",
        "stop_token",
        "stop_str",
        "word",
    }
)
_CUT = frozenset({"length", "max_tokens", "model_length", "max_output_tokens", "max_new_tokens", "limit"})
_CUT |= {"model_context_window_exceeded"}
_GIVEN_UP = frozenset({"abort", "aborted", "cancelled", "canceled", "cancel"})
_GIVEN_UP |= {"network_error", "insufficient_system_resource"}
"""What servers say that gave up on a request; the last two are GLM's and DeepSeek's words."""
_NOTHING = ("", "none", "null")
_SHOWN = 40


def word_of(reason: object) -> str:
    """The word for the end of an answer in what stands at `finish_reason`; "" if there is none.

    SGLang's own form has it in a mapping (`{type: length, length: 32}`), Python enumerations behind a dot. Numbers say
    nothing: one gateway's 1 is the end, another's 1 the limit, and some put the last token's id there."""
    if isinstance(reason, Mapping):
        reason = reason.get("type")
    word = reason.lower().rpartition(".")[2] if isinstance(reason, str) else ""
    return "" if word in _NOTHING else word


def finish(reason: object, endpoint: str, tokens: int = 0, most: int = 0) -> str:
    """The finish reason: `stop` or `length` for the many words that mean them, else the server's own word.

    Where the server tells none, an answer with as many `tokens` as it may have at `most` was cut off (0: not known).
    Raises TransientError if the server gave up on the request."""
    word = word_of(reason)
    if word in _GIVEN_UP:  # what it has written until then is no answer
        raise TransientError(f"{endpoint} aborted the request ({word})", endpoint=endpoint)
    if not word:
        return "length" if 0 < most <= tokens else "stop"
    if word in ENDS:
        return "stop"
    return "length" if word in _CUT else word[:_SHOWN]
