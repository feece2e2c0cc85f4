"""One word against another: a model's judgement, forced into one token and read from its log-probabilities.

Free-text verdicts fail to parse in up to half of the rows; the log-probabilities of one token against another give a
number, and a threshold to choose.
"""

from __future__ import annotations

import math
import re

from kun_builder import Completion, Generate
from kun_builder.types import PromptText

_ALTERNATIVES = 5
"""Most log-probabilities per token that every server gives (TGI's default limit)."""

_LEAST = 0.05
"""Probability of the two words together below which their proportion is noise."""

_THINKING = 1024
"""Tokens for an answer that comes with its thinking."""

_AROUND = " \n\t。.！!，,：:【】[]（）()“”「」\"'*"

_LEAD = re.compile(r"^[\s▁Ġ【\[（(“「\"'*]+")


async def verdict(
    generate: Generate, model: str, prompt: PromptText, good: str, bad: str
) -> tuple[float | None, Completion]:
    """The probability in 0..1 that `model` answers `prompt` with `good` rather than `bad`, and its last answer.

    Where a server gives no log-probabilities, or the two words together hold next to nothing of the probability, as at
    a model that thinks first, one of the words is demanded, and the number is 1 or 0. An answer that is cut off or all
    thinking gets room to think once. The number is None if neither word was answered even so.
    """
    if generate.info(model).logprobs:
        completion = await generate(
            model, prompt, max_new_tokens=1, top_logprobs=_ALTERNATIVES, on_length="keep", on_empty="keep"
        )
        found = from_logprobs(completion, good, bad)
        if found is None and completion.reasoning_tokens:  # it has thought, and answered
            found = _whole(completion, good, bad)
        if found is not None:
            return found, completion
    completion = await generate(model, prompt, max_new_tokens=8, choices=(good, bad), on_length="keep", on_empty="keep")
    found = _whole(completion, good, bad)
    if found is None and completion.finish_reason == "length":
        completion = await generate(model, prompt, max_new_tokens=_THINKING, on_length="keep", on_empty="keep")
        found = _whole(completion, good, bad)
    return found, completion


def _whole(completion: Completion, good: str, bad: str) -> float | None:
    """The verdict in an answer; one that was cut off counts only if the word is all of it: 好的，我先 is no verdict."""
    word = completion.text.strip(_AROUND)
    if completion.finish_reason == "length" and word not in (good, bad):
        return None
    return from_text(completion.text, good, bad)


def from_logprobs(completion: Completion, good: str, bad: str) -> float | None:
    """p(good) / (p(good) + p(bad)) at the first token; None if the two words hold less than 5 % of the probability.

    All alternatives that begin with a word count for it. A word that is not reported is less likely than all that are,
    and has no more than what these leave of the probability: the lesser of the two stands in for it, so that the score
    leans towards the middle, never away from it.
    """
    if not completion.tokens or not (top := completion.tokens[0].top):
        return None
    sums = {word: sum(math.exp(p) for text, p in top if _LEAD.sub("", text).startswith(word)) for word in (good, bad)}
    if sum(sums.values()) < _LEAST:
        return None
    left = 1 - sum(math.exp(p) for _, p in top)
    least = min(math.exp(min(p for _, p in top)), max(left, 0))
    yes, no = (sums[word] or least for word in (good, bad))
    return yes / (yes + no)


def from_text(answer: str, good: str, bad: str) -> float | None:
    """1 if `good` occurs in the answer and `bad` does not, 0 the other way round, else None."""
    found = (good in answer, bad in answer)
    return None if found[0] == found[1] else float(found[0])
