"""`.kun/manifest.json` as a repository has it: checked before anything in it is used.

Anybody who may write to the repository can have written it. Names in it become folders and patterns on this machine, so
only plain names are allowed; paths must stay in the repository; what it refers to must be there; and figures must be
such as a card and its pictures can be drawn from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from kun_builder.errors import PublishError
from kun_builder.report import StepFacts
from kun_builder.result.stats import SplitStats

MANIFEST = ".kun/manifest.json"
FORMAT = 1

_Split = Annotated[str, Field(pattern=r"^\w+(\.\w+)*$", max_length=200)]
_Run = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Path = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^\\\x00-\x1f]*$", max_length=500)]
_Lock = Annotated[str, Field(pattern=r"^(recipe\.lock\.yaml|\.kun/[0-9a-f]{16}\.lock\.yaml)$")]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")  # a later version may say more


class _FileEntry(_Facts):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    git: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    size: _Count


class _StepCounts(_Facts):
    label: str
    stage: str
    rows_in: _Count
    rows_out: _Count
    created: _Count = 0
    dropped: dict[str, _Count] = {}
    quarantined: dict[str, _Count] = {}


class _Report(_Facts):
    source: str
    read: _Count
    kept: _Count
    stages: list[_StepCounts]
    records: _Count = 0
    redistributable: bool | None = None
    license: str = ""
    homepage: str = ""
    citation: str = ""
    plugin: str = ""
    title: str = ""


class _Config(_Facts):
    path: str
    features: dict[str, Any]
    bytes: _Count
    download: _Count


class _SplitEntry(_Facts):
    run: _Run
    report: _Report
    stats: dict[str, Any]
    withheld: bool
    license: str
    files: Annotated[list[_Path], Field(min_length=1)]
    configs: dict[str, _Config]


class _Model(_Facts):
    id: str
    revision: str


class _Usage(_Facts):
    stage: str
    model: str
    requests: _Count
    prompt_tokens: _Count
    completion_tokens: _Count
    cost: float


def _step(value: Any) -> StepFacts:
    """Plain data as a step, which is a dataclass: strict models take nothing but its instances."""
    try:
        return TypeAdapter(StepFacts).validate_python(value)
    except ValidationError as error:
        raise ValueError(_first(error)) from error


class _Share(_Facts):
    value: float
    low: float
    high: float


class _Reading(_Facts):
    read: _Count
    good: _Count


class _Review(_Facts):
    kept: _Count
    good: _Count
    precision: _Share | None
    kinds: dict[str, _Count]
    rejected: dict[str, _Reading]


class _Judge(_Facts):
    id: str


class _Comparison(_Facts):
    wins: _Count
    ties: _Count
    losses: _Count
    rate: _Share
    consistent: float = 1.0
    chance: float = 0.0
    sure: bool = True


class _Mark(_Facts):
    mean: _Share
    rows: _Count = 0
    control: _Share | None = None
    sure: bool = True


class _Evaluation(_Facts):
    pairs: _Count
    judge: _Judge
    comparisons: dict[str, _Comparison]
    control: _Comparison | None = None
    marks: dict[str, _Mark] | None = None


class _Chosen(_Facts):
    """What a recipe decides for the whole of a run."""

    seed: int
    limit: int | None


class _RunEntry(_Chosen):
    name: str
    version: str
    created: str
    lock: _Lock
    steps: list[Annotated[StepFacts, BeforeValidator(_step)]]
    models: dict[str, _Model]
    usage: list[_Usage] = []
    seconds: float = 0.0
    machine: str = ""
    hardware: str = ""
    review: _Review | None = None
    evaluation: _Evaluation | None = None


class _Change(_Facts):
    rows: _Count
    added: _Count
    removed: _Count
    changed: _Count


class _Release(_Facts):
    run: str
    name: str
    created: str
    splits: dict[str, _Change]
    recipe: list[str]


class _Manifest(_Facts):
    files: dict[str, _FileEntry]
    splits: dict[_Split, _SplitEntry]
    runs: dict[_Run, _RunEntry]
    releases: list[_Release]
    notes: dict[str, str] = {}


def read_manifest(content: bytes) -> dict[str, Any]:
    """The checked manifest. Raises PublishError, with what is wrong in it, for one that this version cannot read."""
    try:
        manifest: dict[str, Any] = orjson.loads(content)
        version = manifest["format"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise PublishError(f"{MANIFEST} in the repository is not a manifest of kun-builder") from error
    if version != FORMAT:
        raise PublishError(
            f"the repository was last published by another version of kun-builder (manifest format {version!r})",
            hint="publish with a kun-builder at least as new as that one",
        )
    try:
        _check_references(_Manifest.model_validate(manifest))
    except ValidationError as error:
        raise _wrong(_first(error)) from error
    for name, split in manifest["splits"].items():
        _check_figures(name, split["stats"])
    return manifest


def recipe_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe of a run in a manifest has decided: for each step and model, and for the whole.

    Of a model, this is all that every manifest says of it.
    """
    steps = [StepFacts.from_json(step) for step in run["steps"]]
    models = {name: {key: model[key] for key in _Model.model_fields} for name, model in run["models"].items()}
    whole = {key: run[key] for key in _Chosen.model_fields}
    return {"steps": {step.label: step.chosen for step in steps}, "models": models, **whole}


def _check_figures(split: str, stats: dict[str, Any]) -> None:
    try:
        SplitStats.from_json(stats)
    except ValidationError as error:
        raise _wrong(f"in the `stats` of split {split!r}, {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, with its place; the place is in quotes, as the manifest may name it anything."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))!r}: {first['msg']}"


def _check_references(manifest: _Manifest) -> None:
    """Raise PublishError where a split refers to what is not there, or where a path climbs out of the repository."""
    for name, split in manifest.splits.items():
        if split.run not in manifest.runs:
            raise _wrong(f"split {name!r} is of a run that it does not have")
        for path in split.files:
            if path not in manifest.files or ".." in path.split("/"):
                raise _wrong(f"split {name!r} has no file {path!r}")


def _wrong(what: str) -> PublishError:
    return PublishError(
        f"{MANIFEST} in the repository is not one that kun-builder wrote: {what}",
        hint="restore it from an earlier commit of the repository, or publish into another one",
    )
