"""Stage `polish`: the text, rewritten by a chat model so that it answers the instruction."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

from pydantic import Field

from kun_builder import Completion, Drop, Generate, ModelName, Prompt, Row, RowStage

from .fitting import answer_room, fit, seed_of
from .form import Defect, leak
from .gaps import closed_gaps
from .languages import ZH, chosen
from .pairs import coverage, departures, facts_kept, support, touched_up
from .raw import as_answer, finished, without_tail, without_title
from .scripts import in_script_of
from .substance import ADDS, QUANTITIES, substance
from .verify import about_answer

PROMPT = ZH.prompts["polish"]
KUN = ZH.prompts["polish_kun"]

_LIVELY = 0.7
"""The least temperature of a further candidate: a greedy one would be the first again."""

_LEAST_OF_CLAUSE = 0.6
"""Share of a clause's grams that text or question must have, or the text itself is the better answer."""

_LEAST_FACTS = 0.9
"""Share of the text's numbers and names that an answer in other words has to keep."""

_LABEL = re.compile(r"^(?:回答|答案|答|改写后的回答|改写|answer)\s*[:：]\s*", re.IGNORECASE)


async def run(
    row: Row,
    generate: Generate,
    *,
    model: ModelName = "chat",
    prompt: Prompt = PROMPT,
    temperature: Annotated[float, Field(ge=0)] = 0.0,
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0,
    max_new_tokens: Annotated[int, Field(gt=0)] = 1024,
    candidates: Annotated[int, Field(ge=1, le=16)] = 1,
    whole: bool = True,
    least_kept: Annotated[float, Field(ge=0, le=1)] = 0.8,
    touch_ups: bool = False,
) -> Row:
    """Add `output`, the answer to `instruction` made of `text`, `raw_answer`, the text as the model was given it, and
    `polished`, false where the output is that text itself; and, for the report, what the answer keeps of the text:
    `relative_length` and `facts_kept` (see `substance`).

    Instruction, text and answer share the model's context: the text is cut at a sentence end, the instruction never. Of
    a context too small for `max_new_tokens` the answer gets half. Unless `whole: false`, a last sentence
    of the text that breaks off is left out. The default prompt keeps what the text says;
    `whole: false` asks for an answer to the question and no more, as Kun does. A model that was trained to polish is
    asked with `prompt` as it stands, in which it was trained. A Chinese answer is put into the script of its text,
    and any is rid of brackets that have nothing in them but commas, of the heading of the text, and of headings
    and links at its end.

    The text itself takes the place of an answer that is faulty, keeps less than `least_kept` of it, loses more than a
    tenth of its numbers and names, puts another number into a clause or has one that it does not back, or copies it but
    for a clause or two, where the corpus allows its text to be passed on and the text reads as an answer (see `raw`): a
    small model loses and invents more than it mends. `touch_ups: true` trusts a model with the clause or two,
    `least_kept: 0` and `whole: false` let any answer stand.

    Of several `candidates` goes on the one about which the checks of `verify` that need no model find nothing, and
    among those the one that keeps most of the text and adds least. The first is asked at `temperature`, the others at
    0.7 or more, of the same prompt; seeds follow from the row's id.

    Raises:
        Drop: `empty`, `truncated` (an answer cut off at `max_new_tokens`), `prompt_leak`, `prompt_too_long` (the
            instruction leaves no room), `text_too_long` (not one sentence fits).
    """
    instruction = row["instruction"]
    trained = "polish" in generate.info(model).trained_for
    if prompt == PROMPT and not whole and not trained:
        prompt = chosen(KUN, "polish_kun", row["text"])
    prompt = chosen(prompt, "polish", row["text"], trained=trained)
    room = answer_room(generate, model, max_new_tokens)
    fitted = await fit(generate, model, prompt, row["text"], room, instruction=instruction)
    text = finished(fitted) if whole else fitted
    filled = prompt.fill(instruction=instruction, text=text)

    async def ask(number: int) -> Completion:
        further = {"seed": seed_of(row["id"], number)} if number else {}
        return await generate(
            model,
            filled,
            max_new_tokens=room,
            temperature=max(temperature, _LIVELY) if number else temperature,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            on_length="keep",
            on_empty="keep",
            **further,
        )

    completions = await asyncio.gather(*map(ask, range(candidates)))
    answers = [_read(completion, text, prompt) for completion in completions]
    output, fault = answers[0]
    if len(answers) > 1:
        output, fault = max(answers, key=lambda answer: _worth(*answer, instruction, text))
    guarded = row.get("redistributable", False) and whole and least_kept > 0
    worse = guarded and (fault or _worse(output, instruction, closed_gaps(text), least_kept, touch_ups))
    if worse and (instead := as_answer(text)):
        return {**row, "output": instead, "raw_answer": text, "polished": False, **substance(instead, text)}
    if fault:
        raise Drop(*fault, raw_answer=text, **({"output": output} if output else {}))
    return {**row, "output": output, "raw_answer": text, "polished": True, **substance(output, text)}


def _worse(output: str, instruction: str, text: str, least_kept: float, touch_ups: bool) -> bool:
    """Whether an answer leaves out, adds or alters so much that the text itself is the better one."""
    facts = facts_kept(output, text)
    return (
        coverage(output, text) < least_kept
        or (facts is not None and facts < _LEAST_FACTS)
        or any(departures(output, text, instruction, _LEAST_OF_CLAUSE).values())
        or (not touch_ups and touched_up(output, text, instruction) != "")
    )


def _read(completion: Completion, text: str, prompt: Prompt) -> tuple[str, Defect | None]:
    """The answer in a completion, and what is wrong with its form."""
    said = _LABEL.sub("", completion.text.strip()).strip()
    output = closed_gaps(in_script_of(text, without_title(without_tail(said), text)))
    if not output:
        return "", ("empty", completion.finish_reason)
    if completion.finish_reason == "length":
        return output, ("truncated", completion.completion_tokens)
    leaked = leak(output, prompt)
    return output, ("prompt_leak", leaked) if leaked else None


def _worth(output: str, fault: Defect | None, instruction: str, text: str) -> tuple[bool, bool, float]:
    """Sound in form, without a finding, and the share of the text kept times that of the answer backed by it."""
    found = about_answer(instruction, output, text)
    return not fault, not found, coverage(output, text) * support(output, text, instruction)


stage = RowStage(
    name="polish",
    run=run,
    adds={"output": "string", "raw_answer": "string", "polished": "bool", **ADDS},
    quantities=QUANTITIES,
    version="5",
)
