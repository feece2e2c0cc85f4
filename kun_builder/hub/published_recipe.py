"""What is taken from the lock file of a published dataset, to build it again: the repository is a stranger.

From it come sources, stages, options, prompts, names and revisions of models, and numbers such as the seed. Never
addresses, keys, folders of plugins, or files of this machine, neither to read nor to write: these come from the user,
on the command line or by a recipe of the user's own.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kun_builder.errors import PublishError
from kun_builder.prompts import Prompt
from kun_builder.recipe.file import Dumper, RecipeFile
from kun_builder.recipe.options import REQUIRED, Option, plain_value
from kun_builder.recipe.parts import locate
from kun_builder.recipe.recipe import plugin_settings
from kun_builder.recipe.registry import Registry

_SETTINGS = ("name", "shard_rows", "seed", "format")
_MODEL = (
    "engine",
    "model",
    "revision",
    "prompt",
    "tokenizer",
    "context_length",
    "thinking",
    "thinking_tokens",
    "extra_body",
)
"""Keys of a model that are taken from a repository. Addresses, headers and API keys are not among them."""
_VALUES, _BYTES = 100_000, 16 << 20
_LONGEST = 200  # characters of a model's name


@dataclass(frozen=True)
class UserSettings:
    """What the user gives for building a published dataset again.

    It is the input of each split, and what the user's own recipe says of models and stages; all by their names.
    """

    paths: Mapping[str, Sequence[str]] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dirs: tuple[Path, ...] = ()
    endpoints: tuple[str, ...] = ()
    """Addresses of the user's own servers, which every model is asked at."""


def read_user_settings(
    recipe: Path | None, paths: Mapping[str, str], dirs: tuple[Path, ...], endpoints: tuple[str, ...] = ()
) -> UserSettings:
    """What the user gives on the command line, and for the rest in a `recipe` of the user's own. Raises RecipeError."""
    given = {split: [path] for split, path in paths.items()}
    if recipe is None:
        return UserSettings(paths=given, dirs=dirs, endpoints=endpoints)
    data = RecipeFile.read(recipe).data
    models = {name: values for name, values in _mapping(data.get("models")).items() if isinstance(values, dict)}
    stages = dict(_stage(item) for item in _items(data.get("stages")))
    given = {**_inputs(data, recipe.parent), **given}
    return UserSettings(given, models, stages, (*plugin_settings(recipe).dirs, *dirs), endpoints)


def _inputs(data: Mapping[str, Any], folder: Path) -> dict[str, list[str]]:
    found = {}
    for name, split in _mapping(data.get("splits")).items():
        path = _mapping(split).get("path")
        if paths := [path] if isinstance(path, str) else [part for part in _items(path) if isinstance(part, str)]:
            found[name] = [_absolute(locate(part, folder)) for part in paths]
    return found


def _absolute(path: str) -> str:
    """The path made absolute, since the recipe that is written will be in another folder than the user's."""
    return str(Path(path).absolute()) if Path(path).exists() else path


def read_lock(content: bytes) -> dict[str, Any]:
    """The lock file as plain data. Raises PublishError if it is none, or if its YAML anchors unfold to far too much."""
    if len(content) > _BYTES:
        raise PublishError(f"the published lock file has {len(content):,} bytes: that is no lock file of kun-builder")
    try:
        document = _plain(yaml.safe_load(content), iter(range(_VALUES)))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PublishError("the published lock file is not YAML as kun-builder writes it") from error
    if not (isinstance(document, dict) and isinstance(document.get("splits"), dict)):
        raise PublishError("the published lock file is not one of kun-builder's: it has no `splits`")
    return document


def _plain(value: Any, budget: Iterator[int]) -> Any:
    """A copy of the data without shared parts.

    A few YAML anchors can stand for more values than any memory holds, so the copy is counted while it is made.
    """
    if next(budget, None) is None:
        raise PublishError(f"the published lock file has more than {_VALUES:,} values: no recipe has so many")
    if isinstance(value, dict):
        return {str(name): _plain(item, budget) for name, item in value.items()}
    return [_plain(item, budget) for item in value] if isinstance(value, list) else value


