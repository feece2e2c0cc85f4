"""Which prompts a model is trained with: those of the stages it will serve, as the recipe or the plugins have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kun_builder.errors import TrainingError
from kun_builder.prompt_contract import PromptContract
from kun_builder.prompts import Prompt
from kun_builder.recipe.options import REQUIRED
from kun_training.examples import ANSWER, LABEL, POLISH, SCORE
from kun_training.presets import Task
from kun_training.seeds import Tag

if TYPE_CHECKING:
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Registry

_ROLE = re.compile(r"^\[(?:system|user|assistant)\][ \t]*$", re.MULTILINE)
_VERDICTS = ("good", "bad")

StageOptions = Mapping[str, Mapping[str, Any]]


def stage_options(registry: Registry, recipe: Recipe | None = None) -> StageOptions:
    """The options of the stages that trained models serve: the recipe's, and the defaults of stages not in it."""
    found = {
        name: {option.name: option.default for option in entry.options if option.default is not REQUIRED}
        for name, entry in registry.stages.items()
        if name in (LABEL, POLISH, SCORE)
    }
    for spec in recipe.stages if recipe else ():
        if spec.name in found:
            found[spec.name] = dict(spec.options)
    return found


def contract_for(task: Task, options: StageOptions, tags: Mapping[Tag, str] | None = None) -> PromptContract:
    """The contract of a model for `task`. Raises TrainingError if the label stage has no prompt to train with.

    tags: system messages of a chat model's answers, by what they were learnt from.
    """
    if task == "label":
        prompts = _prompts(options.get(LABEL, {}), chat=False)
        if not prompts:
            raise TrainingError(
                "there is no stage `label` with a completion prompt to train with",
                hint="the built-in plugin `kun-method` has one: do not disable it, or give its option in the recipe",
            )
        return PromptContract("completion", {LABEL: prompts})
    stages = {stage: _prompts(options.get(stage, {}), chat=True) for stage in (POLISH, SCORE)}
    found = {stage: prompts for stage, prompts in stages.items() if prompts}
    return PromptContract("chat", found | ({ANSWER: {str(tag): text for tag, text in tags.items()}} if tags else {}))


def verdicts_of(contract: PromptContract) -> tuple[str, str]:
    """The judge's words for good and bad."""
    words = contract.prompts.get(SCORE, {})
    return words.get("good", "好"), words.get("bad", "差")


def tags_of(contract: PromptContract) -> Mapping[str, str]:
    """System messages of answers, by tag; empty without tags."""
    return contract.prompts.get(ANSWER, {})


def prompts_of(contract: PromptContract) -> dict[str, Prompt]:
    """The prompts of a contract by stage."""
    return {
        stage: Prompt(text)
        for stage, options in contract.prompts.items()
        for option, text in options.items()
        if option not in _VERDICTS and stage != ANSWER
    }


def _prompts(options: Mapping[str, Any], *, chat: bool) -> dict[str, str]:
    """The first prompt of the wanted style, and the words that fill the judge's."""
    found = {
        name: value.text
        for name, value in options.items()
        if isinstance(value, Prompt) and bool(_ROLE.search(value.text)) == chat
    }
    first = dict(list(found.items())[:1])
    words = {name: value for name, value in options.items() if name in _VERDICTS and isinstance(value, str)}
    return first | words if first else {}
