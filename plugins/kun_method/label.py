"""Stage `label`: the instruction that a text answers, written by a model that reads the text (back-translation).

Kun (arXiv 2401.06477) fine-tunes a base model for this on inverted pairs; a chat model that is asked for it also works.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import Field

from kun_builder import Completion, Drop, Generate, ModelName, Prompt, Row, RowStage

from .fitting import answer_room, fit
from .form import Defect, defect, tidy

PROMPTS = Path(__file__).parent / "prompts"
CHAT = Prompt.load(PROMPTS / "label_chat.txt")
COMPLETION = Prompt.load(PROMPTS / "label_completion.txt")


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
) -> Row:
    """Add `instruction`, written by `model` for the row's `text`.

    A model of the recipe with `prompt: completion` (a trained label model) is asked with `completion_prompt`, any other
    with `chat_prompt`. A text beyond the context is read up to the last sentence end that fits. An answer that is no
    instruction is asked for again, with another seed, up to `attempts` times in all; seeds follow from the row's id.

    Raises:
        Drop: with the last answer as `instruction`: `empty`, `truncated`, `too_short`, `wrong_language`, `prompt_leak`,
            `several_requests`, `copies_text`, `not_a_request`; or `text_too_long` if not one sentence fits.
    """
    prompt = completion_prompt if generate.info(model).prompt == "completion" else chat_prompt
    room = answer_room(generate, model, max_new_tokens)
    filled = prompt.fill(text=await fit(generate, model, prompt, row["text"], room))
    found: Defect = ("empty", None)
    instruction = ""
    for attempt in range(attempts):
        completion = await generate(
            model,
            filled,
            max_new_tokens=room,
            temperature=temperature,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            seed=_seed(row["id"], attempt),
            on_length="keep",
            on_empty="keep",
        )
        instruction = tidy(completion.text)
        fault = _fault(completion, instruction, row["text"], prompt)
        if fault is None:
            return {**row, "instruction": instruction}
        found = fault
        if temperature == 0:  # the same question would get the same answer
            break
    raise Drop(*found, instruction=instruction)


def _fault(completion: Completion, instruction: str, text: str, prompt: Prompt) -> Defect | None:
    if not instruction:
        return "empty", None
    if completion.finish_reason == "length":
        return "truncated", completion.completion_tokens
    return defect(instruction, text, prompt)


def _seed(row_id: str, attempt: int) -> int:
    """31 bits that depend on nothing but the row and the attempt."""
    digest = hashlib.sha256(f"{row_id}\n{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


stage = RowStage(name="label", run=run, adds={"instruction": "string"})
