"""How much a question helps to expect its answer, by the likelihoods that a model gives to both.

The measure is the instruction-following difficulty of Li et al. (arXiv 2308.12032) turned round, so that more is more:
a model reads the answer behind the question and by itself, and the gain is 1 less the ratio of its mean surprises
(negative log-likelihoods). At 0 the question does not help to expect the answer, or even misleads, which the paper
takes for a pair that does not belong together; near 1 it leaves nothing to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from kun_builder import Generate, Prompt
from kun_builder.types import Token

from .form import Defect as Finding

PROMPT = Prompt("{instruction}\n\n{output}")
"""Raw text, without a word of any language: what a model expects of an answer is asked, not its judgement."""
_ALONE = Prompt("{output}")

_SEAM = 2
"""Tokens at the beginning of an answer that may be others behind a question, where they grow together with its end."""


async def look(
    generate: Generate, model: str | None, pair: tuple[str, str], least: float, most: float
) -> tuple[Finding | None, float | None]:
    """The finding about a pair (instruction, output), and its gain in 0..1; neither without a `model`.

    Findings: `low_gain` below `least`, `high_gain` above `most`, and `unmeasured_gain` where the tokens of both
    readings cannot be laid side by side, as those of an answer of one token.
    """
    if model is None:
        return None, None
    instruction, output = (part.strip() for part in pair)
    behind = await _read(generate, model, PROMPT.fill(instruction=instruction, output=output))
    alone = await _read(generate, model, _ALONE.fill(output=output))
    gain = gain_of(alone, behind)
    if gain is None:
        return ("unmeasured_gain", f"{len(alone)} and {len(behind)} tokens"), None
    gain = round(max(gain, 0.0), 4)
    if gain < least:
        return ("low_gain", gain), gain
    return (("high_gain", gain) if gain > most else None), gain


async def _read(generate: Generate, model: str, text: str | Sequence[object]) -> tuple[Token, ...]:
    completion = await generate(model, text, max_new_tokens=1, prompt_logprobs=True, on_length="keep", on_empty="keep")
    return completion.prompt_logprobs


def gain_of(alone: Sequence[Token], behind: Sequence[Token]) -> float | None:
    """The gain, at most 1 and below 0 where the question misleads, by two readings of the answer: `alone` and at the
    end of a text, `behind` the question.

    Only tokens that both have are compared: of some vocabularies, the first one has no likelihood where nothing is
    before it. None where next to no token is left, or the answer is no surprise at all.
    """
    both = zip(reversed(alone), reversed(behind), strict=False)
    tail = list(takewhile(lambda tokens: tokens[0].text == tokens[1].text, both))
    surprise = -sum(token.logprob for token, _ in tail)
    if len(tail) < max(1, len(alone) - _SEAM) or not surprise:
        return None
    return 1 + sum(token.logprob for _, token in tail) / surprise
