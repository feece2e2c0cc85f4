"""How likely a prompt is, token by token, as the few servers tell that can: vLLM by the field `prompt_logprobs`, Text
Generation Inference by `decoder_input_details`.

vLLM (its `entrypoints/openai` protocol) gives a list with null for the first token and, with `prompt_logprobs: 0`, one
entry for each other: `{"<id>": {"logprob": ..., "rank": ..., "decoded_token": ...}}`; at the choice of a completion, at
the top of a chat. TGI gives `details.prefill`, `[{"id", "text", "logprob"}]`, which is empty since version 3 unless the
server was started with `--enable-prefill-logprobs`. llama.cpp's server overlooks the field and has no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import orjson

from kun_builder.types import PromptText, Token

FIELD = "prompt_logprobs"
"""vLLM's field: how many alternatives to tell of each token, besides itself. This is also the field of `Request`."""
TGI_FIELD = "decoder_input_details"


def most_tokens(prompt: PromptText) -> int:
    """The tokens that a prompt has at most: as many as bytes, those of a template aside."""
    return len(orjson.dumps(prompt))


def of_openai(body: Any) -> tuple[Token, ...]:
    """Those in an answer of vLLM's; none where it has none, or of another shape: the answer is good without them."""
    try:
        given = body["choices"][0].get(FIELD) or body.get(FIELD) or ()
        return _read(_only(position) for position in given[1:])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return ()


def of_tgi(details: Any) -> tuple[Token, ...]:
    """Those in the details of an answer of TGI's, likewise."""
    try:
        return _read((token["text"], token["logprob"]) for token in (details.get("prefill") or ())[1:])
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()


def _only(position: Any) -> tuple[Any, Any]:
    """Text and log-probability of the one token of a position."""
    (token,) = position.values()
    return token["decoded_token"] or "", token["logprob"]


def _read(pairs: Iterable[tuple[Any, Any]]) -> tuple[Token, ...]:
    """The tokens. All or none: what follows from them is a mean over them. Raises ValueError for what is no number."""
    return tuple(Token(str(text), _number(logprob)) for text, logprob in pairs)


def _number(logprob: Any) -> float:
    if not isinstance(logprob, int | float) or not math.isfinite(logprob) or logprob > 0.01:
        raise ValueError(f"{logprob!r:.40} is no log-probability")
    return min(float(logprob), 0.0)
