"""Completions from a model in this process, in batches: what an evaluation needs, and no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kun_builder.prompts import restore
from kun_builder.status import Status
from kun_training.examples import Encoded


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate; temperature 0 is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Sampling:
        """Those options of a stage that say how it generates."""
        return cls(**{name: options[name] for name in cls.__slots__ if isinstance(options.get(name), int | float)})


@dataclass(frozen=True, slots=True)
class Generated:
    """A completion; `ended` tells whether the model ended it itself."""

    text: str
    ended: bool


def generate(
    model: Any, tokenizer: Any, encoded: Sequence[Encoded], sampling: Sampling, *, status: Status, batch_size: int = 8
) -> list[Generated]:
    """Complete the prompts of `encoded`, in order; the same model and prompts give the same texts."""
    import torch

    settings: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        settings = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
    results: dict[int, Generated] = {}
    order = sorted(range(len(encoded)), key=lambda at: len(encoded[at].prompt))
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            texts = _batch(model, tokenizer, [encoded[at].prompt for at in numbers], sampling, settings)
            results.update(zip(numbers, texts, strict=True))
            status.done += len(numbers)
    return [results[at] for at in range(len(encoded))]


def _batch(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], sampling: Sampling, settings: Mapping[str, Any]
) -> list[Generated]:
    import torch

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=model.device)
    found = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=sampling.max_new_tokens,
        repetition_penalty=sampling.repetition_penalty,
        pad_token_id=pad,
        **settings,
    )[:, width:].tolist()
    ends = model.generation_config.eos_token_id
    stops = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    texts = tokenizer.batch_decode(found, skip_special_tokens=True)
    return [
        Generated(restore(text).strip(), any(token in stops for token in row))
        for text, row in zip(texts, found, strict=True)
    ]
