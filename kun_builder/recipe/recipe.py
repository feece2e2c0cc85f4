"""A recipe: YAML to a frozen, validated Recipe, before anything is spent.

Everything has a default but `splits`, and `models` where a stage asks one. All that is wrong is said at once, each with
`file:line` and the nearest valid name. `${NAME}` stands for an environment variable in `api_key` and `headers`, and
nowhere else.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, PlainSerializer, ValidationError

from kun_builder.cache import mirror_folder
from kun_builder.errors import RunError, shown
from kun_builder.readers.addresses import is_address, no_folder, public
from kun_builder.recipe.file import RecipeFile
from kun_builder.recipe.option_values import faults_of
from kun_builder.recipe.parts import SplitSpec, StageSpec, locate, read_models, read_splits, read_stages
from kun_builder.recipe.registry import Registry
from kun_builder.types import ModelSpec

_SECTIONS = ("models", "splits", "stages", "preset")
_NAME = re.compile(r"\w[\w.-]*")
_VARIABLE = re.compile(r"\$\{[A-Z_][A-Z0-9_]*\}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Plugins(_Frozen):
    """Which plugins take part, besides those that are installed."""

    dirs: tuple[Path, ...] = Field(default=(), description="Folders of one-file plugins, relative to the recipe.")
    disable: tuple[str, ...] = Field(default=(), description="Names of plugins to leave out.")


class Publish(_Frozen):
    """How the dataset is published."""

    repo: str = Field(default="", description="Dataset repository on the Hub, as `organization/name`.")
    private: bool = Field(default=True, description="Whether the repository is private.")
    license: str = Field(default="", description="License of the dataset, as the Hub spells it.")
    license_name: str = Field(default="", description="Name of a license that the Hub has none for (`license: other`).")
    license_link: str = Field(default="", description="Address of such a license.")
    authors: tuple[str, ...] = Field(default=(), description="Who stands for the dataset, for the card.")
    contact: str = Field(default="", description="Where readers of the card can write to.")
    citation: str = Field(default="", description="BibTeX of the dataset; by default made of what is known.")
    hardware: str = Field(default="", description="What the models ran on, for the card: `8 x A100 80 GB`.")
    notes: str = Field(default="", description="Markdown file with your own words for the card, or these words.")
    license_acknowledged: bool = Field(
        default=False, description="That the licenses of the sources were read and are met."
    )


class Limits(_Frozen):
    """What a run may spend, over all of its starts."""

    money: float | None = Field(default=None, gt=0, description="Money, by the `cost` of the models.")
    tokens: float | None = Field(default=None, gt=0, description="Tokens of prompts and answers together.")
    hours: float | None = Field(default=None, gt=0, description="Hours of work.")


class Cluster(_Frozen):
    """The Ray cluster of `executor: ray`."""

    address: str = Field(
        default="",
        description="Address of the cluster, `auto` for the one here; without it, one that ends with the run.",
    )
    actors: int = Field(default=0, ge=0, description="Workers of row stages; 0 is one for each node.")
    cpus: int = Field(default=0, ge=0, description="Processors of a cluster that ends with the run; 0 is all of them.")


class Settings(_Frozen):
    """What a recipe says besides what plugins explain: models, splits, and stages or their preset."""

    name: str = Field(default="", description="Name of the run folder, `runs/<name>`; by default the recipe's own.")
    executor: Literal["local", "ray"] = Field(
        default="local", description="What runs the stages: this machine, or a Ray cluster."
    )
    ray: Cluster = Cluster()
    shard_rows: int = Field(default=2000, ge=1, description="Rows of a shard, the unit of work and of resuming.")
    memory: ByteSize | None = Field(
        default=None,
        ge=2**26,
        description="Memory that stages which see all rows may use, as `8GB`; by default half of the machine's.",
    )
    stop_after_failures: int = Field(
        default=200, ge=0, description="Rows one after the other that fail alike and so end the run; 0 never ends it."
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything that is drawn.")
    format: Literal["parquet", "jsonl"] = Field(default="parquet", description="File format of the dataset.")
    journal: Path | None = Field(
        default=None,
        description="Folder of finished generations, or an address (`s3://`); by default in the user's cache, for all"
        " runs, or, where the run folder is at an address, `journal` there.",
    )
    target: int | None = Field(
        default=None,
        ge=1,
        description="Rows to keep, of all splits together: no more of the input is used than that takes.",
    )
    budget: Limits = Limits()
    plugins: Plugins = Plugins()
    publish: Publish = Publish()
    lock: dict[str, Any] = Field(
        default={}, description="What really ran: written by a build, ignored by the next one."
    )


def _without_keys(models: Mapping[str, ModelSpec]) -> dict[str, dict[str, Any]]:
    shown = [item.name for item in fields(ModelSpec) if item.name not in ("api_key", "headers")]
    return {name: {key: getattr(spec, key) for key in shown} for name, spec in models.items()}


KEYS = (*_SECTIONS, *Settings.model_fields)
"""Keys of every recipe; a plugin's section has another one."""


