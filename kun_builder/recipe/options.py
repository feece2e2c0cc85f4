"""Options: the keyword-only parameters of a plugin's functions, with their annotations and defaults."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

from kun_builder.declarations import Role
from kun_builder.errors import PluginError
from kun_builder.prompts import Prompt

if TYPE_CHECKING:
    pass

REQUIRED: Final = inspect.Parameter.empty
"""The default of an option that has none."""
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Option:
    """One option: its name, resolved annotation and default (`REQUIRED` where there is none)."""

    name: str
    annotation: Any
    default: Any = REQUIRED

    @property
    def role(self) -> str:
        """What the value names: `model`, `tokenizer`, `file`, `column` or `verdicts`; empty if it names nothing."""
        return self._mark.kind if self._mark else ""

    @property
    def needs(self) -> str:
        """What the model that the option names must be able to do besides answering; empty if that is nothing."""
        return self._mark.needs if self._mark else ""

    @property
    def _mark(self) -> Role | None:
        return next((mark for mark in _marks(self.annotation) if isinstance(mark, Role)), None)

    @property
    def type(self) -> str:
        """The annotation as people write it."""
        return type_name(self.annotation)


def options_of(function: Callable[..., Any], positional: Sequence[str]) -> tuple[Option, ...]:
    """The options of `function`, which must take exactly as many `positional` parameters as are named there.

    Raises PluginError for any other signature, and for an annotation that is missing or cannot be resolved.
    """
    wanted = f"({', '.join((*positional, '*', 'options...'))})"
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise PluginError(f"{function!r} has no signature", hint=f"it must be a function {wanted}") from error
    kinds = [parameter for parameter in parameters if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    wrong = [p for p in kinds if p.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)]
    if wrong or len(kinds) != len(positional):
        raise PluginError(
            f"`{_name(function)}{inspect.signature(function)}` must be `{_name(function)}{wanted}`",
            hint="options are keyword-only: they stand behind a `*`, each with an annotation",
        )
    return keyword_options(function)


def takes_workspace(function: Callable[..., Any]) -> bool:
    """Whether the `run` of a DatasetStage has a second parameter, `workspace`."""
    try:
        return len([p for p in inspect.signature(function).parameters.values() if p.kind in _POSITIONAL]) == 2
    except (TypeError, ValueError):  # said better by `options_of`
        return False


def keyword_options(function: Callable[..., Any]) -> tuple[Option, ...]:
    """The keyword-only parameters of `function`. Only their annotations are resolved: those of rows and tables may be
    unknown at run time. Raises PluginError as `options_of` does."""
    plain = inspect.unwrap(function)
    while isinstance(plain, functools.partial):
        plain = inspect.unwrap(plain.func)
    names = getattr(getattr(plain, "__func__", plain), "__globals__", {})
    options = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if parameter.annotation is REQUIRED:
            raise PluginError(
                f"option `{parameter.name}` of `{_name(function)}` has no annotation",
                hint=f"write its type: `{parameter.name}: int = ...`",
            )
        holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        try:
            hint = typing.get_type_hints(holder, globalns=names, include_extras=True)[parameter.name]
        except (NameError, TypeError, SyntaxError, AttributeError) as error:
            raise PluginError(
                f"the annotation of option `{parameter.name}` of `{_name(function)}` cannot be resolved: {error}",
                hint="import its type at the top of the module, not under TYPE_CHECKING",
            ) from error
        options.append(Option(parameter.name, hint, _whole_line(parameter.default)))
    return tuple(options)


def _whole_line(default: Any) -> Any:
    """The prompt with a line end behind it, as one from a file has: by its line ends a recipe tells it from a path."""
    if isinstance(default, Prompt) and "\n" not in default.text:
        return dataclasses.replace(default, text=default.text + "\n")
    return default


def merge(parts: Iterable[tuple[Option, ...]]) -> tuple[Option, ...]:
    """The options of several functions together. Raises PluginError if two of them mean different things by a name."""
    merged: dict[str, Option] = {}
    for option in (option for part in parts for option in part):
        if show(merged.setdefault(option.name, option)) != show(option):
            raise PluginError(
                f"option `{option.name}` has two meanings: {show(merged[option.name])} and {show(option)}",
                hint="give it the same annotation and default wherever it occurs",
            )
    return tuple(merged.values())


def show(option: Option) -> str:
    """`name: type = default`."""
    default = "" if option.default is REQUIRED else f" = {show_value(option.default)}"
    return f"{option.name}: {option.type}{default}"


def show_value(value: Any) -> str:
    """A default for people: strings quoted, a prompt by its name."""
    return f"<prompt {value.name}>" if isinstance(value, Prompt) else repr(value)


def type_name(annotation: Any) -> str:
    """An annotation for people: `int | None`, `'a' | 'b'`, `list[str]`, `model`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        roles = [mark.kind for mark in annotation.__metadata__ if isinstance(mark, Role)]
        return roles[0] if roles else type_name(arguments[0])
    if origin is Literal:
        return " | ".join(repr(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(part) for part in arguments)
    if origin is not None:
        inner = ", ".join("..." if part is Ellipsis else type_name(part) for part in arguments)
        return f"{getattr(origin, '__name__', str(origin))}[{inner}]"
    if annotation is Prompt:
        return "prompt"
    return "None" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def plain_value(value: Any) -> Any:
    """An option's value as YAML has it, prompts in full."""
    if isinstance(value, Prompt):
        return value.text
    if isinstance(value, Mapping):
        return {str(name): plain_value(item) for name, item in value.items()}
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


def placeholder(annotation: Any) -> Any:
    """Some value of the annotated type, for an example."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Annotated, Literal, Union, types.UnionType):
        return arguments[0] if origin is Literal else placeholder(arguments[0])
    if origin in (list, tuple, set, frozenset):
        return [placeholder(part) for part in arguments if part is not Ellipsis]
    simple: dict[Any, Any] = {int: 1, float: 1.0, bool: True, dict: {}, Prompt: "{text}\n"}
    return simple.get(origin or annotation, "...")


def accepted(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `options` that `function` has a parameter for."""
    return {name: options[name] for name in inspect.signature(function).parameters if name in options}


def _marks(annotation: Any) -> list[Any]:
    marks = list(getattr(annotation, "__metadata__", ()))
    return marks + [mark for part in typing.get_args(annotation) for mark in _marks(part)]


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))
