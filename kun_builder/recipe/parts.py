"""The parts of a recipe that depend on plugins: models, splits and stages, the stages of a preset included.

Each reader notes in the RecipeFile what is wrong and leaves the faulty part out; the caller raises everything at once.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import urlsplit

from annotated_types import Ge, Gt
from pydantic import Field

from kun_builder.errors import suggest
from kun_builder.recipe.file import Place, RecipeFile
from kun_builder.recipe.option_values import check_options
from kun_builder.recipe.options import Option
from kun_builder.recipe.registry import Entry, Registry
from kun_builder.recipe.secrets import check_paths, read_api_key, read_headers
from kun_builder.recipe.splits import SPLIT_OPTIONS, corpus_options
from kun_builder.types import ModelSpec

EMBEDDED, SERVER = "llamacpp", "openai"
"""Engines of a model that names none: without endpoints, and with."""

PRESET = "verified"
"""The preset of a recipe that names neither one nor stages."""

_SPEAK_OPENAI = frozenset({"vllm", "sglang", "ollama", "llama-server", "llama.cpp", "lmstudio"})
"""Servers that people take for engines: they speak the protocol of `openai`."""

_MODEL = re.compile(r"\w[\w.-]*")
_SPLIT = re.compile(r"(?!all$)\w+(\.\w+)*")  # what `datasets` takes for the name of a split


@dataclass(frozen=True)
class SplitSpec:
    """One split: its source, the inputs as found from here, and the source's complete options.

    declared: what the recipe says about the corpus, by the names of `CORPUS_OPTIONS`.
    """

    source: str
    path: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageSpec:
    """One stage with its complete options: defaults filled in, prompts read, models by name."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _needed(key: str, example: str) -> str:
    return f"`{key}` must name at least one {key[:-1]}, for example `{key}: {example}`"


