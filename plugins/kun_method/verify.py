"""Stage `verify`: would a person sign this pair? Looks at instruction, answer and text together.

Kun (arXiv 2401.06477) judges the instruction alone. What then goes wrong most lies in the pair: an answer that only
says the question again, keeps a crumb of the text, adds or turns round what the text says, or is understood only beside
it. Cheap checks come first, each with its number; one forced token of a model decides what they cannot see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from kun_builder import Drop, Generate, KunError, LikelihoodModel, ModelName, Prompt, Quantity, Row, RowStage

from . import gain as gains
from .aspects import asks_beyond
from .context import about_question, answer_needs_text, has_material, speaks_as_author
from .doubts import REASONS, Doubt
from .doubts import asked as asked_about
from .fitting import answer_room
from .form import Defect as Finding
from .form import leak
from .gaps import gap
from .languages import ZH, language_of, words
from .pairs import coverage, departures, explains, invented, novelty, support, turned_negation
from .raw import as_answer
from .substance import ADDS, QUANTITIES, substance
from .texts import said_twice
from .verdict import verdict

PROMPT = ZH.prompts["verify"]

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Measured: TypeAlias = dict[str, float | None]
"""The columns that the stage adds."""

_REPAIR_TOKENS = 1024
_LEAST_OF_CLAUSE = 0.35
"""Share of a clause's grams that text or question must have: less is a sentence of the model's own."""
_NEEDED = ("instruction", "output", "text")


async def run(
    row: Row,
    generate: Generate,
    *,
    model: ModelName | None = "chat",
    prompt: Prompt = PROMPT,
    good: str = "好",
    bad: str = "差",
    threshold: Share = 0.92,
    least_support: Share = 0.8,
    least_novelty: Share = 0.4,
    least_coverage: Share = 0.05,
    least_alone: Share = 0,
    least_answered: Share = 0,
    least_backed: Share = 0,
    gain: LikelihoodModel | None = None,
    least_gain: Share = 0.01,
    most_gain: Share = 1.0,
    on_fail: Literal["drop", "repair", "raw"] = "drop",
) -> Row:
    """Add `support`, `novelty`, `coverage`, `pair_score` and three more, all in 0..1, or drop the pair for the first
    finding.

    The first three are shares of grams (see `pairs`): of the answer found in text or question, of the answer not found
    in the question, of the text kept by the answer. `pair_score` is the probability that `model` calls the pair `good`
    rather than `bad`, by default in the text's language; `model: null` asks none, and it is null. Of a text that was
    cut to fit, what `polish` was given counts. `relative_length` and `facts_kept` (see `substance`) are for the report.

    `least_alone`, `least_answered` and `least_backed`, where they are above 0, have `model` asked further about a pair
    that is good so far (see `doubts`): the instruction by itself, the answer to it, each sentence of the answer beside
    the text. The columns `alone`, `answered` and `backed` are the probabilities of good, null where nothing was asked.

    `gain: MODEL` also adds `gain`, in 0..1: how much less the answer surprises that model behind the question (see
    `kun_method.gain`), for two requests of one token; its server must be vLLM or TGI. Only pairs that all else has let
    through are measured.

    `on_fail: repair` asks once more, with the finding in the prompt, and judges the new answer. `on_fail: raw` puts
    the text itself in the place of an answer that fails, where it reads as one, and judges that; it needs a corpus
    whose text may be passed on.

    Raises:
        Drop: `needs_context`, `bad_question`, `says_nothing`, `loses_text`, `invented`, `unsupported`, `contradicts`,
            `repeats`, `has_gaps`, `off_topic`, each with what was found; `low_pair_score`; `unparseable_score`;
            `low_gain`, `high_gain`, `unmeasured_gain`.
        KunError: a column is missing.
    """
    if missing := [column for column in _NEEDED if column not in row]:
        raise KunError(
            f"stage `verify` needs `{missing[0]}`, which no earlier stage has added", hint="put it behind `polish`"
        )
    if leans := about_question(row["instruction"]):
        raise Drop(*leans)
    text = row.get("raw_answer") or row["text"]
    limits = least_support, least_novelty, least_coverage
    asked = words(prompt, "verify", text, good, bad)
    doubts: dict[Doubt, float] = {"alone": least_alone, "answered": least_answered, "backed": least_backed}

    async def look(output: str) -> tuple[Finding | None, Measured]:
        pair = row["instruction"], output, text
        found, measured = await _look(generate, model, asked, threshold, limits, pair)
        if found or model is None:
            return found, measured
        return await _doubted(generate, model, doubts, pair, measured), measured

    output = row["output"]
    found, measured = await look(output)
    if found and (second := await _second_answer(generate, model, on_fail, row["instruction"], output, text, found[0])):
        output = second
        found, measured = await look(output)
    if not found:
        found, measured["gain"] = await gains.look(generate, gain, (row["instruction"], output), least_gain, most_gain)
    if found:
        raise Drop(*found, **measured)
    return {**row, **measured, "output": output}


async def _look(
    generate: Generate,
    model: str | None,
    asked: tuple[Prompt, str, str],
    threshold: float,
    limits: tuple[float, float, float],
    pair: tuple[str, str, str],
) -> tuple[Finding | None, Measured]:
    """The first finding about a pair (instruction, output, text), cheap checks first, and all that was measured."""
    instruction, output, text = pair
    measured = measures(*pair)
    found = about_answer(*pair) or _too_low(measured, instruction, *limits)
    if found or model is None:
        return found, measured
    prompt, good, bad = asked
    filled = prompt.fill(text=text, instruction=instruction, output=output, good=good, bad=bad)
    score, completion = await verdict(generate, model, filled, good, bad)
    measured["pair_score"] = score
    if score is None:
        return ("unparseable_score", completion.text), measured
    return (("low_pair_score", round(score, 4)) if score < threshold else None), measured


async def _doubted(
    generate: Generate, model: str, least: Mapping[Doubt, float], pair: tuple[str, str, str], measured: Measured
) -> Finding | None:
    """The finding of the first further question whose answer is too low; all answers are added to `measured`."""
    async for doubt, probability, judged in asked_about(generate, model, least, *pair):
        measured[doubt] = round(probability, 4)
        if probability < least[doubt]:
            return REASONS[doubt], judged
    return None


async def _second_answer(
    generate: Generate, model: str | None, on_fail: str, instruction: str, output: str, text: str, reason: str
) -> str:
    """What takes the place of a failed answer, "" if nothing does."""
    if on_fail == "raw":
        return as_answer(text)
    if on_fail != "repair" or model is None:
        return ""
    language = language_of(text)
    room = answer_room(generate, model, _REPAIR_TOKENS)
    prompt = language.prompt("repair")
    filled = prompt.fill(text=text, instruction=instruction, output=output, finding=language.finding(reason))
    completion = await generate(model, filled, max_new_tokens=room, on_length="keep", on_empty="keep")
    whole = completion.finish_reason == "stop" and not leak(completion.text, prompt)
    return completion.text.strip() if whole else ""


def about_answer(instruction: str, output: str, text: str) -> Finding | None:
    """What is wrong with the answer by its words alone."""
    departs = departures(output, text, instruction, _LEAST_OF_CLAUSE)
    checks = (
        ("needs_context", answer_needs_text(output) or speaks_as_author(output, instruction)),
        ("invented", invented(output, text, instruction)),
        ("contradicts", turned_negation(output, text) or departs["contradicts"]),
        ("unsupported", departs["unsupported"]),
        ("repeats", said_twice(output, text)),
        ("has_gaps", gap(output) or departs["has_gaps"]),
        ("off_topic", "" if explains(output, instruction) else instruction),
        ("off_topic", asks_beyond(instruction, output)),
    )
    return next(((reason, words) for reason, words in checks if words), None)


def measures(instruction: str, output: str, text: str) -> Measured:
    """The columns that the stage adds, before a model was asked."""
    return {
        "support": round(support(output, text, instruction), 4),
        "novelty": round(novelty(output, instruction), 4),
        "coverage": round(coverage(output, text), 4),
        "pair_score": None,
        **dict.fromkeys(REASONS),
        "gain": None,
        **substance(output, text),
    }


def _too_low(measured: Measured, instruction: str, *least: float) -> Finding | None:
    """The first measure below its limit, in the order support, novelty, coverage."""
    reasons = ("unsupported", "says_nothing", "loses_text")
    for reason, (name, value), limit in zip(reasons, measured.items(), least, strict=False):
        if name == "novelty" and has_material(instruction):
            continue
        if value is not None and value < limit:
            return reason, value
    return None


stage = RowStage(
    name="verify",
    run=run,
    version="4",
    adds=dict.fromkeys(("support", "novelty", "coverage", "pair_score", *REASONS, "gain"), "double") | ADDS,
    quantities={
        "support": Quantity(title="share of the answer that text or question has", least="least_support"),
        "novelty": Quantity(title="share of the answer that the question has not", least="least_novelty"),
        "coverage": Quantity(title="share of the text that the answer keeps", least="least_coverage"),
        "pair_score": Quantity(title="score of the pair", better="higher", least="threshold"),
        "alone": Quantity(title="the instruction is understood by itself", least="least_alone"),
        "answered": Quantity(title="the answer answers it", least="least_answered"),
        "backed": Quantity(title="the text backs the answer's worst sentence", least="least_backed"),
        "gain": Quantity(title="what the question helps to expect the answer", least="least_gain", most="most_gain"),
        **QUANTITIES,
    },
)
