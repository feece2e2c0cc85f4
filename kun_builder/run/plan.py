"""From a recipe to what will run: steps grouped into segments, and the keys that tell whether a result is still good.

A **step** is one stage of the recipe with its complete options. Neighbouring steps of one kind form a **segment**:

    rows      row stages: each row goes through all of them without a barrier
    batches   vectorised CPU stages, shard by shard
    dataset   one stage that sees all rows of all splits

The `measure` half of a dataset stage joins the batches before it, so that the text is read and written once less.

Segments form **stretches**, which run one after the other: batches, and the rows behind them. Within a stretch a shard
goes on as soon as a segment is done with it, and the first one takes shards as they are read. Only a dataset stage,
which is a stretch of its own, waits for all rows.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

from kun_builder.cache import digest as content_digest
from kun_builder.drops import RESULT_COLUMNS, result_columns
from kun_builder.errors import RecipeError, suggest
from kun_builder.prompts import Prompt
from kun_builder.recipe.options import Option, keyword_options
from kun_builder.report import StepFacts
from kun_builder.run.verdicts import FOLDER
from kun_builder.types import DatasetStage, ModelInfo, RowStage, Stage

if TYPE_CHECKING:
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Entry, Plugin, Registry

Kind = Literal["rows", "batches", "dataset"]


@dataclass(frozen=True)
class Step:
    """One stage as the recipe uses it. `label` is its name, numbered from the second use on; `owner` has made it."""

    label: str
    stage: Stage
    options: Mapping[str, Any]
    owner: Plugin
    models: tuple[str, ...] = ()
    tokenizer_of: str = ""
    """The model whose tokenizer the value `auto` of an option stands for; empty if no option has it."""
    measure: bool = False
    """Whether this is the half of a DatasetStage that runs shard by shard."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file that an option names."""
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """Values of options that hold on this machine only, for example the file in which a tokenizer was found."""

    def __str__(self) -> str:
        return f"stage `{self.label}` of plugin `{self.owner.name}` ({PurePath(self.owner.package).name})"

    @property
    def arguments(self) -> dict[str, Any]:
        """What the stage's function is called with."""
        return {**self.options, **self.resolved}

    @property
    def asked(self) -> tuple[str, ...]:
        """Models that the result depends on: those it asks, and the one whose tokenizer it uses."""
        return (*self.models, self.tokenizer_of) if self.tokenizer_of else self.models

    @property
    def adds(self) -> Mapping[str, str]:
        """Columns that this step adds. Those of a dataset stage are added by its measuring half."""
        return {} if isinstance(self.stage, DatasetStage) and not self.measure else self.stage.adds

    def facts(self) -> StepFacts:
        """What this step is. The report has all of it; rows, keys and `kun-build plan` have parts.

        Prompts are in full, other options as JSON can hold them. For a plugin that is a single file, `package` is the
        name of the file without its folder.
        """
        return StepFacts(
            label=self.label,
            stage=self.stage.name,
            plugin=self.owner.name,
            package=PurePath(self.owner.package).name,
            package_version=self.owner.version,
            digest=self.owner.digest,
            version=self.stage.version,
            options={n: value.text if isinstance(value, Prompt) else plain(value) for n, value in self.options.items()},
            models=self.models,
            adds=dict(self.stage.adds),
            quantities=dict(self.stage.quantities),
            forms=tuple(self.stage.forms) or None if isinstance(self.stage, RowStage) else None,
        )

    def provenance(self, models: Mapping[str, ModelInfo]) -> dict[str, str]:
        """What each row of the result says about this step: whose it is, which model it asked, with which prompts."""
        who = self.facts()
        model = models[who.models[0]] if who.models else ModelInfo("")
        prompts = [value.digest for value in self.options.values() if isinstance(value, Prompt)]
        return {
            "stage": who.label,
            "version": who.version,
            "plugin": f"{who.plugin} {who.package_version}".strip(),
            "model": model.id,
            "revision": model.revision,
            "prompts": " ".join(prompts),
        }

    def identity(self, models: Mapping[str, ModelInfo]) -> dict[str, Any]:
        """Everything that its result depends on, besides its input."""
        who = self.facts()
        return {
            "stage": who.stage,
            "version": who.version,
            "measure": self.measure,
            "plugin": [who.plugin, who.package_version, who.digest],
            "options": {name: plain(value) for name, value in self.options.items()},
            "files": self.files,
            "models": {name: [models[name].id, models[name].revision] for name in self.asked},
        }


