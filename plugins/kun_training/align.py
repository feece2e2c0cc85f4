"""The loop of self-alignment: train on seeds, build, select, train on seeds and selected rows, build again.

    <run folder>/round-1/label-model    trained on the seeds
    <run folder>/round-1/chat-model
    <run folder>/round-1/build          a run folder like any other, made with these two models
    <run folder>/round-1/selected.jsonl what the next round is trained on besides the seeds
    <run folder>/round-1/round.json     its figures
    <run folder>/round-2/...

Each round trains from the untouched base (Humpback, arXiv 2308.06259). Every part knows whether it is finished, so that
running again after any interruption goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from kun_builder.errors import TrainingError
from kun_builder.files import replace_file
from kun_builder.prompt_contract import read_contract
from kun_builder.report import RunReport
from kun_builder.run.runner import build
from kun_builder.status import Status
from kun_builder.types import ModelSpec
from kun_training.contracts import stage_options
from kun_training.evaluation.label import fit_of
from kun_training.evaluation.overlap import distinct
from kun_training.examples import LABEL, POLISH, SCORE
from kun_training.presets import Task
from kun_training.request import make_job, read_seeds
from kun_training.section import training_of
from kun_training.seeds import Pair, Refused, Seeds, check_pairs, read_pairs, select, write_pairs
from kun_training.sft import train

if TYPE_CHECKING:
    from kun_builder.recipe.parts import StageSpec
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Registry

LABEL_MODEL, CHAT_MODEL = "label_model", "chat_model"
"""Names of the trained models in a round's recipe."""

_ASKS: Mapping[str, str] = {LABEL: LABEL_MODEL, SCORE: CHAT_MODEL, POLISH: CHAT_MODEL}


@dataclass(frozen=True, kw_only=True)
class Round:
    """Figures of one round. `held_out`: log-probability of the held-out human instructions, nats per token."""

    number: int
    seeds: int
    augmented: int
    read: int
    kept: int
    mean_score: float | None
    distinct_2: float
    held_out: float | None
    selected: int

    @property
    def kept_share(self) -> float:
        """Share of the rows read that ended in the dataset."""
        return self.kept / self.read if self.read else 0.0


def align(recipe: Recipe, registry: Registry, rounds: int, status: Status | None = None) -> list[Round]:
    """Run the loop in the recipe's run folder, or go on with it; returns the figures of all rounds.

    Raises TrainingError if the recipe says nothing of training, and whatever training and building raise.
    """
    status = status or Status()
    if not training_of(recipe).seeds:
        raise TrainingError(
            f"{recipe.file} has no `training:` section with seeds", hint="add `training: {seeds: [...], base: ...}`"
        )
    seeds = read_seeds(training_of(recipe), recipe.file.parent)
    found: list[Round] = []
    selected: list[Pair] = []
    for number in range(1, rounds + 1):
        folder = recipe.output / f"round-{number}"
        status.say(f"round {number} of {rounds}: {len(seeds.train)} seeds, {len(selected)} selected rows")
        mixed = replace(seeds, train=(*seeds.train, *selected))
        report = _build(recipe, registry, mixed, folder, status)
        selected = _select(recipe, seeds, folder)
        found.append(_figures(number, mixed, report, selected, folder, status))
    return found


def _build(recipe: Recipe, registry: Registry, seeds: Seeds, folder: Path, status: Status) -> RunReport:
    """Train the two models of a round and build with them."""
    options = stage_options(registry, recipe)
    tasks: tuple[Task, Task] = ("label", "chat")
    for task in tasks:
        train(make_job(task, training_of(recipe), options, seeds, folder / f"{task}-model"), status)
    return build(round_recipe(recipe, registry, folder), registry, status=status)


