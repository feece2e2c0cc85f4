"""Stage `follow_up`: a model asks on about the same text and answers, so that a pair becomes a conversation."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from kun_builder import Drop, Generate, ModelName, Prompt, Quantity, Row, RowStage

from .filters import FILTERS
from .fitting import answer_room, fit
from .form import defect, leak, tidy
from .languages import ZH, chosen
from .pairs import coverage, invented, novelty, support

ASK = ZH.prompts["follow_up_ask"]
ANSWER = ZH.prompts["follow_up_answer"]

_QUESTION = 128
"""Tokens of a question."""
_NEW = 0.3
"""Share of a question, and of an answer, that the conversation so far has not said, at least."""
_SAID_ALL = 0.9
"""Share of the text's grams from which on a conversation has said what there is: a model that is asked for more repeats
or invents, where it should say that nothing is left."""
_LABEL = re.compile(r"^(?:新?问题?|question|q)\s*[:：]\s*", re.IGNORECASE)
_NOTHING = frozenset({"没有", "无", "none"})


async def run(
    row: Row,
    generate: Generate,
    *,
    model: ModelName = "chat",
    ask: Prompt = ASK,
    answer: Prompt = ANSWER,
    turns: Annotated[int, Field(ge=1, le=10)] = 1,
    least: Annotated[int, Field(ge=0)] = 0,
    least_support: Annotated[float, Field(ge=0, le=1)] = 0.8,
    max_new_tokens: Annotated[int, Field(gt=0)] = 512,
) -> Row:
    """Add `turns`, up to so many further questions about `text`, each followed by its answer, and `further_turns`, how
    many there are.

    The pair has to leave something to ask. By default `polish` keeps all that the text says, and no model is asked
    about a row whose conversation has said that already: use `polish: {whole: false}`, whose answers keep to the
    question.

    The conversation begins with `instruction` and `output`, and ends early where the model has nothing more to ask, or
    asks or answers badly: a question that needs the text or repeats another, an answer that is cut off, is not backed
    by the text (`least_support` of its words), names what the text does not, or says nothing new. `kun-build export`
    writes the turns as messages.

    Raises:
        Drop: `no_follow_up`, if there are fewer than `least` of them; as `polish`, if the text does not fit.
    """
    said = [row["instruction"], row["output"]]
    for _ in range(turns):
        if coverage("\n".join(said), row["text"]) >= _SAID_ALL:
            break
        found = await _turn(row["text"], said, generate, model, (ask, answer), least_support, max_new_tokens)
        if not found:
            break
        said += found
    further = said[2:]
    if len(further) < 2 * least:
        raise Drop("no_follow_up", len(further) // 2, turns=further)
    return {**row, "turns": further, "further_turns": len(further) // 2}


async def _turn(
    text: str,
    said: list[str],
    generate: Generate,
    model: str,
    prompts: tuple[Prompt, Prompt],
    least_support: float,
    max_new_tokens: int,
) -> list[str]:
    """The next question and its answer; nothing, where there is none that is good enough."""
    ask = chosen(prompts[0], "follow_up_ask", text)
    answer = chosen(prompts[1], "follow_up_answer", text)
    dialogue = "\n".join(said)
    asked, _ = await _say(generate, model, ask, text, _QUESTION, dialogue=dialogue)
    question = _LABEL.sub("", tidy(asked))
    if question.strip("。. ").lower() in _NOTHING or not _asks_on(question, text, said, ask):
        return []
    room = answer_room(generate, model, max_new_tokens)
    output, whole = await _say(generate, model, answer, text, room, dialogue=dialogue, instruction=question)
    backed = support(output, text, question) >= least_support and not invented(output, text, *said, question)
    new = novelty(output, dialogue + question) >= _NEW
    clean = not leak(output, answer) and not _found("output", question, output)
    return [question, output] if output and whole and backed and new and clean else []


def _asks_on(question: str, text: str, said: list[str], prompt: Prompt) -> bool:
    """Whether it is a question that stands without the text, and was not asked yet."""
    again = any(support(question, earlier) > 1 - _NEW for earlier in said[::2])
    return not (again or defect(question, text, prompt, 1) or _found("instruction", question))


def _found(column: str, question: str, output: str = "") -> bool:
    """Whether `refine` would drop the pair for one of its `column`'s defects."""
    return any(check.find(question, output) for check in FILTERS if check.column == column)


async def _say(generate: Generate, model: str, prompt: Prompt, text: str, room: int, **slots: str) -> tuple[str, bool]:
    """What the model says, and whether it is whole."""
    text = await fit(generate, model, prompt, text, room, **slots)
    found = await generate(
        model, prompt.fill(text=text, **slots), max_new_tokens=room, on_length="keep", on_empty="keep"
    )
    return found.text.strip(), found.finish_reason != "length"


stage = RowStage(
    name="follow_up",
    run=run,
    adds={"turns": "list<string>", "further_turns": "int64"},
    quantities={"further_turns": Quantity(title="further questions and answers of a row")},
    version="2",
)
