"""Values of options, checked against their annotations: what a recipe says, with the defaults filled in.

Values come from YAML, so they are checked as JSON is: a string is no number, a list becomes a tuple where the
annotation says so. A parameter annotated `Prompt` takes a path relative to the recipe, or a text of several lines.
"""

from __future__ import annotations

import functools
import json
import os
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from kun_builder.errors import suggest
from kun_builder.prompts import Prompt
from kun_builder.recipe.options import REQUIRED, Option, plain_value

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

_LONGEST = 60  # characters of a wrong value that an error repeats
_YAML_WORDS = {
    "a valid array": "a list",
    "a valid tuple": "a list",
    "an object": "a mapping",
    "a valid dictionary": "a mapping",
}


@dataclass(frozen=True)
class Fault:
    """What is wrong with one option; `place` leads to it from the mapping of options."""

    place: tuple[str | int, ...]
    what: str


def check_options(
    options: Sequence[Option], values: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], list[Fault]]:
    """`values` with their defaults filled in, and what is wrong with them. Prompts are read from `folder`.

    Defaults are checked like values, so that both have the same types: `1` for a float is 1.0 either way.
    """
    from pydantic import ValidationError

    defaults = {option.name: option.default for option in options if option.default is not REQUIRED}
    prompts = {name: value for name, value in defaults.items() if isinstance(value, Prompt)}
    plain = {name: plain_value(value) for name, value in defaults.items() if name not in prompts}
    try:
        text = json.dumps({**plain, **values})  # strict checks of JSON take a list for a tuple, those of objects do not
        given = adapter(options).validate_json(text, strict=True, context=folder)
    except ValidationError as error:
        return {}, faults_of(error, lambda place: [option.name for option in options])
    complete = {**prompts, **given}
    return {option.name: complete[option.name] for option in options}, []


NamesAt = Callable[[tuple[Any, ...]], Sequence[str]]
"""The valid names at a place."""


def faults_of(error: ValidationError, names_at: NamesAt, word: str = "option") -> list[Fault]:
    """Pydantic's complaints as ours. `word` is what the message calls a name: an option, or a key."""
    faults: list[Fault] = []
    wrong: dict[tuple[Any, str], list[Mapping[str, Any]]] = {}  # the variants of a union complain one by one
    for details in error.errors(include_url=False):
        place = tuple(details["loc"])
        if details["type"] == "extra_forbidden":
            faults.append(Fault(place, f"unknown {word} `{place[-1]}`{suggest(str(place[-1]), names_at(place[:-1]))}"))
        elif details["type"] == "missing":
            faults.append(Fault(place[:-1], f"{word} `{place[-1]}` is missing"))
        else:
            wrong.setdefault((place[0], repr(details["input"])), []).append(dict(details))
    return faults + [_wrong(found, same, names_at) for (_, found), same in wrong.items()]


def _wrong(found: str, errors: Sequence[Mapping[str, Any]], names_at: NamesAt) -> Fault:
    place = tuple(errors[0]["loc"])
    name = place[0]
    for depth, part in enumerate(place):  # the last part that a person has named
        if part not in names_at(place[:depth]):
            break
        name = part
    reasons = list(dict.fromkeys(_reason(error) for error in errors))
    what = " or ".join([reasons[0], *(reason.removeprefix("must be ") for reason in reasons[1:])])
    if errors[0]["type"] == "value_error":
        return Fault(place, f"`{name}` {what}")
    near = ""
    if errors[0]["type"] == "literal_error":
        near = suggest(str(errors[0]["input"]), re.findall(r"'([^']*)'", str(errors[0]["ctx"]["expected"])))
    near = near if "mean" in near else _quotes(errors[0]["type"], errors[0]["input"])
    found = found if len(found) <= _LONGEST else found[:_LONGEST] + "..."
    return Fault(place, f"`{name}` {what}, not {found}{near}")


def _quotes(kind: str, given: object) -> str:
    """The cure for what only quotes make wrong: YAML reads a bare `no` or `2024` as no text, a quoted number as one."""
    if kind == "string_type" and isinstance(given, bool | int | float):
        return " (put it in quotes)"
    number = kind in ("int_type", "float_type") and isinstance(given, str) and re.fullmatch(r"-?\d+(?:\.\d+)?", given)
    return " (leave out the quotes)" if number else ""


def _reason(error: Mapping[str, Any]) -> str:
    """Pydantic's message as the end of a sentence about the option, in the words of YAML."""
    text = re.sub(r"^(?:Input|Value|String|List|Tuple|Dictionary) should ", "must ", str(error["msg"]))
    for word, ours in _YAML_WORDS.items():
        text = text.replace(word, ours)
    return text.removeprefix("Value error, ")


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
        path = Path(info.context or ".") / os.path.expanduser(value)
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
