"""What can be wrong with an answer by its end alone: cut off, empty, ended by something else, or no text."""

from __future__ import annotations

from dataclasses import replace

from kun_builder.errors import Drop
from kun_builder.types import Completion, Request

_PROPER_ENDS = frozenset({"stop", "length"})
_REPLACED = "\ufffd"  # stands for bytes that were no text
_SHOWN = 40


def check_end(completion: Completion, request: Request) -> None:
    """Raise Drop for an answer that was not brought to an end (`unfinished`) or holds bytes of no text (`garbled`)."""
    text = completion.text
    if completion.finish_reason not in _PROPER_ENDS:
        raise Drop("unfinished", f"{completion.finish_reason}: {text[-_SHOWN:]}")
    if _REPLACED in text and request.max_new_tokens > 1:
        raise Drop("garbled", text[max(0, text.index(_REPLACED) - _SHOWN) :][: 2 * _SHOWN])


def has_flaw(flaw: str, completion: Completion) -> bool:
    """Whether an answer is cut off, if `flaw` is `truncated`, or has no text, if it is `empty`."""
    return completion.finish_reason == "length" if flaw == "truncated" else not completion.text.strip()


def size_of(completion: Completion) -> str:
    """What the verdict on a dropped answer says: how many tokens it had, and the cure if all of them were thoughts."""
    cure = ", all of them thought: raise `thinking_tokens`" if all_thought(completion) else ""
    return f"{completion.completion_tokens}{cure}"


def all_thought(completion: Completion) -> bool:
    """Whether an answer was cut off before the model had ended its thinking."""
    return completion.finish_reason == "length" and completion.reasoning_tokens > 0 and not completion.text.strip()


def changed_for(flaw: str, request: Request) -> Request:
    """The request to repeat after a flaw: for `truncated` with twice the tokens, else with another seed and, if greedy,
    with temperature 0.3, since a seed means nothing at 0."""
    if flaw == "truncated":
        return replace(request, max_new_tokens=2 * request.max_new_tokens)
    return replace(request, seed=(request.seed or 0) + 1, temperature=request.temperature or 0.3)