def _section(file: RecipeFile, key: str, names: re.Pattern[str], example: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and mappings of a section that must not be empty; an entry without a value is an empty mapping."""
    value = file.data.get(key)
    if not isinstance(value, dict) or not value:
        file.complain((key,), _needed(key, example))
        return []
    entries = []
    for name, entry in value.items():
        if not names.fullmatch(name):
            file.complain((key, name), f"`{name}` cannot name a {key[:-1]}: use letters, digits and `_`")
        if isinstance(entry, dict | None):
            entries.append((name, entry or {}))
        else:
            file.complain((key, name), f"`{name}` must be a mapping, for example `{key}: {example}`")
    return entries


def _checked(
    file: RecipeFile, place: Place, options: Sequence[Option], values: Mapping[str, Any], owner: str
) -> dict[str, Any] | None:
    """The complete options, or None after noting what is wrong with them."""
    complete, faults = check_options(options, values, file.path.parent)
    for fault in faults:
        file.complain((*place, *fault.place), f"{owner}: {fault.what}")
    return None if faults else complete


def _find(file: RecipeFile, place: Place, kind: str, name: str, registry: Registry, of: str = "") -> Entry[Any] | None:
    entries: Mapping[str, Entry[Any]] = getattr(registry, f"{kind}s")
    if name not in entries:
        file.complain(place, f"unknown {kind} `{name}`{of}{suggest(name, entries)}{_lost(registry)}")
    return entries.get(name)


def _lost(registry: Registry) -> str:
    """The end of a complaint about an unknown name: which plugins could not be loaded, if any."""
    return f" (plugins that could not be loaded: {', '.join(registry.absent)})" if registry.absent else ""


# --- models ----------------------------------------------------------------------------------------------------

_seconds = functools.partial(Field, allow_inf_nan=False)
_LIMITS: dict[str, Any] = {
    "context_length": Ge(0),
    "concurrency": Ge(0),
    "timeout": _seconds(gt=0),
    "wait": _seconds(ge=0),
}
_HINTS = get_type_hints(ModelSpec)
MODEL_OPTIONS = (
    *(
        Option(
            item.name,
            Annotated[_HINTS[item.name], _LIMITS.get(item.name)],
            "" if item.name == "engine" else item.default,
        )
        for item in fields(ModelSpec)
        if item.name not in ("name", "options", "headers", "limits", "cost_in", "cost_out")
    ),
    Option("headers", dict[str, str], {}),
    Option("limits", dict[Literal["requests_per_minute", "tokens_per_minute"], Annotated[float, Gt(0)]], {}),
    Option("cost", dict[Literal["input", "output"], Annotated[float, Ge(0)]], {}),
)
"""What every model of a recipe can be told, whatever its engine: the fields of ModelSpec, and `cost`, money per
million tokens as `{input: ..., output: ...}`."""


def read_models(
    file: RecipeFile, registry: Registry, endpoints: tuple[str, ...]
) -> tuple[dict[str, ModelSpec], dict[str, str]]:
    """The models, and per model with an API key the environment variable it came from."""
    models: dict[str, ModelSpec] = {}
    variables: dict[str, str] = {}
    if file.data.get("models") in (None, {}):  # stages that only clean ask none
        return models, variables
    for name, values in _section(file, "models", _MODEL, "{chat: {}}"):
        place: Place = ("models", name)
        if endpoints:
            values = {**values, "endpoints": list(endpoints), "endpoints_file": ""}
        key = read_api_key(file, (*place, "api_key"), values)
        if "api_key" in values:
            variables[name] = values["api_key"] if key else ""
            values = {**values, "api_key": key}
        if "headers" in values:
            values = {**values, "headers": read_headers(file, (*place, "headers"), values["headers"])}
        spec = _model(file, place, name, values, registry)
        if spec:
            models[name] = spec
    return models, variables


def _model(
    file: RecipeFile, place: Place, name: str, values: Mapping[str, Any], registry: Registry
) -> ModelSpec | None:
    engine = values.get("engine") or (SERVER if values.get("endpoints") or values.get("endpoints_file") else EMBEDDED)
    if engine in _SPEAK_OPENAI and engine not in registry.engines:
        engine = SERVER
        values = {**values, "engine": SERVER}
    found = _find(file, (*place, "engine"), "engine", str(engine), registry)
    if not found:
        return None
    complete = _checked(file, place, (*MODEL_OPTIONS, *found.options), values, f"model `{name}`")
    if complete is None:
        return None
    for number, url in enumerate(complete["endpoints"]):
        if fault := url_fault(url):
            file.complain((*place, "endpoints", number), f"model `{name}`: {fault}")
    if complete["endpoints_file"]:
        if complete["endpoints"]:
            what = "`endpoints_file` and `endpoints` say the same thing twice: leave one of them out"
            file.complain((*place, "endpoints_file"), f"model `{name}`: {what}")
        complete["endpoints_file"] = str(file.path.parent.absolute() / os.path.expanduser(complete["endpoints_file"]))
    cost = complete.pop("cost")
    own = {option.name: complete.pop(option.name) for option in found.options}
    complete |= {"engine": engine, "cost_in": cost.get("input", 0.0), "cost_out": cost.get("output", 0.0)}
    return ModelSpec(name=name, options=own, **complete)


def url_fault(url: str) -> str:
    """What is wrong with an endpoint's URL; empty if nothing is. Never repeats a password."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises ValueError where it is no number)
    except ValueError:
        return f"{url!r} is not a URL like `http://127.0.0.1:8000`"
    if parts.username or parts.password:
        return "an endpoint must not contain a user or password: use `api_key: ${API_KEY}`"
    if parts.scheme.rpartition("+")[2] not in ("http", "https") or not parts.hostname:  # `tgi+http`: of another engine
        return f"{url!r} is not a URL like `http://127.0.0.1:8000`"
    return ""


# --- splits ----------------------------------------------------------------------------------------------------


def read_splits(file: RecipeFile, registry: Registry) -> dict[str, SplitSpec]:
    """The splits of a recipe, by name, each with its source and the complete options of that source."""
    splits = {}
    for name, values in _section(file, "splits", _SPLIT, "{wiki: {source: generic, path: wiki.jsonl}}"):
        spec = _split(file, ("splits", name), name, values, registry)
        if spec:
            splits[name] = spec
    return splits


def _split(
    file: RecipeFile, place: Place, name: str, values: Mapping[str, Any], registry: Registry
) -> SplitSpec | None:
    options: tuple[Option, ...] = ()
    if isinstance(values.get("source"), str):
        found = _find(file, (*place, "source"), "source", values["source"], registry)
        if not found:
            return None
        options = found.options
    free = corpus_options(options)
    complete = _checked(file, place, (*SPLIT_OPTIONS, *free, *options), values, f"split `{name}`")
    if complete is None:
        return None
    source, paths = complete.pop("source"), complete.pop("path")
    declared = {option.name: complete.pop(option.name) for option in free}
    declared = {name: value for name, value in declared.items() if value is not None}
    paths = (paths,) if isinstance(paths, str) else paths
    if not paths or not all(paths):
        file.complain((*place, "path"), f"split `{name}`: `path` is empty")
    check_paths(file, (*place, "path"), paths)
    return SplitSpec(source, tuple(locate(path, file.path.parent) for path in paths if path), complete, declared)


def locate(path: str, folder: Path) -> str:
    """`path` from the recipe's `folder` if its first part exists there; else as it is: from here, or a Hub id."""
    path = os.path.expanduser(path)
    first = next(iter(Path(path).parts), "")  # none: `.`, which is the recipe's own folder
    if "://" in path or Path(path).is_absolute() or not _there(folder, first):
        return path
    found = Path(os.path.abspath(folder / path))
    return str(found.relative_to(Path.cwd()) if found.is_relative_to(Path.cwd()) else found)


def _there(folder: Path, first: str) -> bool:
    """Whether `folder` has what the first part of a path names; no part is the folder itself."""
    try:
        return not first or any(folder.glob(first))
    except (OSError, ValueError):  # longer than any name, or no glob, such as `**.jsonl`
        return False


# --- stages ----------------------------------------------------------------------------------------------------


def read_stages(file: RecipeFile, registry: Registry) -> tuple[StageSpec, ...]:
    """The stages, in order; a model that is not named is the recipe's only one."""
    if "stages" not in file.data:
        return _preset(file, registry)
    if "preset" in file.data:
        file.complain(("preset",), "`preset` and `stages` say the same thing twice: leave one of them out")
    items = file.data["stages"]
    if not isinstance(items, list) or not items:
        file.complain(
            ("stages",), "`stages` must be a list, for example `stages: [normalize, {length: {max_tokens: 512}}]`"
        )
        return ()
    return _stages(file, ("stages",), items, registry)


def _preset(file: RecipeFile, registry: Registry) -> tuple[StageSpec, ...]:
    """The stages of the preset that the recipe names, or of the default one."""
    name = file.data.get("preset", PRESET)
    entry = registry.presets.get(name) if isinstance(name, str) else None
    if entry:
        of = f" of preset `{name}` (plugin `{entry.owner.name}`)"
        return _stages(file, ("preset",), entry.value.stages, registry, of)
    if "preset" in file.data:
        known = " or ".join(map(repr, registry.presets)) or "left out, as no plugin here gives one"
        file.complain(("preset",), f"`preset` must be {known}, not {name!r}{_lost(registry)}")
    else:
        file.complain((), f"`stages` must be given: no plugin here gives the preset `{PRESET}`{_lost(registry)}")
    return ()


def _stages(
    file: RecipeFile, place: Place, items: Sequence[Any], registry: Registry, of: str = ""
) -> tuple[StageSpec, ...]:
    """The stages `items`, which stand at `place`. `of`: whose they are, for complaints, if not the recipe's own."""
    models = file.data.get("models")
    names = tuple(models) if isinstance(models, dict) else ()
    specs = (_stage(file, (*place, number), item, registry, names, of) for number, item in enumerate(items))
    return tuple(spec for spec in specs if spec)


def _stage(
    file: RecipeFile, place: Place, item: Any, registry: Registry, models: tuple[str, ...], of: str
) -> StageSpec | None:
    if isinstance(item, str):
        name, values = item, None
    elif isinstance(item, dict) and len(item) == 1:
        ((name, values),) = item.items()
        place = (*place, name)
    else:
        file.complain(place, "a stage is a name, or one name with its options: `- length: {max_tokens: 512}`")
        return None
    found = _find(file, place, "stage", name, registry, of)
    if not found:
        return None
    if not isinstance(values, dict | None):
        file.complain(place, f"stage `{name}`: its options must be a mapping, like `{name}: {{...}}`")
        return None
    complete = _checked(file, place, found.options, _with_models(values or {}, found, models), f"stage `{name}`{of}")
    if complete is None:
        return None
    for option in found.options:
        value = complete[option.name]
        if option.role == "model" and value is not None and not models:
            file.complain(("models",), _needed("models", "{chat: {}}"))
        elif option.role == "model" and value is not None and value not in models:
            what = f"stage `{name}`{of}: `{option.name}` is `{value}`, which is no model of this recipe"
            file.complain((*place, option.name), what + suggest(value, models))
    return StageSpec(name, complete)


def _with_models(values: Mapping[str, Any], stage: Entry[Any], models: tuple[str, ...]) -> dict[str, Any]:
    """`values`, with the recipe's only model for every model option that is not given and whose default is no model of
    the recipe."""
    only = models if len(models) == 1 else ()
    options = [o for o in stage.options if o.role == "model" and o.default is not None and o.default not in models]
    return {**{option.name: name for option in options for name in only}, **values}
