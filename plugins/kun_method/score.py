"""Stage `score`: how good an instruction is, judged by a chat model in one token.

Kun judges the instruction alone, since its model could not judge pairs. Free-text verdicts fail to parse in up to half
of the rows; the log-probabilities of one token against another always give a number, and a threshold to choose.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field

from kun_builder import Completion, Drop, Generate, ModelName, Prompt, Row, RowStage

PROMPT = Prompt.load(Path(__file__).parent / "prompts" / "score.txt")

_ALTERNATIVES = 5
"""Most log-probabilities per token that every server gives (TGI's default limit)."""

_LEAD = re.compile(r"^[\s▁Ġ【\[（(“「\"'*]+")


async def run(
    row: Row,
    generate: Generate,
    *,
    model: ModelName = "chat",
    prompt: Prompt = PROMPT,
    good: str = "好",
    bad: str = "差",
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.3,
) -> Row:
    """Add `score`, in 0..1: the probability that `model` calls the row's `instruction` `good` rather than `bad`.

    Where a server gives no log-probabilities, one of the two words is demanded, and the score is 1 or 0. At the default
    `threshold` the embedded model keeps 85 % of the instructions of people, and 8 % of such that were shuffled, cut off
    or made to stammer (48 of each, ROC-AUC 0.92); `kun-build evaluate score` measures another model or prompt.

    Raises:
        Drop: `low_score` below `threshold`; `unparseable_score`, with the answer, if neither word was answered.
    """
    filled = prompt.fill(instruction=row["instruction"], good=good, bad=bad)
    score = None
    if generate.info(model).logprobs:
        completion = await generate(
            model, filled, max_new_tokens=1, top_logprobs=_ALTERNATIVES, on_length="keep", on_empty="keep"
        )
        score = from_logprobs(completion, good, bad)
    if score is None:
        completion = await generate(
            model, filled, max_new_tokens=8, choices=(good, bad), on_length="keep", on_empty="keep"
        )
        score = from_text(completion.text, good, bad)
    if score is None:
        raise Drop("unparseable_score", completion.text)
    if score < threshold:
        raise Drop("low_score", round(score, 4), score=score)
    return {**row, "score": score}


def from_logprobs(completion: Completion, good: str, bad: str) -> float | None:
    """p(good) / (p(good) + p(bad)) at the first token; None if neither word is among its alternatives.

    All alternatives that begin with a word count for it. A word that is not reported is less likely than all that are:
    the least of these stands in for it, so that the score leans towards the middle, never away from it.
    """
    if not completion.tokens or not (top := completion.tokens[0].top):
        return None
    sums = {word: sum(math.exp(p) for text, p in top if _LEAD.sub("", text).startswith(word)) for word in (good, bad)}
    if not any(sums.values()):
        return None
    least = math.exp(min(p for _, p in top))
    yes, no = (sums[word] or least for word in (good, bad))
    return yes / (yes + no)


def from_text(answer: str, good: str, bad: str) -> float | None:
    """1 if `good` occurs in the answer and `bad` does not, 0 the other way round, else None."""
    found = (good in answer, bad in answer)
    return None if found[0] == found[1] else float(found[0])


stage = RowStage(name="score", run=run, adds={"score": "double"})