@dataclass(frozen=True)
class Segment:
    """Neighbouring steps of one kind. A shard passes through all of them at once."""

    kind: Kind
    steps: tuple[Step, ...]

    @property
    def label(self) -> str:
        """A name for people and folders: the labels of the segment's steps."""
        return "+".join(step.label for step in self.steps)

    @property
    def adds(self) -> dict[str, str]:
        """Columns that the segment adds."""
        return {name: kind for step in self.steps for name, kind in step.adds.items()}

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that the segment asks."""
        return tuple(dict.fromkeys(name for step in self.steps for name in step.models))

    def key(self, models: Mapping[str, ModelInfo]) -> str:
        """Digest of all that the segment's result depends on, besides its input."""
        return digest([step.identity(models) for step in self.steps])


@dataclass(frozen=True)
class Plan:
    """The segments of a recipe, in order."""

    segments: tuple[Segment, ...]
    steps: tuple[Step, ...] = field(default=())

    @property
    def pairs(self) -> bool:
        """Whether the result is pairs, and not texts."""
        return result_columns(column for step in self.steps for column in step.stage.adds) == RESULT_COLUMNS

    @property
    def stretches(self) -> list[tuple[Segment, ...]]:
        """The segments of each stretch. The first one reads; it is empty where a dataset stage comes first."""
        stretches: list[tuple[Segment, ...]] = [()]
        for segment in self.segments:
            before = stretches[-1][-1:]
            if segment.kind == "dataset" or (before and before[0].kind != "batches"):
                stretches.append((segment,))
            else:
                stretches[-1] += (segment,)
        return stretches

    @property
    def barriers(self) -> tuple[Segment, ...]:
        """Dataset stages with models behind them: no model can be asked while such a stage waits for all rows."""
        last = max((number for number, segment in enumerate(self.segments) if segment.models), default=0)
        return tuple(segment for segment in self.segments[:last] if segment.kind == "dataset")

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models that will be asked."""
        return tuple(dict.fromkeys(name for segment in self.segments for name in segment.models))


def make_plan(recipe: Recipe, registry: Registry) -> Plan:
    """The plan of a checked recipe. Raises RecipeError if the stages cannot make the result's columns.

    A recipe without row stages only cleans: its result is the text.
    """
    steps = recipe_steps(recipe, registry)
    missing = set(RESULT_COLUMNS) - {column for step in steps for column in step.stage.adds}
    only_cleaned = missing == set(RESULT_COLUMNS) and not any(isinstance(step.stage, RowStage) for step in steps)
    if missing and not only_cleaned:
        names = " and ".join(f"`{name}`" for name in sorted(missing))
        raise RecipeError(
            f"{recipe.name}: no stage of the recipe adds {names}",
            hint=f"{_who_adds(registry, missing)}a recipe whose stages only clean makes a dataset of `text`",
        )
    _check_tokenizers(recipe, steps)
    _check_columns(recipe, registry, steps)
    return Plan(tuple(_segments(steps)), tuple(steps))


def _who_adds(registry: Registry, columns: Iterable[str]) -> str:
    """Text for a hint: which installed stages add each of the columns; "" if none does."""
    found = [
        f"{' or '.join(f'`{name}`' for name in names)} adds `{column}`; "
        for column in sorted(columns)
        if (names := [name for name, entry in registry.stages.items() if column in entry.value.adds])
    ]
    return "".join(found)


def _check_tokenizers(recipe: Recipe, steps: Iterable[Step]) -> None:
    """Raise RecipeError for a step that counts tokens of a model although no step of the recipe asks one."""
    for step in steps:
        unnamed = [name for name in roles(step.stage.run, "tokenizer") if step.options[name] == "auto"]
        if unnamed and not step.tokenizer_of:
            raise RecipeError(
                f"{recipe.name}: stage `{step.label}` counts tokens, and no stage asks a model that says of which kind",
                hint=f"`- {step.stage.name}: {{{unnamed[0]}: characters}}` counts characters; or name a Hub id, a model"
                " folder or a `tokenizer.json`",
            )


def _check_columns(recipe: Recipe, registry: Registry, steps: Iterable[Step]) -> None:
    """Raise RecipeError for an option that names a column which does not hold text, or which no earlier stage adds."""
    known = ["text", "id", "split", "file"]
    for step in steps:
        for name in roles(step.stage.run, "column"):
            if (column := step.options[name]) not in known:
                raise RecipeError(
                    f"{recipe.name}: stage `{step.label}`: `{name}` is `{column}`, and there is no such text before it"
                    + suggest(column, known),
                    hint=f"{_who_adds(registry, (column,))}put it behind the stage that adds it",
                )
        known += [column for column, kind in step.stage.adds.items() if kind == "string" and column[:1] != "_"]


def recipe_steps(recipe: Recipe, registry: Registry) -> list[Step]:
    """The stages of a recipe as steps, each with a label of its own."""
    steps, uses = [], dict[str, int]()
    for spec in recipe.stages:
        entry: Entry[Any] = registry.stages[spec.name]
        uses[spec.name] = uses.get(spec.name, 0) + 1
        label = spec.name if uses[spec.name] == 1 else f"{spec.name}-{uses[spec.name]}"
        said = {
            name: spec.options[name] or str(recipe.output / FOLDER / label)
            for name in roles(entry.value.run, "verdicts")
        }
        steps.append(
            Step(
                label=label,
                stage=entry.value,
                options=spec.options,
                owner=entry.owner,
                models=tuple(spec.options[name] for name in roles(entry.value.run, "model") if spec.options[name]),
                files=file_digests(entry.options, spec.options) | _verdict_digests(said),
                resolved=said,
            )
        )
    return [replace(step, tokenizer_of=_tokenizer_of(steps, number)) for number, step in enumerate(steps)]


def _tokenizer_of(steps: Sequence[Step], number: int) -> str:
    """The model whose tokens a step counts: the first one asked by it or a later step, else the recipe's first one.
    Empty if no option of the step is `auto`."""
    step = steps[number]
    if all(step.options[name] != "auto" for name in roles(step.stage.run, "tokenizer")):
        return ""
    return next((name for other in (*steps[number:], *steps) for name in other.models), "")


def _segments(steps: Iterable[Step]) -> Iterable[Segment]:
    segments: list[tuple[Kind, list[Step]]] = []

    def put(kind: Kind, step: Step) -> None:
        if kind != "dataset" and segments and segments[-1][0] == kind:
            segments[-1][1].append(step)
        else:
            segments.append((kind, [step]))

    for step in steps:
        if isinstance(step.stage, DatasetStage):
            if step.stage.measure:
                _hoist(segments, replace(step, label=f"{step.label}-measure", measure=True))
            put("dataset", step)
        else:
            put("rows" if isinstance(step.stage, RowStage) else "batches", step)
    return (Segment(kind, tuple(group)) for kind, group in segments)


def _hoist(segments: list[tuple[Kind, list[Step]]], measure: Step) -> None:
    """Put `measure` into the batches before the dataset stages that directly precede it: those change no column.

    It stays after a dataset stage that has a column of the same name.
    """
    at = len(segments)
    while at and segments[at - 1][0] == "dataset" and not {*segments[at - 1][1][0].stage.adds} & {*measure.adds}:
        at -= 1
    if at and segments[at - 1][0] == "batches":
        segments[at - 1][1].append(measure)
    else:
        segments.insert(at, ("batches", [measure]))


def roles(function: Any, kind: str) -> list[str]:
    """Names of the options of `function` that are marked with the role `kind`."""
    return [option.name for option in keyword_options(function) if option.role == kind]


def file_digests(options: Iterable[Option], values: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of each file that an option of type `FileName` names, by that name. Names without a file are left out."""
    given = (values[option.name] for option in options if option.role == "file")
    names = (name for value in given for name in ([value] if isinstance(value, str) else value or ()))
    return {name: content_digest(path) for name in names if (path := Path(os.path.expanduser(name))).is_file()}


def _verdict_digests(folders: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of each file of verdicts, by a name that does not depend on where the run folder is."""
    found = [(name, path) for name, folder in folders.items() for path in sorted(Path(folder).glob("*.jsonl"))]
    return {f"{name}/{path.name}": content_digest(path) for name, path in found}


def plain(value: Any) -> Any:
    """`value` as JSON can hold it, the same on every machine: a prompt becomes its digest."""
    if isinstance(value, Prompt):
        return {"prompt": value.digest}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def digest(value: Any) -> str:
    """SHA-256 over the canonical JSON of `value`, first 20 hex digits."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]
