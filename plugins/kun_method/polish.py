"""Stage `polish`: the text, rewritten by a chat model so that it answers the instruction."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from kun_builder import Drop, Generate, ModelName, Prompt, Row, RowStage

from .fitting import answer_room, fit
from .form import leak
from .languages import ZH, chosen
from .scripts import in_script_of
from .texts import closed_gaps

PROMPT = ZH.prompts["polish"]
KUN = ZH.prompts["polish_kun"]

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
    whole: bool = True,
) -> Row:
    """Add `output`, the answer to `instruction` made of `text`, and `raw_answer`, the text as the model was given it.

    Instruction, text and answer share the model's context: the text is cut at a sentence end, the instruction never. Of
    a context too small for `max_new_tokens` the answer gets half. The default prompt keeps what the text says;
    `whole: false` asks for an answer to the question and no more, as Kun does. A model that was trained to polish is
    asked with `prompt` as it stands, in which it was trained. A Chinese answer is put into the script of its text,
    and rid of brackets that have nothing in them but commas.

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
    text = await fit(generate, model, prompt, row["text"], room, instruction=instruction)
    completion = await generate(
        model,
        prompt.fill(instruction=instruction, text=text),
        max_new_tokens=room,
        temperature=temperature,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        on_length="keep",
        on_empty="keep",
    )
    output = closed_gaps(in_script_of(text, _LABEL.sub("", completion.text.strip()).strip()))
    if not output:
        raise Drop("empty", completion.finish_reason, raw_answer=text)
    if completion.finish_reason == "length":
        raise Drop("truncated", completion.completion_tokens, raw_answer=text, output=output)
    if leaked := leak(output, prompt):
        raise Drop("prompt_leak", leaked, raw_answer=text, output=output)
    return {**row, "output": output, "raw_answer": text}


stage = RowStage(name="polish", run=run, adds={"output": "string", "raw_answer": "string"})
