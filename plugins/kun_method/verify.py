"""Stage `verify`: would a person sign this pair? Looks at instruction, answer and text together.

Kun (arXiv 2401.06477) judges the instruction alone. What then goes wrong most lies in the pair: an answer that only
says the question again, keeps a crumb of the text, adds or turns round what the text says, or is understood only beside
it. Cheap checks come first, each with its number; one forced token of a model decides what they cannot see.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from kun_builder import Drop, Generate, KunError, ModelName, Prompt, Row, RowStage

from .context import LONG_QUESTION, about_question, answer_needs_text
from .form import Defect as Finding
from .languages import ZH, words
from .pairs import coverage, explains, invented, novelty, support, turned_negation
from .raw import reads_as_answer
from .verdict import verdict

PROMPT = ZH.prompts["verify"]

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
_NEEDED = ("instruction", "output", "text")


async def run(
    row: Row,
    generate: Generate,
    *,
    model: ModelName | None = "chat",
    prompt: Prompt = PROMPT,
    good: str = "好",
    bad: str = "差",
    threshold: Share = 0.91,
    least_support: Share = 0.8,
    least_novelty: Share = 0.4,
    least_coverage: Share = 0.05,
    on_fail: Literal["drop", "raw"] = "drop",
) -> Row:
    """Add `support`, `novelty`, `coverage` and `pair_score`, all in 0..1, or drop the pair for the first finding.

    The first three are shares of grams (see `pairs`): of the answer found in text or question, of the answer not found
    in the question, of the text kept by the answer. `pair_score` is the probability that `model` calls the pair `good`
    rather than `bad`, by default in the text's language; `model: null` asks none, and it is null. Of a text that was
    cut to fit, what `polish` was given counts.

    `on_fail: raw` puts the text itself in the place of an answer that fails, where it reads as one, and judges again;
    it needs a corpus whose text may be passed on.

    Raises:
        Drop: `needs_context`, `bad_question`, `says_nothing`, `loses_text`, `invented`, `unsupported`, `contradicts`,
            `off_topic`, each with what was found; `low_pair_score`; `unparseable_score`.
        KunError: a column is missing.
    """
    if missing := [column for column in _NEEDED if column not in row]:
        raise KunError(
            f"stage `verify` needs `{missing[0]}`, which no earlier stage has added", hint="put it behind `polish`"
        )
    if leans := about_question(row["instruction"]):
        raise Drop(*leans)
    text = row.get("raw_answer") or row["text"]
    prompt, good, bad = words(prompt, "verify", text, good, bad)
    found: Finding | None = None
    for output in (row["output"], *((text.strip(),) if on_fail == "raw" and reads_as_answer(text) else ())):
        measured = measures(row["instruction"], output, text)
        found = about_answer(row["instruction"], output, text) or _too_low(
            measured, row["instruction"], least_support, least_novelty, least_coverage
        )
        if not found and model is not None:
            filled = prompt.fill(text=text, instruction=row["instruction"], output=output, good=good, bad=bad)
            score, completion = await verdict(generate, model, filled, good, bad)
            measured["pair_score"] = score
            if score is None:
                found = "unparseable_score", completion.text
            elif score < threshold:
                found = "low_pair_score", round(score, 4)
        if not found:
            return {**row, **measured, "output": output}
    assert found
    raise Drop(*found, **measured)


def about_answer(instruction: str, output: str, text: str) -> Finding | None:
    """What is wrong with the answer by its words alone."""
    checks = (
        ("needs_context", answer_needs_text(output)),
        ("invented", invented(output, text, instruction)),
        ("contradicts", turned_negation(output, text)),
        ("off_topic", "" if explains(output, instruction) else instruction),
    )
    return next(((reason, words) for reason, words in checks if words), None)


def measures(instruction: str, output: str, text: str) -> dict[str, float | None]:
    """The columns that the stage adds, before a model was asked."""
    return {
        "support": round(support(output, text, instruction), 4),
        "novelty": round(novelty(output, instruction), 4),
        "coverage": round(coverage(output, text), 4),
        "pair_score": None,
    }


def _too_low(measured: dict[str, float | None], instruction: str, *least: float) -> Finding | None:
    """The first measure below its limit, in the order support, novelty, coverage."""
    reasons = ("unsupported", "says_nothing", "loses_text")
    for reason, (name, value), limit in zip(reasons, measured.items(), least, strict=False):
        if name == "novelty" and len(instruction) > LONG_QUESTION:
            continue
        if value is not None and value < limit:
            return reason, value
    return None


stage = RowStage(
    name="verify",
    run=run,
    adds={"support": "double", "novelty": "double", "coverage": "double", "pair_score": "double"},
)
