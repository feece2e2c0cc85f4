"""Stage `label`: the instruction that a text answers, written by a model that reads the text (back-translation).

Kun (arXiv 2401.06477) fine-tunes a base model for this on inverted pairs; a chat model that is asked for it also works.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from kun_builder import Completion, Drop, FileName, Generate, ModelName, Prompt, Row, RowStage
from kun_builder.types import PromptText

from .asking import FORMS
from .aspects import asks_beyond
from .context import about_question
from .fitting import answer_room, fit, seed_of
from .form import Defect, defect, split_outline, topic_of
from .languages import ZH, Task, chosen, is_known
from .pairs import arrival, explains, reach, support
from .scripts import in_script_of
from .shots import nearest, with_examples
from .sides import answerable

CHAT = ZH.prompts["label"]
KUN = ZH.prompts["label_kun"]
COMPLETION = ZH.prompts["label_completion"]

_TOPIC_IN_TEXT = 0.1
"""Share of the grams of a topic that the text must have: a model that misreads a text names a topic of its own."""

_LATEST_TOPIC = 0.25
"""Share of a text that may stand before its topic comes: what is named later is not what the whole text is about."""

_WHOSE = re.compile("[的（(与與和]")
"""What stands before the first of these in a topic is what it is a side of (稻糠的用途), or the first of several."""

_ENOUGH = (True, 0.6)
"""The worth (see `_Candidate`) from which on no further candidate is asked for: half of 112 were so good, and a second
one would have been better than 4 of these 56, by a quarter of the sentences at most."""


async def run(
    row: Row,
    generate: Generate,
    *,
    model: ModelName = "chat",
    chat_prompt: Prompt = CHAT,
    completion_prompt: Prompt = COMPLETION,
    temperature: Annotated[float, Field(ge=0)] = 0.5,
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95,
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0,
    max_new_tokens: Annotated[int, Field(gt=0)] = 256,
    attempts: Annotated[int, Field(ge=1)] = 2,
    candidates: Annotated[int, Field(ge=1)] = 1,
    outline: bool = True,
    examples: FileName = "",
    shots: Annotated[int, Field(ge=1, le=16)] = 3,
) -> Row:
    """Add `instruction`, written by `model` for the row's `text`, in the text's script where that is Chinese.

    A model of the recipe with `prompt: completion` (a trained label model) is asked with `completion_prompt`, any other
    with `chat_prompt`; the default prompts are those of the text's language. The default `chat_prompt` has the model
    name the topic and its sides first, and the instruction last: what stands behind a line's 问题： or Question: is
    taken, else the whole answer. Sides that the instruction lists and the text says nothing of are taken out of it (see
    `sides`). `outline: false` asks for nothing but the instruction, as Kun does. A text beyond the
    context is read up to the last sentence end that fits.

    `examples` is a JSON Lines file of pairs by people (`instruction`, `output`): the `shots` whose answers are most
    like the text are shown to a chat model before it, as answer and instruction, if they are in its language. They take
    the place of the default prompt's own examples.

    Up to `candidates` instructions are asked for, of one prompt, until one can be understood without the text and
    touches three in five of its sentences; else the one goes on that comes nearest to that. While none is sound, more
    are asked for, up to `attempts` times as many in all; seeds follow from the row's id.

    Raises:
        Drop: with the last answer as `instruction`: `empty`, `truncated`, `too_short`, `wrong_language`, `prompt_leak`,
            `several_requests`, `copies_text`, `not_a_request`, `off_text`; without asking, `text_too_long` if not one
            sentence fits, and `no_prompts` if the stage `language` has found one that there are no prompts for (a
            plugin adds them) and no other prompt is given.
    """
    info = generate.info(model)
    trained = "label" in info.trained_for
    near = nearest(examples, row["text"], shots) if examples else []
    task: Task = "label"
    prompt = chat_prompt
    if info.prompt == "completion":
        prompt, task = completion_prompt, "label_completion"
    elif not trained and chat_prompt == CHAT and (near or not outline):
        prompt, task = KUN, "label_kun"
    if not trained and prompt == ZH.prompts[task] and not is_known(code := row.get("language") or ""):
        raise Drop("no_prompts", code)
    prompt = chosen(prompt, task, row["text"], trained=trained)
    room = answer_room(generate, model, max_new_tokens)
    filled: PromptText = prompt.fill(text=await fit(generate, model, prompt, row["text"], room))
    filled = with_examples(filled, _turns(prompt, near))

    async def ask(attempt: int) -> Completion:
        return await generate(
            model,
            filled,
            max_new_tokens=room,
            temperature=temperature,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            seed=seed_of(row["id"], attempt),
            on_length="keep",
            on_empty="keep",
        )

    if temperature == 0:  # the same question would get the same answer
        attempts = candidates = 1
    best = _Candidate("", ("empty", None))
    for number in range(attempts * candidates):  # one after another: each reads the prompt that the first has paid for
        found = _candidate(await ask(number), row["text"], prompt)
        best = max(best, found, key=lambda candidate: candidate.worth)
        if best.fault is None and (best.worth >= _ENOUGH or number + 1 >= candidates):
            return {**row, "instruction": best.instruction}
    raise Drop(*(found.fault or ("empty", None)), instruction=found.instruction)


def _turns(prompt: Prompt, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Seeds as turns: the answer in the prompt's own last message, and the instruction."""
    shown = ((prompt.fill(text=answer), instruction) for instruction, answer in pairs)
    return [(filled[-1]["content"], said) for filled, said in shown if not isinstance(filled, str)]


class _Candidate(NamedTuple):
    instruction: str
    fault: Defect | None
    worth: tuple[bool, float] = (False, -1.0)
    """Whether it can be understood without the text, and the share of the text's sentences that the answer touches,
    outline included; less than that of any sound one where there is a fault."""


def _candidate(completion: Completion, text: str, prompt: Prompt) -> _Candidate:
    outline, said = (in_script_of(text, part) for part in split_outline(completion.text))
    instruction = answerable(said, text)
    if fault := _fault(completion, instruction, text, prompt, 3 if outline else 2):
        return _Candidate(instruction, fault)
    if (topic := topic_of(outline)) and _is_elsewhere(topic, text):
        return _Candidate(instruction, ("off_text", topic))
    if beyond := asks_beyond(instruction, text) or ("" if explains(text, instruction) else instruction):
        return _Candidate(instruction, ("off_text", beyond))
    stands_alone = about_question(instruction) is None
    return _Candidate(instruction, None, (stands_alone, reach(f"{outline}\n{instruction}", text)))


def _is_elsewhere(topic: str, text: str) -> bool:
    """Whether the text says nothing of the topic, or comes late to it and to whose side it is."""
    places = [arrival(words, text) for words in (topic, _WHOSE.split(topic)[0]) if words]
    named = min((place for place in places if place is not None), default=0.0)
    return support(topic, text) < _TOPIC_IN_TEXT or named > _LATEST_TOPIC


def _fault(completion: Completion, instruction: str, text: str, prompt: Prompt, questions: int) -> Defect | None:
    if not instruction:
        return "empty", None
    if completion.finish_reason == "length":
        return "truncated", completion.completion_tokens
    return defect(instruction, text, prompt, questions)


stage = RowStage(name="label", run=run, adds={"instruction": "string"}, forms=FORMS, version="5")
