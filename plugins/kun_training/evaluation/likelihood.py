"""How likely a model finds a completion: log-probabilities in nats, the prompt given."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kun_training.examples import Encoded


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Log-probability of one completion without its end token, over `tokens`; `end` is that of the end token."""

    logprob: float
    tokens: int
    end: float


@dataclass(frozen=True, slots=True)
class Margin:
    """Mean paired difference with the bounds of its 95 % interval, and the share of pairs that gained."""

    mean: float
    low: float
    high: float
    improved: float


def likelihoods(model: Any, encoded: Sequence[Encoded], *, pad: int, batch_size: int = 8) -> list[Likelihood]:
    """The likelihood of each completion, in the order of `encoded`. `pad` is any token id.

    Prompts are padded on the left, so that only the logits of the completions are made: with a large vocabulary the
    others would take gigabytes.
    """
    order = sorted(range(len(encoded)), key=lambda at: len(encoded[at].prompt) + len(encoded[at].completion))
    found: dict[int, Likelihood] = {}
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        results = _batch(model, [encoded[number] for number in numbers], pad)
        found.update(zip(numbers, results, strict=True))
    return [found[number] for number in range(len(encoded))]


def _batch(model: Any, batch: Sequence[Encoded], pad: int) -> list[Likelihood]:
    import torch

    rows = [tokens.prompt + tokens.completion for tokens in batch]
    width, keep = max(map(len, rows)), max(len(tokens.completion) for tokens in batch)
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=keep + 1).logits
        logprobs = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, -keep:, None])[..., 0]
    results = []
    for row, tokens in zip(logprobs.tolist(), batch, strict=True):
        *said, end = row[-len(tokens.completion) :]
        results.append(Likelihood(sum(said), len(said), end))
    return results


def per_token(found: Sequence[Likelihood]) -> float:
    """Mean log-probability per token over all completions, in nats."""
    return sum(item.logprob for item in found) / max(1, sum(item.tokens for item in found))


def margin(before: Sequence[Likelihood], after: Sequence[Likelihood], *, seed: int = 0) -> Margin:
    """How much likelier, in nats per token of each pair, the completions are `after` than `before`.

    The interval is a bootstrap over pairs, 2,000 times.
    """
    import numpy as np

    gains = np.array([(a.logprob - b.logprob) / max(1, b.tokens) for b, a in zip(before, after, strict=True)])
    draws = np.random.default_rng(seed).integers(0, len(gains), (2000, len(gains)))
    low, high = np.quantile(gains[draws].mean(axis=1), [0.025, 0.975])
    return Margin(float(gains.mean()), float(low), float(high), float((gains > 0).mean()))


def sample(numbers: int, count: int, seed: int = 0) -> list[int]:
    """`count` of the first `numbers` integers, drawn without order being changed."""
    chosen = random.Random(seed).sample(range(numbers), min(count, numbers))
    return sorted(chosen)
