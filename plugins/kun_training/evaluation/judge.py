"""A model as judge: one choice out of a few, in one token, by its log-probabilities where a server gives them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

from kun_builder.prompts import Prompt
from kun_builder.types import Completion, Generate, PromptText

_ALTERNATIVES = 5
"""Most log-probabilities per token that every server gives (TGI's default limit)."""
_LEAD = re.compile(r"^[\s▁Ġ【\[（(“「\"'*]+")
_HAN = re.compile(r"[\u4e00-\u9fff]")


def prompt_for(name: str, sample: str) -> Prompt:
    """The judge's prompt `name` in the language of `sample`: Chinese if it has a Chinese character, else English."""
    language = "zh" if _HAN.search(sample) else "en"
    text = (files("kun_training.evaluation") / "prompts" / f"{name}.{language}.txt").read_text(encoding="utf-8")
    return Prompt(text.strip() + "\n", f"{name}.{language}")


async def choose(generate: Generate, model: str, prompt: PromptText, choices: Sequence[str]) -> dict[str, float] | None:
    """How probable `model` finds each of `choices` as its answer, in all 1; None if it answered none of them.

    Without log-probabilities, the choice that was answered has 1.
    """
    if generate.info(model).logprobs:
        asked = await generate(
            model, prompt, max_new_tokens=1, top_logprobs=_ALTERNATIVES, on_length="keep", on_empty="keep"
        )
        if (found := shares(asked, choices)) is not None:
            return found
    answer = await generate(model, prompt, max_new_tokens=8, choices=tuple(choices), on_length="keep", on_empty="keep")
    said = said_choice(answer.text, choices)
    return None if said is None else {choice: float(choice == said) for choice in choices}


def shares(completion: Completion, choices: Sequence[str]) -> dict[str, float] | None:
    """The probability of each choice at the first token, among the choices; None if none is among its alternatives."""
    if not completion.tokens:
        return None
    found = {
        choice: sum(math.exp(p) for text, p in completion.tokens[0].top if _LEAD.sub("", text).strip() == choice)
        for choice in choices
    }
    total = sum(found.values())
    return {choice: share / total for choice, share in found.items()} if total else None


def said_choice(answer: str, choices: Sequence[str]) -> str | None:
    """The one of `choices` that stands by itself in the answer; None if none or several do."""
    found = {c for c in choices if re.search(rf"(?<![A-Za-z0-9]){re.escape(c)}(?![A-Za-z0-9])", answer)}
    return found.pop() if len(found) == 1 else None


def best(found: Mapping[str, float]) -> str:
    """The most probable choice; of equal ones, the last: a tie, where it is one of them."""
    return max(reversed(list(found)), key=lambda choice: found[choice])
