"""A model that answers from a script, behind the real serving layer: retries, the journal and the rules for truncated
and empty answers are those of a run."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from kun_builder.models.generator import Generator, open_models
from kun_builder.models.journal.journal import Journal
from kun_builder.recipe.registry import Entry, Plugin
from kun_builder.run.rows import RowGenerate
from kun_builder.status import Status
from kun_builder.types import Completion, Endpoint, Engine, ModelInfo, ModelSpec, PromptText, Request, Token

Answer: TypeAlias = str | Completion | BaseException
"""What a model says, or the error that is raised instead: TransientError, RejectedError or FatalError."""

Answers: TypeAlias = Answer | Sequence[Answer] | Callable[[Request], Answer]
"""One answer for every request, a list of answers that are used in turn, or a function of the request."""


class Script:
    """An endpoint that answers from a script. `requests` are those that it got, in order. A token is a character."""

    url = "script:"

    def __init__(self, answers: Answers, delay: float, info: ModelInfo) -> None:
        self.requests: list[Request] = []
        self._answers, self._delay, self._info = answers, delay, info

    async def info(self) -> ModelInfo:
        """The `info` that the test has given."""
        return self._info

    async def healthy(self) -> bool:
        """Always True."""
        return True

    async def queued(self) -> int | None:
        """Always None."""
        return None

    async def complete(self, request: Request) -> Completion:
        """The next answer."""
        self.requests.append(request)
        await asyncio.sleep(self._delay)
        answer = self._answer(request)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Completion):
            return answer
        return Completion(answer, prompt_tokens=len(str(request.prompt)), completion_tokens=len(answer))

    async def count_tokens(self, text: str) -> int:
        """Number of characters of `text`, since a token is a character here."""
        return len(text)

    def _answer(self, request: Request) -> Answer:
        if callable(self._answers):
            return self._answers(request)
        if isinstance(self._answers, str | Completion | BaseException):
            return self._answers
        if len(self.requests) > len(self._answers):
            raise AssertionError(f"request {len(self.requests)} came, but there are {len(self._answers)} answers")
        return self._answers[len(self.requests) - 1]


@asynccontextmanager
async def scripted_models(
    names: Iterable[str], answers: Answers, *, delay: float = 0.0, info: ModelInfo | None = None
) -> AsyncIterator[tuple[Generator, Script]]:
    """A Generator whose models all answer from one script."""
    script = Script(answers, delay, info or ModelInfo("scripted", "1", context_length=8192))

    @asynccontextmanager
    async def connect(spec: ModelSpec) -> AsyncIterator[Sequence[Endpoint]]:
        yield [script]

    engines = {"script": Entry(Engine(name="script", connect=connect), Plugin("test", "test"))}
    specs = {name: ModelSpec(name=name, engine="script") for name in names}
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal.open(Path(folder))
        async with open_models(specs, engines, journal, Status()) as generator:
            yield generator, script


@dataclass(frozen=True)
class FakeGenerate:
    """`generate` as a stage gets it. `requests` are those that reached the model, so none that the journal answered."""

    requests: list[Request]
    _generate: RowGenerate

    async def __call__(self, model: str, prompt: PromptText, /, **parameters: Any) -> Completion:
        """Ask; see `kun_builder.Generate`."""
        return await self._generate(model, prompt, **parameters)

    def info(self, model: str) -> ModelInfo:
        """Who `model` is."""
        return self._generate.info(model)

    async def count_tokens(self, model: str, text: str) -> int:
        """Characters of `text`."""
        return await self._generate.count_tokens(model, text)


@asynccontextmanager
async def fake_generate(
    answers: Answers, *, models: Sequence[str] = ("chat",), delay: float = 0.0, info: ModelInfo | None = None
) -> AsyncIterator[FakeGenerate]:
    """`generate` for one row, with scripted answers, errors and delays (seconds), through the real serving layer.

    A token is a character. A list of answers is used up in order.

        async with fake_generate(["statement.", "question?"]) as generate:
            row = await run({"text": "..."}, generate)
    """
    async with scripted_models(models, answers, delay=delay, info=info) as (generator, script):
        yield FakeGenerate(script.requests, RowGenerate(generator, 0, [], {}))


def likely(words: Mapping[str, float]) -> Completion:
    """An answer of one token, the most probable of `words`, with all their probabilities."""
    top = sorted(((word, math.log(p)) for word, p in words.items()), key=lambda pair: -pair[1])
    tokens = (Token(*top[0], top=tuple(top)),)
    return Completion(top[0][0], prompt_tokens=1, completion_tokens=1, tokens=tokens)
