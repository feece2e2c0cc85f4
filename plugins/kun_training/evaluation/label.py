"""Is the label model any good? Measured on held-out pairs: the human instruction's likelihood given its answer, and
what the instructions that the model writes itself look like beside the human ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kun_builder.errors import TrainingError
from kun_builder.prompt_contract import PromptContract
from kun_builder.status import Status
from kun_training.bases import load_model, load_tokenizer, quiet
from kun_training.contracts import prompts_of
from kun_training.evaluation import overlap
from kun_training.evaluation.generating import Generated, Sampling, generate
from kun_training.evaluation.likelihood import Likelihood, Margin, likelihoods, margin, per_token, sample
from kun_training.examples import LABEL, encode, label_examples
from kun_training.job import TRAINED_FILE, read_record
from kun_training.seeds import Pair, Refused, check_pairs, read_pairs


@dataclass(frozen=True)
class Fit:
    """Mean log-probability, in nats: of the human instruction per token, and of ending where the human ended."""

    per_token: float
    end: float


@dataclass(frozen=True)
class Traits:
    """What a set of instructions looks like; rates and distinct-n are between 0 and 1."""

    copied: float
    prompt_leaked: float
    wrong_language: float
    empty: float
    endless: float
    distinct_1: float
    distinct_2: float
    distinct_3: float
    characters: float
    """Mean length."""


@dataclass(frozen=True)
class Sample:
    """One pair with what the model wrote."""

    answer: str
    human: str
    generated: str


@dataclass(frozen=True)
class LabelReport:
    """The figures. `base` and `margin` are None without an untrained base to compare with."""

    model: str
    pairs: int
    trained_on: int
    """Pairs that were given but left out: the model was trained on them."""
    fit: Fit
    base: Fit | None
    margin: Margin | None
    chrf: float
    bigram_f1: float
    generated: Traits
    human: Traits
    gains: tuple[float, ...]
    """Per pair: log-probability per token, trained minus base."""
    samples: tuple[Sample, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def held_out_pairs(paths: Sequence[Path], model: str, *, limit: int, seed: int = 0) -> tuple[list[Pair], int]:
    """At most `limit` checked pairs that `model` was not trained on, and the number of those that it was.

    Raises TrainingError if none is left.
    """
    refused: list[Refused] = []
    pairs = list(check_pairs(read_pairs(paths, refused), refused, max_chars=8000))
    trained = Path(model).expanduser() / TRAINED_FILE
    seen = {pair.digest for pair in read_pairs([trained], [])} if trained.is_file() else set()
    fresh = [pair for pair in pairs if pair.digest not in seen]
    if not fresh:
        raise TrainingError(
            f"no pair to evaluate on: {len(pairs)} read, {len(refused)} refused, {len(pairs) - len(fresh)} trained on",
            hint=f"give pairs that were held out; {model} keeps its own in seeds/held_out.jsonl",
        )
    return [fresh[at] for at in sample(len(fresh), limit, seed)], len(pairs) - len(fresh)


def evaluate_label(
    model: str,
    pairs: Sequence[Pair],
    contract: PromptContract,
    sampling: Sampling,
    *,
    base: str | None = None,
    trained_on: int = 0,
    status: Status | None = None,
) -> LabelReport:
    """Measure `model` on `pairs`. `base`: what to compare with; by default what it was trained from, if known."""
    status = status or Status()
    quiet()
    prompt = prompts_of(contract)[LABEL]
    tokenizer = load_tokenizer(model)
    encoded = [encode(tokenizer, example) for example in label_examples(pairs, prompt)]
    status.begin("write instructions", len(pairs), "pairs")
    trained = load_model(model)
    after = likelihoods(trained, encoded, pad=tokenizer.eos_token_id)
    texts = generate(trained, tokenizer, encoded, sampling, status=status)
    del trained
    before = _base_likelihoods(model, base, pairs, contract)
    return LabelReport(
        model=model,
        pairs=len(pairs),
        trained_on=trained_on,
        fit=_fit(after),
        base=_fit(before) if before else None,
        margin=margin(before, after) if before else None,
        chrf=overlap.chrf([text.text for text in texts], [pair.instruction for pair in pairs]),
        bigram_f1=_mean([overlap.bigram_f1(t.text, p.instruction) for t, p in zip(texts, pairs, strict=True)]),
        generated=traits(texts, pairs, prompt.text),
        human=traits([Generated(pair.instruction, True) for pair in pairs], pairs, prompt.text),
        gains=tuple((a.logprob - b.logprob) / max(1, b.tokens) for b, a in zip(before, after, strict=bool(before))),
        samples=tuple(Sample(p.output, p.instruction, t.text) for p, t in zip(pairs, texts, strict=True)),
    )


def fit_of(model: str, pairs: Sequence[Pair], contract: PromptContract) -> Fit:
    """How likely `model` finds the human instructions of `pairs`."""
    quiet()
    return _fit(_likelihoods(model, "", pairs, contract))


def _base_likelihoods(
    model: str, base: str | None, pairs: Sequence[Pair], contract: PromptContract
) -> list[Likelihood]:
    """Likelihoods under the untrained base, in its own tokens; nothing where no base is known."""
    record = read_record(Path(model).expanduser())
    base, revision = base or (record.base if record else ""), record.revision if record else ""
    return _likelihoods(base, revision, pairs, contract) if base else []


def _likelihoods(model: str, revision: str, pairs: Sequence[Pair], contract: PromptContract) -> list[Likelihood]:
    tokenizer = load_tokenizer(model, revision)
    encoded = [encode(tokenizer, example) for example in label_examples(pairs, prompts_of(contract)[LABEL])]
    return likelihoods(load_model(model, revision), encoded, pad=tokenizer.eos_token_id)


def _fit(found: Sequence[Likelihood]) -> Fit:
    return Fit(per_token(found), _mean([item.end for item in found]))


def traits(texts: Sequence[Generated], pairs: Sequence[Pair], prompt: str) -> Traits:
    """Traits of instructions written for the answers of `pairs`."""
    said = [text.text for text in texts]
    both = list(zip(said, pairs, strict=True))
    scripts = [(overlap.main_script(text), overlap.main_script(pair.instruction)) for text, pair in both if text]
    return Traits(
        copied=_mean([overlap.is_copied(text, pair.output) for text, pair in both]),
        prompt_leaked=_mean([overlap.leaks(text, prompt, pair.output) for text, pair in both]),
        wrong_language=_mean([one != other for one, other in scripts]),
        empty=_mean([not overlap.bare(text) for text in said]),
        endless=_mean([not text.ended or overlap.is_loop(text.text) for text in texts]),
        distinct_1=overlap.distinct(said, 1),
        distinct_2=overlap.distinct(said, 2),
        distinct_3=overlap.distinct(said, 3),
        characters=_mean([len(text) for text in said]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
