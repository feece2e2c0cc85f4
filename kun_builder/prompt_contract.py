"""The prompt contract: a trained model is asked in the words that it was trained with, or not at all.

Training writes `kun_prompt.json` into the model's folder: the style of its prompts and, for each stage that the model
was trained for, the full text of the stage's prompt. Before a run, the recipe's prompts are compared with it.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

from kun_builder.errors import TrainingError
from kun_builder.prompts import Prompt
from kun_builder.types import ModelSpec, Stage

CONTRACT_FILE = "kun_prompt.json"

_HUB_TIMEOUT = 5.0
"""Seconds that the Hub has to answer."""

_CURE = "use the prompt the model was trained with, or train it again with this one"


class Asking(Protocol):
    """What this module needs to know of a step of a plan."""

    @property
    def stage(self) -> Stage: ...
    @property
    def models(self) -> Sequence[str]: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class PromptContract:
    """What a model was trained to be asked.

    prompts: for each stage, by the names of its options, the texts of prompts or the words put into them.
    """

    style: Literal["chat", "completion"]
    prompts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def check(self, model: str, stage: str, options: Mapping[str, Any]) -> None:
        """Raise TrainingError, with the difference, if `stage` would ask `model` with another prompt.

        `options` are the stage's complete options; prompts in them are `Prompt`.
        """
        for option, trained in self.prompts.get(stage, {}).items():
            value = options.get(option)
            used = value.text if isinstance(value, Prompt) else value
            if isinstance(used, str) and used.strip() != trained.strip():
                raise TrainingError(
                    f"model `{model}` was trained with another prompt than the one stage `{stage}` has in `{option}`:\n"
                    + _difference(trained, used),
                    hint=_CURE,
                )

    def write(self, folder: Path) -> None:
        """Write the contract as `kun_prompt.json` into a model's folder."""
        data = {"style": self.style, "prompts": self.prompts}
        (folder / CONTRACT_FILE).write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2))


def check_contracts(steps: Iterable[Asking], models: Mapping[str, ModelSpec]) -> None:
    """Raise TrainingError if a step would ask a trained model in other words, or in another style, than it learnt.

    The engines that serve a trained folder themselves ask it in its own style; for a server the recipe must say so.
    """
    found = {name: read_contract(spec.model, spec.revision) for name, spec in models.items()}
    for step in steps:
        for name in step.models:
            contract = found.get(name)
            if contract is None or step.stage.name not in contract.prompts:
                continue
            contract.check(name, step.stage.name, step.options)
            if models[name].endpoints and models[name].prompt != contract.style:
                raise TrainingError(
                    f"model `{name}` was trained with {contract.style} prompts, and the recipe asks it otherwise",
                    hint=f"add `prompt: {contract.style}` to the model `{name}`",
                )


def read_contract(model: str, revision: str = "") -> PromptContract | None:
    """The contract of a model folder or of a Hub repository; None where there is none or the Hub cannot be asked.

    It is read once until its file changes: what a run has checked first is what its models are asked by. Raises
    TrainingError for a file that is no contract.
    """
    if not model:
        return None
    path = Path(os.path.expanduser(model)) / CONTRACT_FILE
    if path.is_file():
        return _from_file(model, path, path.stat().st_mtime_ns)
    content = None if path.parent.exists() else _from_hub(model, revision)
    return None if content is None else _parsed(model, content)


@functools.lru_cache(maxsize=32)
def _from_file(model: str, path: Path, changed: int) -> PromptContract:
    """The contract in a file that was last changed at `changed`."""
    return _parsed(model, path.read_bytes())


def _parsed(model: str, content: bytes) -> PromptContract:
    try:
        data = orjson.loads(content)
        prompts = {str(stage): dict(options) for stage, options in data["prompts"].items()}
        return PromptContract("completion" if data["style"] == "completion" else "chat", prompts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{CONTRACT_FILE} of model {model} is not a prompt contract: {error}"
        raise TrainingError(message, hint="train the model again") from error


@functools.cache
def _from_hub(model: str, revision: str) -> bytes | None:
    """`kun_prompt.json` of a Hub repository, if `model` looks like one; asked once, within a few seconds.

    Most models have none, and a run must not depend on the Hub being reachable.
    """
    if model.count("/") != 1 or model.startswith((".", "/", "~")) or model.endswith(".gguf"):
        return None
    import httpx2
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined] # lazily exported

    try:
        url = hf_hub_url(model, CONTRACT_FILE, revision=revision or None)
        answer = get_session().get(url, headers=build_hf_headers(), timeout=_HUB_TIMEOUT, follow_redirects=True)
    except (httpx2.HTTPError, HFValidationError, OfflineModeIsEnabled):
        return None
    return answer.content if answer.status_code == 200 else None


def _difference(trained: str, used: str) -> str:
    lines = difflib.unified_diff(
        trained.strip().splitlines(), used.strip().splitlines(), "trained with", "recipe", lineterm="", n=1
    )
    return "\n".join(lines)
