"""A small registry of plugins, and recipes that name them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import pytest
from annotated_types import Ge
from kun_method import presets
from kun_training.section import kun_sections

from kun_builder import ModelName, Prompt, TokenizerName
from kun_builder.errors import RecipeError
from kun_builder.recipe.options import merge, options_of
from kun_builder.recipe.registry import Entry, Plugin, Registry

ASK = Prompt("Ask: {text}")


async def label(
    row, generate, *, model: ModelName = "labeler", prompt: Prompt = ASK, n: int = 3, candidates: int = 1
): ...  # fmt: skip


async def judge(row, generate, *, model: ModelName = "chat", other: ModelName | None = None, threshold: float = 0): ...


async def verify(row, generate, *, model: ModelName = "chat", least_coverage: float = 0, least_answered: float = 0): ...


async def refine(row, generate, *, columns: tuple[str, ...] = ("output",), strength: float = 1): ...


def length(
    table, *, max_tokens: Annotated[int, Ge(1)] = 512, by: Literal["tokens", "characters"] = "tokens",
    tokenizer: TokenizerName = "auto", bounds: tuple[float, float] | None = None,
): ...  # fmt: skip


def plain(table): ...


def strict(table, *, threshold: float): ...


def parse(data, *, field: str = "text", encoding: str | None = None): ...


def connect(spec, *, threads: int = 0, slots: dict[str, int] | None = None): ...


OWNER = Plugin("kun-test", "kun-tests", "1.0", path=Path(__file__))


def entry(function, *positional):
    return Entry(SimpleNamespace(version="1"), OWNER, merge([options_of(function, positional)]))


REGISTRY = Registry(
    sources={"generic": entry(parse, "data"), "wudao": entry(parse, "data")},
    stages={
        **{name: entry(plain, "table") for name in ("normalize", "language", "perplexity", "dedup")},
        "length": entry(length, "table"),
        "strict": entry(strict, "table"),
        "label": entry(label, "row", "generate"),
        "refine": entry(refine, "row", "generate"),
        **{name: entry(judge, "row", "generate") for name in ("score", "polish")},
        "verify": entry(verify, "row", "generate"),
    },
    engines={name: entry(connect, "spec") for name in ("llamacpp", "openai", "tgi")},
    sections={"training": Entry(kun_sections()[0], OWNER)},
    presets={one.name: Entry(one, OWNER) for one in (presets.VERIFIED, presets.KUN)},
)


SMALL = "models: {chat: {}}\nsplits:\n  wiki: {source: generic, path: wiki.jsonl}\n"


def complaints(recipe, text, **options):
    """What is wrong with a recipe: (line, message)."""
    with pytest.raises(RecipeError) as caught:
        recipe(text, **options)
    found = []
    for line in caught.value.message.splitlines():
        prefix = f"{recipe.folder / 'news.yaml'}:"
        assert line.startswith(prefix)
        number, _, what = line.removeprefix(prefix).partition(": ")
        found.append((int(number), what))
    return found
