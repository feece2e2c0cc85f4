"""Questions to a model about one side of a pair each, for those that the stage `verify` has found good as a whole.

`alone`: can the instruction be understood without the text? `answered`: does the answer answer it, the text aside?
`backed`: does the text back a sentence of the answer? This is asked sentence by sentence, and the worst one counts.
Every question is one forced token and its log-probability, as in `verdict`; its words are those of the text's language.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Literal, TypeAlias

from kun_builder import Generate

from .languages import language_of
from .texts import sentences
from .verdict import verdict

Doubt: TypeAlias = Literal["alone", "answered", "backed"]

REASONS: Mapping[Doubt, str] = {"alone": "needs_context", "answered": "off_topic", "backed": "unsupported"}
"""Why a pair is dropped whose answer to the question is too low."""

_MOST_SENTENCES = 12
"""Sentences of an answer that are judged; the rest of a longer one is taken for what these are."""


async def asked(
    generate: Generate, model: str, least: Mapping[Doubt, float], instruction: str, output: str, text: str
) -> AsyncIterator[tuple[Doubt, float, str]]:
    """Each question whose least probability is above 0, with its probability of good in 0..1 and what was judged.

    A judgement that cannot be read counts as 0. A caller that stops at the first that is too low saves the others.
    """
    values = {"instruction": instruction, "output": output, "text": text}
    judged: dict[Doubt, list[str]] = {"alone": [instruction], "answered": [output], "backed": sentences(output)}
    for doubt, limit in least.items():
        if not limit:
            continue
        worst, words = 1.0, ""
        for part in judged[doubt][:_MOST_SENTENCES]:
            found = await _asked(generate, model, doubt, **values, sentence=part)
            if found < worst or not words:
                worst, words = found, part
            if worst < limit:
                break
        yield doubt, worst, words


async def _asked(generate: Generate, model: str, doubt: Doubt, *, text: str, **values: str) -> float:
    language = language_of(text)
    prompt = language.prompt(doubt)
    slots = {name: value for name, value in (values | {"text": text}).items() if name in prompt.slots}
    filled = prompt.fill(**slots, good=language.good, bad=language.bad)
    return (await verdict(generate, model, filled, language.good, language.bad))[0] or 0.0