def take_recipe(
    document: Mapping[str, Any], splits: Sequence[str], user: UserSettings, registry: Registry
) -> dict[str, Any]:
    """The recipe that builds `splits` again here. Raises PublishError with all that the user has to give for it."""
    faults: list[str] = []
    recipe = {name: document[name] for name in _SETTINGS if name in document}
    recipe["journal"] = "journal"  # beside the recipe: what a stranger's prompts were answered is not the user's own
    recipe["models"] = {
        name: _model(name, _mapping(values), user, faults) for name, values in _mapping(document.get("models")).items()
    }
    recipe["splits"] = {
        name: _split(name, document["splits"].get(name), user.paths.get(name), registry, faults) for name in splits
    }
    items = [_stage(item) for item in _items(document.get("stages"))]
    recipe["stages"] = [
        {name: _options(name, options, user.stages.get(name, {}), registry, faults)} for name, options in items
    ]
    if faults:
        raise PublishError(
            "\n".join(dict.fromkeys(faults)),
            hint="nothing on this machine is used because a repository names it: say where things are with"
            " --path SPLIT=PATH and --endpoint URL, or in a recipe of your own with --recipe FILE",
        )
    return recipe


def recipe_lines(recipe: Mapping[str, Any]) -> list[str]:
    """The lines of a recipe that people should read before any model is asked: its models, splits and stages.

    Characters that could steer a terminal are escaped.
    """
    text = yaml.dump(
        {name: recipe[name] for name in ("models", "splits", "stages")},
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=120,
    )
    return ["".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in text.split("\n") if line]


def _model(name: str, values: Mapping[str, Any], user: UserSettings, faults: list[str]) -> dict[str, Any]:
    own = user.models.get(name, {})
    taken = {key: values[key] for key in _MODEL if key in values}
    # A server of the user's own is only told the model's name; without one, the name would be opened as a file here.
    asked = user.endpoints or own.get("endpoints") or own.get("endpoints_file")
    names = ("tokenizer",) if asked else ("model", "tokenizer")
    local = {key for key in names if key not in own and is_place(taken.get(key))}
    faults += [f"model `{name}`: its `{key}` is {taken[key]!r}, a place on another machine" for key in sorted(local)]
    return {**taken, **own}


def _split(
    name: str, values: Any, paths: Sequence[str] | None, registry: Registry, faults: list[str]
) -> dict[str, Any] | None:
    if not isinstance(values, dict):
        faults.append(f"the lock file says nothing of the split `{name}`")
        return None
    if not paths:
        faults.append(f"split `{name}`: where is its input here? It was built from {values.get('path')!r}")
    source = registry.sources.get(str(values.get("source")))
    options = {key: value for key, value in values.items() if key not in ("source", "path")}
    known = source.options if source else ()
    taken = _checked(f"split `{name}`", options, {}, known, faults)
    return {"source": values.get("source"), "path": list(paths or ()), **taken}


def _options(
    name: str, values: Mapping[str, Any], own: Mapping[str, Any], registry: Registry, faults: list[str]
) -> dict[str, Any]:
    known = registry.stages[name].options if name in registry.stages else ()
    return _checked(f"stage `{name}`", values, own, known, faults)


def _checked(
    owner: str, values: Mapping[str, Any], own: Mapping[str, Any], known: Sequence[Option], faults: list[str]
) -> dict[str, Any]:
    """The options that a recipe may have from the repository.

    Those that name files of this machine are the user's. An unknown option stays: reading the recipe refuses it later.
    """
    taken = dict(values)
    for option in known:
        value = values.get(option.name)
        if option.name not in values or (option.default is not REQUIRED and value == plain_value(option.default)):
            continue
        if not _reads(option, value):
            continue
        if option.name in own:
            taken[option.name] = own[option.name]
        else:
            faults.append(f"{owner}: its `{option.name}` names {value!r}, a file of another machine")
    return taken


def _reads(option: Option, value: Any) -> bool:
    """Whether the option would read a file because of this value, as a prompt of one line does: it is a path."""
    if option.role in ("file", "verdicts"):
        return value not in (None, "", [])
    if option.role == "tokenizer":
        return is_place(value)
    return _mentions(option.annotation, Prompt) and isinstance(value, str) and "\n" not in value


def is_place(value: Any) -> bool:
    """Whether a name of a model or tokenizer is a path or an address: anything but a plain or an `org/name`."""
    if not isinstance(value, str):
        return False
    if len(value) > _LONGEST or not value.isprintable():
        return True
    named = value.startswith(("/", "~", ".")) or "\\" in value or "://" in value or value.endswith(".json")
    return named or ".." in value.split("/") or Path(value).exists()


def _mentions(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_mentions(part, kind) for part in typing.get_args(annotation))


def _stage(item: Any) -> tuple[str, dict[str, Any]]:
    """Name and options of one entry of `stages`."""
    if isinstance(item, dict) and len(item) == 1:
        ((name, options),) = item.items()
        return str(name), _mapping(options)
    return str(item), {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