def round_recipe(recipe: Recipe, registry: Registry, folder: Path) -> Recipe:
    """The recipe of a round: the stages of the method ask the models that were trained in `folder`."""
    label, chat = (ModelSpec(name=name, engine="transformers") for name in (LABEL_MODEL, CHAT_MODEL))
    models = {
        LABEL_MODEL: replace(label, model=str(folder / "label-model"), prompt="completion"),
        CHAT_MODEL: replace(chat, model=str(folder / "chat-model")),
    }
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-{folder.name}",
            "output": folder / "build",
            "models": {**recipe.models, **models},
            "stages": tuple(_asking(spec, registry) for spec in recipe.stages),
        }
    )


def _asking(spec: StageSpec, registry: Registry) -> StageSpec:
    """A stage of the method with the trained model in place of the recipe's."""
    if spec.name not in _ASKS:
        return spec
    names = [option.name for option in registry.stages[spec.name].options if option.role == "model"]
    return replace(spec, options={**spec.options, **dict.fromkeys(names, _ASKS[spec.name])})


def _select(recipe: Recipe, seeds: Seeds, folder: Path) -> list[Pair]:
    """Rows of the build that are fit to train on: good enough, unlike every seed, none of a held-out instruction."""
    refused: list[Refused] = []
    rows = [
        Pair(
            instruction=row["instruction"],
            output=row["output"],
            text=row.get("raw_answer") or row.get("text") or "",
            score=row.get("score"),
            tag="augmented",
            place=row["id"],
        )
        for row in provenance(folder / "build")
    ]
    known = (*seeds.train, *seeds.held_out)
    fresh = [pair for pair in check_pairs([*known, *rows], refused, max_chars=8000) if pair.tag == "augmented"]
    kept_apart = {pair.instruction for pair in seeds.held_out}
    fresh = [pair for pair in fresh if pair.instruction not in kept_apart]
    wish = training_of(recipe).select
    chosen = select(fresh, refused, min_score=wish.min_score, max_pairs=wish.max_pairs)
    write_pairs(folder / "selected.jsonl", chosen)
    return list(read_pairs([folder / "selected.jsonl"], []))


def provenance(run: Path) -> Iterator[dict[str, Any]]:
    """Rows of a finished build with all their columns, in a fixed order."""
    import pyarrow.parquet as pq

    for path in sorted((run / "kept").glob("*.parquet")):
        yield from pq.read_table(path).to_pylist()


def _figures(
    number: int, seeds: Seeds, report: RunReport, selected: Sequence[Pair], folder: Path, status: Status
) -> Round:
    """The figures of a round; the likelihood is measured once for each model and written down."""
    rows = list(provenance(folder / "build"))
    scores = [row["score"] for row in rows if isinstance(row.get("score"), float)]
    augmented = sum(pair.tag == "augmented" for pair in seeds.train)
    figures = Round(
        number=number,
        seeds=len(seeds.train) - augmented,
        augmented=augmented,
        read=sum(split.read for split in report.splits.values()),
        kept=sum(split.kept for split in report.splits.values()),
        mean_score=sum(scores) / len(scores) if scores else None,
        distinct_2=distinct([row["instruction"] for row in rows], 2),
        held_out=_held_out(folder, seeds, status),
        selected=len(selected),
    )
    replace_file(folder / "round.json", orjson.dumps(asdict(figures), option=orjson.OPT_INDENT_2))
    return figures


def _held_out(folder: Path, seeds: Seeds, status: Status) -> float | None:
    if not seeds.held_out:
        return None
    model, note = folder / "label-model", folder / "held_out.json"
    key = hashlib.sha256((model / "kun_training.json").read_bytes()).hexdigest()
    if note.is_file() and (known := orjson.loads(note.read_bytes())).get("key") == key:
        return float(known["per_token"])
    contract = read_contract(str(model))
    assert contract is not None, "training writes the contract"
    status.begin("held-out likelihood", None, "pairs")
    value = fit_of(str(model), seeds.held_out, contract).per_token
    replace_file(note, orjson.dumps({"key": key, "per_token": value}))
    return value
