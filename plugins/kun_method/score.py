"""Stage `score`: how good an instruction is, judged by a chat model in one token.

Kun judges the instruction alone, since its model could not judge pairs; `verify` looks at the pair.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kun_builder import Drop, Generate, ModelName, Prompt, Quantity, Row, RowStage

from .languages import ZH, words
from .verdict import verdict

PROMPT = ZH.prompts["score"]
QUALITY = Quantity(title="score of the instruction", better="higher", least="threshold")


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

    By default, prompt and words are those of the instruction's language.

    Where a server gives no log-probabilities, one of the two words is demanded, and the score is 1 or 0. At the default
    `threshold` the embedded model keeps 85 % of the instructions of people, and 8 % of such that were shuffled, cut off
    or made to stammer (48 of each, ROC-AUC 0.92); `kun-build evaluate score` measures another model or prompt.

    Raises:
        Drop: `low_score` below `threshold`; `unparseable_score`, with the answer, if neither word was answered.
    """
    prompt, good, bad = words(
        prompt, "score", row["instruction"], good, bad, trained="score" in generate.info(model).trained_for
    )
    filled = prompt.fill(instruction=row["instruction"], good=good, bad=bad)
    score, completion = await verdict(generate, model, filled, good, bad)
    if score is None:
        raise Drop("unparseable_score", completion.text)
    if score < threshold:
        raise Drop("low_score", round(score, 4), score=score)
    return {**row, "score": score}


stage = RowStage(name="score", run=run, adds={"score": "double"}, quantities={"score": QUALITY})
