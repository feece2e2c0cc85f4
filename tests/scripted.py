"""A `generate` that answers from a script and remembers what it was asked. One character is one token."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kun_builder import Completion, Drop, ModelInfo
from kun_builder.types import Token

Answer = str | Completion | Exception | Callable[[Any], str]


@dataclass
class Scripted:
    """Gives `answers` in order, the last one for ever; `asked` holds (model, prompt, parameters)."""

    answers: Iterable[Answer]
    context_length: int = 4096
    prompt: str = "chat"
    logprobs: bool = True
    asked: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)
    counted: int = 0
    trained_for: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.answers = list(self.answers)

    async def __call__(self, model: str, prompt: Any, /, **parameters: Any) -> Completion:
        answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append((model, prompt, parameters))
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(prompt)
        return answer if isinstance(answer, Completion) else Completion(answer, completion_tokens=len(answer))

    def info(self, model: str) -> ModelInfo:
        return ModelInfo(
            model,
            context_length=self.context_length,
            prompt=self.prompt,
            logprobs=self.logprobs,
            trained_for=self.trained_for,
        )

    async def count_tokens(self, model: str, text: str) -> int:
        self.counted += 1
        return len(text)


def row(text: str = "", **columns: Any) -> dict[str, Any]:
    return {"id": "s/f.jsonl:0", "split": "s", "file": "f.jsonl", "position": 0, "text": text, **columns}


def verdict(drop: Drop) -> tuple[str, str]:
    return drop.reason, drop.value


def judged(good: float) -> Completion:
    """A completion whose first token is 好 with the probability `good`, 差 with the rest."""
    top = (("好", math.log(good)), ("差", math.log(1 - good)))
    return Completion("好", tokens=(Token("好", top[0][1], top),))
