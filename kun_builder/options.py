"""Options: the keyword-only parameters of a plugin's functions, with their annotations and defaults, and nothing else.

Values come from YAML, so they are checked as JSON is: a string is no number, a list becomes a tuple where the
annotation says so. A parameter annotated `Prompt` takes a path relative to the recipe, or a text of several lines.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

from kun_builder.errors import PluginError, suggest
from kun_builder.prompts import Prompt
from kun_builder.types import Role

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

REQUIRED: Final = inspect.Parameter.empty
"""The default of an option that has none."""

_LONGEST = 60  # characters of a wrong value that an error repeats


@dataclass(frozen=True)
class Option:
    """One option: its name, resolved annotation and default (`REQUIRED` where there is none)."""

    name: str
    annotation: Any
    default: Any = REQUIRED

    @property
    def role(self) -> str:
        """`model` or `tokenizer` for a name that the engine resolves, else empty."""
        roles = [mark.kind for mark in _marks(self.annotation) if isinstance(mark, Role)]
        return roles[0] if roles else ""

    @property
    def type(self) -> str:
        """The annotation as people write it."""
        return type_name(self.annotation)


@dataclass(frozen=True)
class Fault:
    """What is wrong with one option; `place` leads to it from the mapping of options."""

    place: tuple[str | int, ...]
    what: str


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
    return _resolve(function, [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY])


def _resolve(function: Callable[..., Any], parameters: Iterable[inspect.Parameter]) -> tuple[Option, ...]:
    """Resolve the annotations of options only: those of rows and tables may be unknown at run time."""
    plain = inspect.unwrap(function)
    while isinstance(plain, functools.partial):
        plain = inspect.unwrap(plain.func)
    names = getattr(getattr(plain, "__func__", plain), "__globals__", {})
    options = []
    for parameter in parameters:
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
    """A prompt ends with a line end, as one from a file does: a recipe tells it from a path by that."""
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
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_value(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def placeholder(annotation: Any) -> Any:
    """Some value of the annotated type, for an example."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Annotated, Literal, Union, types.UnionType):
        return arguments[0] if origin is Literal else placeholder(arguments[0])
    simple = {int: 1, float: 1.0, bool: True, Prompt: "{text}\n", list: [], tuple: [], dict: {}}
    return simple.get(origin or annotation, "...")


def accepted(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `options` that `function` takes."""
    return {name: options[name] for name in inspect.signature(function).parameters if name in options}


# --- values ----------------------------------------------------------------------------------------------------


def check_options(
    options: Sequence[Option], values: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], list[Fault]]:
    """`values` with their defaults filled in, and what is wrong with them. Prompts are read from `folder`."""
    from pydantic import ValidationError

    defaults = {option.name: option.default for option in options if option.default is not REQUIRED}
    try:
        text = json.dumps(values)  # strict checks of JSON accept a list for a tuple, those of Python objects do not
        given = adapter(options).validate_json(text, strict=True, context=folder)
    except ValidationError as error:
        return {}, faults_of(error, lambda place: [option.name for option in options])
    return {**defaults, **given}, []


def faults_of(
    error: ValidationError, names_at: Callable[[tuple[Any, ...]], Sequence[str]], word: str = "option"
) -> list[Fault]:
    """Pydantic's complaints as ours; `names_at` knows the valid names at a place, which are called `word`."""
    return [_fault(dict(details), names_at, word) for details in error.errors(include_url=False)]


def adapter(options: Sequence[Option], name: str = "Options") -> TypeAdapter[dict[str, Any]]:
    """The checker of a mapping of `options`; also knows their JSON schema."""
    from pydantic import ConfigDict, TypeAdapter, with_config
    from typing_extensions import TypedDict  # before Python 3.12, pydantic cannot use typing's own

    fields = {o.name: _field(o) if o.default is REQUIRED else typing.NotRequired[_field(o)] for o in options}
    make: Any = TypedDict  # mypy knows only literal calls of it
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(make(name, fields)))


def _field(option: Option) -> Any:
    from pydantic import Field

    extra: dict[str, Any] = {}
    if option.default is not REQUIRED and not isinstance(option.default, Prompt):
        extra["default"] = option.default
    return Annotated[_pydantic(option.annotation, option.default), Field(json_schema_extra=extra)]


def _pydantic(annotation: Any, default: Any) -> Any:
    """The annotation with `Prompt` replaced by what reads one."""
    from pydantic import PlainValidator, WithJsonSchema

    if annotation is Prompt:
        read = functools.partial(_prompt, default if isinstance(default, Prompt) else None)
        about = "a file beside the recipe, or a text of several lines"
        return Annotated[Any, PlainValidator(read), WithJsonSchema({"type": "string", "description": about})]
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return Union[tuple(_pydantic(part, default) for part in typing.get_args(annotation))]  # noqa: UP007  (dynamic)
    return annotation


def _prompt(default: Prompt | None, value: Any, info: Any) -> Prompt:
    """Read a prompt; one that replaces a default must use no slot that the default does not have."""
    if not isinstance(value, str):
        raise ValueError("must be the path of a file, or a text of several lines")
    if "\n" in value:
        prompt = Prompt(value)
    else:
        path = Path(info.context or ".") / Path(value).expanduser()
        try:
            prompt = Prompt.load(path)
        except FileNotFoundError:
            near = suggest(path.name, [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else [])
            raise ValueError(f"is a prompt, but there is no file {path}{near}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"is a prompt, but {path} cannot be read: {error}") from None
    unknown = sorted(prompt.slots - default.slots) if default else []
    if default and unknown:
        raise ValueError(f"has a slot {{{unknown[0]}}}{suggest(unknown[0], default.slots)}")
    return prompt


def _fault(error: Mapping[str, Any], names_at: Callable[[tuple[Any, ...]], Sequence[str]], word: str) -> Fault:
    place = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        return Fault(place, f"unknown {word} `{place[-1]}`{suggest(str(place[-1]), names_at(place[:-1]))}")
    if error["type"] == "missing":
        return Fault(place[:-1], f"{word} `{place[-1]}` is missing")
    return Fault(place, f"`{place[0]}` {_reason(error)}")


def _reason(error: Mapping[str, Any]) -> str:
    """Pydantic's message as the end of a sentence about the option, with the value that was found."""
    text = re.sub(r"^(?:Input|Value|String|List|Tuple|Dictionary) should ", "must ", str(error["msg"]))
    text = (
        text.replace("a valid array", "a list")
        .replace("an object", "a mapping")
        .replace("a valid dictionary", "a mapping")
    )
    if error["type"] in ("value_error", "missing"):
        return text.removeprefix("Value error, ")
    found = repr(error["input"])
    text = f"{text}, not {found if len(found) <= _LONGEST else found[:_LONGEST] + '...'}"
    if error["type"] == "literal_error":
        near = suggest(str(error["input"]), re.findall(r"'([^']*)'", str(error["ctx"]["expected"])))
        return text + near if "mean" in near else text
    return text


def _marks(annotation: Any) -> list[Any]:
    marks = list(getattr(annotation, "__metadata__", ()))
    return marks + [mark for part in typing.get_args(annotation) for mark in _marks(part)]


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))
