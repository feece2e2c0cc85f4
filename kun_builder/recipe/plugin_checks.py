"""What a plugin hands over, checked before anything runs: kinds, names, signatures, options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kun_builder.declarations import NUMBERS, Preset, Quantity, Section
from kun_builder.drops import VERDICT
from kun_builder.errors import PluginError, suggest
from kun_builder.recipe.option_values import adapter, check_options
from kun_builder.recipe.options import REQUIRED, Option, merge, options_of, show, takes_workspace
from kun_builder.recipe.parts import MODEL_OPTIONS
from kun_builder.recipe.recipe import KEYS
from kun_builder.recipe.splits import SPLIT_OPTIONS
from kun_builder.types import BatchStage, DatasetStage, Engine, RowStage, Source

_NAME = re.compile(r"\w[\w.-]*")
_COLUMN = re.compile(r"(list<)?(string|binary|bool|int32|int64|float|double)(?(1)>)")
"""Checked here and not by pyarrow: the start does not wait for its import."""
_TYPES: dict[str, tuple[type[Any], ...]] = {
    "source": (Source,),
    "stage": (RowStage, BatchStage, DatasetStage),
    "engine": (Engine,),
    "section": (Section,),
    "preset": (Preset,),
}
_TAKEN = {
    "source": {option.name for option in SPLIT_OPTIONS},
    "engine": {option.name for option in MODEL_OPTIONS},
}
"""Keys that every split, and every model, of a recipe has: no option of a plugin may have their name."""


def checked_values(values: Any) -> Sequence[object]:
    """What a hook returned, which must be a list."""
    if isinstance(values, list | tuple):
        return values
    raise PluginError(f"a hook returned {type(values).__name__}, not a list", hint="return [...], even for one")


def checked_options(kind: str, value: Any) -> tuple[Option, ...]:
    """The options of a source, stage or engine. Raises PluginError if it cannot work as what it claims to be."""
    if type(value) not in _TYPES[kind]:
        wanted = " or ".join(each.__name__ for each in _TYPES[kind])
        raise PluginError(f"{value!r} is no {kind}", hint=f"`kun_{kind}s` returns a list of {wanted}")
    if not isinstance(value.name, str) or not _NAME.fullmatch(value.name):
        raise PluginError(f"{value.name!r} cannot name a {kind}", hint="use letters, digits, `_` and `-`")
    try:
        options = merge(_functions(value))
        _check_types(options)
        taken = sorted(_TAKEN.get(kind, set()) & {option.name for option in options})
        if taken:
            raise PluginError(f"option `{taken[0]}` has a meaning in every recipe", hint="give it another name")
    except PluginError as error:
        raise PluginError(f"{kind} `{value.name}`: {error.message}", hint=error.hint) from error
    return options


def _check_types(options: Sequence[Option]) -> None:
    """Every annotation must be one that a recipe can fill, and every default must fit its own."""
    from pydantic import PydanticUserError
    from pydantic_core import PydanticSerializationError

    for option in options:
        try:
            adapter([option])
            faults = [] if option.default is REQUIRED else check_options([option], {}, Path())[1]
        except (PydanticUserError, PydanticSerializationError) as error:
            reason = str(error).partition("\n")[0]
            raise PluginError(
                f"no recipe can say `{show(option)}`: {reason}", hint="use str, int, list[...]"
            ) from error
        if faults:
            raise PluginError(f"{faults[0].what}, but that is its default", hint="change the default or the annotation")


def _functions(value: Any) -> list[tuple[Option, ...]]:
    """The options of each function of `value`, whose signatures are checked on the way."""
    if isinstance(value, Section):
        _check_section(value)
        return []
    if isinstance(value, Preset):
        _check_preset(value)
        return []
    if isinstance(value, Source):
        parts = [options_of(value.parse, ("data",))]
        parts += [options_of(value.find, ("path",))] if value.find else []
        parts += [options_of(value.verbatim, ())] if value.verbatim else []
        return parts + ([options_of(value.read, ("input", "start"))] if value.read else [])
    if isinstance(value, RowStage):
        _check_async(value.run, True, "async def run(row, generate, *, options...)")
        _check_forms(value)
        return [_run(value, ("row", "generate"))]
    if isinstance(value, BatchStage):
        _check_async(value.run, False, "def run(table, *, options...)")
        return [_run(value, ("table",))]
    if isinstance(value, DatasetStage):
        _check_async(value.run, False, "def run(dataset, *, options...)")
        return _dataset_stage(value)
    return [options_of(value.connect, ("spec",))]


def _check_section(section: Section) -> None:
    """The model of a section refuses unknown keys, and stands for a recipe without the section."""
    from pydantic import BaseModel, ValidationError

    if section.name in KEYS:
        raise PluginError(f"`{section.name}` is a key of every recipe", hint="give the section another name")
    if not (isinstance(section.model, type) and issubclass(section.model, BaseModel)):
        raise PluginError(f"its `model` is {section.model!r}, not a class", hint="derive one from pydantic's BaseModel")
    if section.model.model_config.get("extra") != "forbid":
        raise PluginError("its model takes any key", hint='give it `model_config = ConfigDict(extra="forbid")`')
    try:
        section.model()
    except ValidationError as error:
        field = error.errors(include_url=False)[0]["loc"]
        what = f"its field `{'.'.join(map(str, field))}` has no default"
        raise PluginError(what, hint="a recipe may leave the section out") from error


def _check_preset(preset: Preset) -> None:
    """Its stages have the form of those in a recipe."""
    if not isinstance(preset.stages, list | tuple) or not preset.stages:
        raise PluginError(f"its `stages` are {preset.stages!r}", hint='list them: `stages=("normalize", "dedup")`')
    for stage in preset.stages:
        one = isinstance(stage, dict) and len(stage) == 1 and all(isinstance(value, dict) for value in stage.values())
        if not (one or isinstance(stage, str)):
            hint = 'a stage is a name, or one name with its options: `{"length": {"max_tokens": 512}}`'
            raise PluginError(f"its `stages` have {stage!r}", hint=hint)


def _check_forms(stage: RowStage) -> None:
    """Forms are pairs of strings, the second a pattern."""
    for form in stage.forms:
        try:
            name, pattern = form
            re.compile(pattern)
            named = isinstance(name, str)
        except (TypeError, ValueError, re.error):
            named = False
        if not named:
            raise PluginError(f"`forms` has {form!r}", hint="it lists pairs of a name and a regular expression (RE2)")


def _dataset_stage(stage: DatasetStage) -> list[tuple[Option, ...]]:
    run = _run(stage, ("dataset", "workspace")[: 1 + takes_workspace(stage.run)])
    if stage.measure is None:
        return [run]
    measure = options_of(stage.measure, ("table",))
    odd = sorted({option.name for option in run} ^ {option.name for option in measure})
    if odd:
        raise PluginError(
            f"option `{odd[0]}` is not in both `run` and `measure`", hint="both are called with the same options"
        )
    return [run, measure]


def _run(stage: RowStage | BatchStage | DatasetStage, positional: tuple[str, ...]) -> tuple[Option, ...]:
    for column, kind in stage.adds.items():
        if not isinstance(column, str) or not isinstance(kind, str):
            raise PluginError(f"`adds` has {column!r}: {kind!r}", hint="it maps column names to Arrow type names")
        if not _COLUMN.fullmatch(kind):
            what = f"`adds` has `{column}: {kind}`, which is no type of a column"
            raise PluginError(what, hint="use string, binary, bool, int32, int64, float, double, or list<...> of one")
        if column in VERDICT:
            raise PluginError(f"`adds` has `{column}`, which is the engine's own", hint="give it another name")
    options = options_of(stage.run, positional)
    _check_quantities(stage, {option.name for option in options})
    return options


def _check_quantities(stage: RowStage | BatchStage | DatasetStage, options: set[str]) -> None:
    """Each `Quantity` must be of a column of numbers that the stage adds, and name only options that the stage has."""
    for column, quantity in stage.quantities.items():
        if type(quantity) is not Quantity:
            raise PluginError(f"`quantities` has {column!r}: {quantity!r}", hint="it maps column names to `Quantity`")
        if stage.adds.get(column) not in NUMBERS:
            what = f"`quantities` has `{column}`, which is no column of numbers that the stage adds"
            raise PluginError(what, hint=f"`adds` gives the type of each column; numbers are {', '.join(NUMBERS)}")
        for side in ("least", "most"):
            if (option := getattr(quantity, side)) and option not in options:
                what = f"`quantities` says `{side}={option!r}` of `{column}`, and `run` has no such option"
                raise PluginError(what + suggest(option, options), hint="name an option, or leave it out")


def _check_async(function: Callable[..., Any], wanted: bool, signature: str) -> None:
    """A RowStage's `run` must be a coroutine function, all others must not."""
    plain = inspect.unwrap(function)
    if inspect.iscoroutinefunction(plain) != wanted and callable(function):
        raise PluginError(f"`run` must be `{signature}`", hint="only a RowStage is `async`; it may await `generate`")