class Recipe(Settings):
    """A checked recipe. API keys are in `models` only, and in no dump or representation."""

    file: Path
    models: Annotated[dict[str, ModelSpec], PlainSerializer(_without_keys)]
    splits: dict[str, SplitSpec]
    stages: tuple[StageSpec, ...]
    sections: dict[str, Any] = {}
    """Sections of plugins, by name, as instances of their models; one that the recipe leaves out has its defaults."""
    variables: dict[str, str] = {}
    """Per model with an API key: the environment variable that it came from."""
    limit: int | None = None
    output: Path
    """The run folder; with `output_at`, the folder of this machine in which is worked at it, and so with `journal`."""
    output_at: str = ""
    """Address at which the run folder is kept; empty if it is on this machine alone."""
    journal_at: str = ""
    """Address at which the journal is kept; empty if it is on this machine alone."""


# --- reading ---------------------------------------------------------------------------------------------------


def plugin_settings(path: Path) -> Plugins:
    """The `plugins:` part of a recipe, which must be known before the plugins are. Raises RecipeError."""
    file = RecipeFile.read(path)
    settings = _settings(file, {key: value for key, value in file.data.items() if key == "plugins"})
    file.check()
    dirs = tuple(Path(locate(str(folder), path.parent)) for folder in settings.plugins.dirs)
    return Plugins(dirs=dirs, disable=settings.plugins.disable)


def load_recipe(
    path: Path,
    registry: Registry,
    *,
    limit: int | None = None,
    output: Path | str | None = None,
    endpoints: Sequence[str] = (),
    plugins: Plugins | None = None,
) -> Recipe:
    """Read and check a recipe against what there is in `registry`, usually `load_plugins()`.

    limit: rows to build from, drawn over the whole input. output: run folder or its address, by default `runs/<name>`.
    endpoints: replace those of every model. plugins: what `registry` was loaded with, if not `plugin_settings(path)`.
    Raises RecipeError with everything that is wrong.
    """
    file = RecipeFile.read(path)
    _no_variables(file)
    others = {*_SECTIONS, *registry.sections}
    settings = _settings(file, {key: value for key, value in file.data.items() if key not in others}, others)
    sections = {name: read_section(file, name, entry.value.model) for name, entry in registry.sections.items()}
    models, variables = read_models(file, registry, tuple(endpoints))
    splits = read_splits(file, registry)
    stages = read_stages(file, registry)
    settings = _with_notes(file, settings)
    if settings.budget.money and models and not any(spec.cost_in or spec.cost_out for spec in models.values()):
        file.complain(("budget",), "`budget`: `money` needs the price of a model: `cost: {input: 0.5, output: 1.5}`")
    journal_at = _journal_at(file)
    file.check()
    name = settings.name or _default_name(path)
    values = {key: getattr(settings, key) for key in Settings.model_fields}
    values |= {"name": name, "journal": settings.journal and path.parent / os.path.expanduser(settings.journal)}
    values |= {"output": Path("runs") / name} | _at_addresses(output, journal_at, settings)
    values |= {"plugins": plugins or plugin_settings(path)}
    values |= {"models": models, "splits": splits, "stages": stages, "variables": variables}
    values["sections"] = sections
    return Recipe(**values, file=path, limit=limit)


