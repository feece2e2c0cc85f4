"""Is the scorer any good? The recipe's own `score` stage judges human instructions and the same ones damaged.

The stage runs as in a build, with the recipe's prompt, model and engine, but with threshold 0: nothing is dropped for
its score. A row without a score (an answer that could not be read, a refused request) is counted by its reason.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kun_builder.errors import Drop, RejectedError, TrainingError
from kun_builder.prompts import Prompt
from kun_builder.run.rows import RowGenerate
from kun_builder.status import Status
from kun_builder.types import RowStage
from kun_training.damage import damaged, visible_damages
from kun_training.evaluation.ranking import Cut, cuts, recommend, roc_auc
from kun_training.examples import SCORE
from kun_training.seeds import Pair

if TYPE_CHECKING:
    from kun_builder.models.generator import Generator
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Registry

HUMAN = "human"


@dataclass(frozen=True, slots=True)
class Labelled:
    """An instruction for a text, and whether it is good. `kind`: `human`, a damage, or what a labelled file says."""

    instruction: str
    output: str
    good: bool
    kind: str


@dataclass(frozen=True, slots=True)
class Scored:
    """A labelled instruction with its score, or the reason why it has none."""

    item: Labelled
    score: float | None
    reason: str = ""


@dataclass(frozen=True)
class ScoreReport:
    """The figures. `auc` is over all kinds, each weighing the same; `kinds` is AUC by kind of damage."""

    model: str
    good: int
    bad: int
    auc: float
    kinds: Mapping[str, float]
    recommended: Cut
    cuts: tuple[Cut, ...]
    unscored: Mapping[str, int]
    scores: Mapping[str, tuple[float, ...]]
    """By kind."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def damaged_items(pairs: Sequence[Pair], kinds: Sequence[str]) -> list[Labelled]:
    """Each pair's human instruction, and one damaged copy of each kind."""
    items = []
    for number, pair in enumerate(pairs):
        items.append(Labelled(pair.instruction, pair.output, True, HUMAN))
        other = pairs[(number + 1 + len(pairs) // 3) % len(pairs)].instruction
        for kind in kinds:
            bad = damaged(pair.instruction, other, pair.digest, [kind])
            if bad.strip() and bad != pair.instruction:
                items.append(Labelled(bad, pair.output, False, kind))
    return items


def score_kinds(recipe: Recipe) -> tuple[str, ...]:
    """The damages that the recipe's scorer can see."""
    options = _score_spec(recipe)
    slots = {slot for value in options.values() if isinstance(value, Prompt) for slot in value.slots}
    return visible_damages(slots)


def score_items(
    recipe: Recipe, registry: Registry, items: Sequence[Labelled], status: Status | None = None
) -> list[Scored]:
    """Run the recipe's `score` stage over `items`, in their order."""
    status = status or Status()
    stage = registry.stages[SCORE].value
    if not isinstance(stage, RowStage):
        raise TrainingError("the stage `score` does not ask a model, so there is nothing to evaluate")
    options = dict(_score_spec(recipe)) | {"threshold": 0.0}
    models = [str(options[option.name]) for option in registry.stages[SCORE].options if option.role == "model"]
    status.begin("score", len(items), "instructions")
    return asyncio.run(_score_all(recipe, registry, stage, options, models, items, status))


async def _score_all(
    recipe: Recipe,
    registry: Registry,
    stage: RowStage,
    options: Mapping[str, Any],
    models: Sequence[str],
    items: Sequence[Labelled],
    status: Status,
) -> list[Scored]:
    from kun_builder.models.generator import open_models
    from kun_builder.models.journal.journal import Journal

    specs = {name: recipe.models[name] for name in models}
    async with open_models(specs, registry.engines, Journal.open(recipe.journal), status) as generator:
        places = asyncio.Semaphore(64)

        async def one(number: int, item: Labelled) -> Scored:
            async with places:
                scored = await _score(stage, options, generator, number, item)
            status.done += 1
            return scored

        return list(await asyncio.gather(*(one(number, item) for number, item in enumerate(items))))


async def _score(
    stage: RowStage, options: Mapping[str, Any], generator: Generator, number: int, item: Labelled
) -> Scored:
    name = f"evaluation/{number}"
    row = {"id": name, "split": "evaluation", "file": "", "position": number, "text": item.output}
    row |= {"instruction": item.instruction, "output": item.output}
    generate = RowGenerate(generator, number, [], {})
    generate.at(SCORE)
    try:
        done = await stage.run(row, generate, **options)
    except Drop as drop:
        return Scored(item, None, drop.reason)
    except RejectedError:
        return Scored(item, None, "request_rejected")
    score = done.get("score")
    return Scored(item, float(score)) if isinstance(score, int | float) else Scored(item, None, "no_score")


def _score_spec(recipe: Recipe) -> Mapping[str, Any]:
    for spec in recipe.stages:
        if spec.name == SCORE:
            return spec.options
    raise TrainingError(f"{recipe.file} has no stage `score`", hint="add `- score` behind `- label`")


def score_report(model: str, scored: Sequence[Scored]) -> ScoreReport:
    """The figures of scored items. Raises TrainingError if nothing good or nothing bad has a score."""
    found: dict[str, list[float]] = {}
    for item in scored:
        if item.score is not None:
            found.setdefault(item.item.kind, []).append(item.score)
    good = [item.score for item in scored if item.score is not None and item.item.good]
    bad = [item.score for item in scored if item.score is not None and not item.item.good]
    unscored = Counter(item.reason for item in scored if item.score is None)
    if not good or not bad:
        reasons = ", ".join(f"{reason} {count}" for reason, count in unscored.most_common()) or "none"
        raise TrainingError(
            f"{len(good)} good and {len(bad)} bad instructions have a score; without one: {reasons}",
            hint="both kinds are needed; if answers cannot be read, use an engine with log-probabilities",
        )
    worse = {item.item.kind for item in scored if not item.item.good}
    return ScoreReport(
        model=model,
        good=len(good),
        bad=len(bad),
        auc=roc_auc(good, bad),
        kinds={kind: roc_auc(good, found[kind]) for kind in sorted(worse) if kind in found and kind != HUMAN},
        recommended=recommend(good, bad),
        cuts=tuple(_thinned(cuts(good, bad))),
        unscored=dict(unscored),
        scores={kind: tuple(values) for kind, values in found.items()},
    )


def _thinned(found: Sequence[Cut], most: int = 200) -> list[Cut]:
    """At most `most` of the cuts, evenly spaced, the first and the last among them."""
    if len(found) <= most:
        return list(found)
    return [found[round(at * (len(found) - 1) / (most - 1))] for at in range(most)]


def read_labelled(path: Path) -> list[Labelled]:
    """Instructions that people have judged: JSONL with `instruction`, `output` or `text`, and `good`.

    `good` is true, false, 1 or 0, or one of the words good, bad, 好, 差. Raises TrainingError with the line at fault.
    """
    import orjson

    items = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
            good = _TRUTH[record["good"]]
            instruction, output = str(record["instruction"]), str(record.get("output") or record.get("text") or "")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"{path}:{number} is not a labelled instruction",
                hint='write `{"instruction": "...", "output": "...", "good": true}`',
            ) from error
        items.append(Labelled(instruction, output, good, "good" if good else "bad"))
    random.Random(0).shuffle(items)  # so that a server's state does not follow the file's order
    return items


_TRUTH: Mapping[Any, bool] = {True: True, False: False, "good": True, "bad": False, "好": True, "差": False}