def _journal_at(file: RecipeFile) -> str:
    """The address of the journal; empty if it is a folder. What is wrong with it is noted in `file`."""
    journal = file.data.get("journal")
    if not isinstance(journal, str):
        return ""
    if not is_address(journal):
        folder = file.path.parent / os.path.expanduser(journal)
        if taken := next((p for p in (folder, *folder.parents) if os.path.exists(p) and not p.is_dir()), None):
            file.complain(("journal",), f"`journal`: {shown(taken)} is a file; name a folder, which is made if needed")
        return ""
    if fault := no_folder(journal):
        file.complain(("journal",), f"`journal`: {shown(public(journal))} {fault}")
    return journal.rstrip("/")


def _at_addresses(output: Path | str | None, journal_at: str, settings: Settings) -> dict[str, Any]:
    """Run folder and journal, as far as they are given with the command or are at an address.

    An address is a string: a `Path` keeps only one of the two `/`, and who makes one of it works on this machine alone.
    """
    if isinstance(output, Path) and re.match(r"[a-z][a-z0-9+.-]+:/", str(output)):
        what = f"the run folder {shown(output)} is an address, where this command cannot work"
        raise RunError(what, hint="choose a folder of this machine with --output")
    found: dict[str, Any] = {"output": Path(output)} if output else {}
    if isinstance(output, str) and is_address(output):
        if fault := no_folder(output):
            hint = "choose a folder with --output, or an address such as `s3://bucket/runs/mine`"
            raise RunError(f"the run folder {shown(public(output))} {fault}", hint=hint)
        found |= {"output_at": output.rstrip("/"), "output": mirror_folder(output)}
        journal_at = journal_at or ("" if settings.journal else f"{output.rstrip('/')}/journal")
    return found | ({"journal_at": journal_at, "journal": mirror_folder(journal_at)} if journal_at else {})


def _settings(file: RecipeFile, data: Mapping[str, Any], others: Iterable[str] = _SECTIONS) -> Settings:
    """The settings, defaults where they are wrong: the complaints are noted in `file`. `others`: keys beside them."""
    try:
        settings = Settings.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        for fault in faults_of(error, lambda place: [*_names_at(Settings, place), *(() if place else others)], "key"):
            file.complain(fault.place, fault.what)
        return Settings()
    if settings.name and not _NAME.fullmatch(settings.name):
        file.complain(
            ("name",), f"`name` must be a folder name of letters, digits, `_`, `-`, `.`, not {settings.name!r}"
        )
    return settings


def read_section(file: RecipeFile, name: str, model: type[BaseModel]) -> BaseModel:
    """The section `name` of a plugin: its defaults where it is left out, or wrong, which is noted in `file`."""
    values = file.data.get(name, {})
    if not isinstance(values, dict):
        file.complain((name,), f"`{name}` must be a mapping, not {values!r}")
        return model()
    try:
        return model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        for fault in faults_of(error, functools.partial(_names_at, model), "key"):
            file.complain((name, *fault.place), fault.what)
        return model()


def _with_notes(file: RecipeFile, settings: Settings) -> Settings:
    """The settings, with the text of the file that `notes` names in the place of its name.

    A value of several lines is no name of a file, but the text itself.
    """
    notes = settings.publish.notes
    if not notes or "\n" in notes:
        return settings
    try:
        text = (file.path.parent / os.path.expanduser(notes)).read_text("utf-8-sig").strip() + "\n"
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not UTF-8"
        file.complain(("publish", "notes"), f"`notes`: the file {notes} cannot be read: {what}")
        return settings
    return settings.model_copy(update={"publish": settings.publish.model_copy(update={"notes": text})})


def _names_at(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    """The keys that a pydantic model has, or that the model has which stands at `place` within it."""
    for key in place:
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return [*model.model_fields]


def _no_variables(file: RecipeFile) -> None:
    for place, text in file.strings():
        found = _VARIABLE.search(text)
        if found and not (place[0] == "models" and place[2:3] in (("api_key",), ("headers",))):
            file.complain(place, f"`{found[0]}`: environment variables are for secrets (`api_key`, `headers`) only")


def _default_name(path: Path) -> str:
    """The recipe's file name, or its folder's where that is just `recipe`."""
    path = path.resolve()
    stem = path.name.removesuffix(path.suffix).removesuffix(".lock")
    name = stem if stem != "recipe" else path.parent.name
    return name if _NAME.fullmatch(name) else "recipe"
