"""Answers that must be JSON of a schema: read and checked here, whether or not the server was held to it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import orjson

from kun_builder.errors import PluginError

_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)
"""The code fence in which models wrap JSON if no server holds them to it."""
_SHOWN = 200


class Mismatch(Exception):
    """An answer that is not what the schema demands; the text says where."""


def check_schema(schema: Mapping[str, Any], stage: str) -> None:
    """Raise PluginError unless `schema`, as a stage gave it, is a JSON schema that refers to nothing outside of it."""
    if fault := _compiled(_packed(schema, stage))[1]:
        raise _wrong(stage, fault)


def read_answer(text: str, schema: Mapping[str, Any], stage: str) -> Any:
    """The value that the JSON of an answer stands for. Raises Mismatch, with the first fault, if it does not fit."""
    from referencing.exceptions import Unresolvable

    fenced = _FENCED.fullmatch(text)
    try:
        value = orjson.loads(fenced[1] if fenced else text)
    except orjson.JSONDecodeError as error:
        raise Mismatch(f"no JSON ({error}): {text[:_SHOWN]}") from error
    try:
        fault = next(_compiled(_packed(schema, stage))[0].iter_errors(value), None)
    except Unresolvable as error:
        raise _wrong(stage, str(error)) from error
    if fault is not None:
        raise Mismatch(f"{fault.json_path}: {fault.message}"[:_SHOWN])
    return value


def _wrong(stage: str, fault: str) -> PluginError:
    return PluginError(
        f"stage `{stage}` asks for an answer by a wrong `schema`: {fault}"[: 2 * _SHOWN],
        hint="give a JSON schema as a dict, like that of pydantic's `model_json_schema()`; each `$ref` stays within it",
    )


def _packed(schema: Mapping[str, Any], stage: str) -> bytes:
    if not isinstance(schema, dict):
        raise _wrong(stage, f"it is {type(schema).__name__}, not a dict")
    try:
        return orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, TypeError) as error:
        raise _wrong(stage, str(error)) from error


@functools.lru_cache(maxsize=64)
def _compiled(packed: bytes) -> tuple[Any, str]:
    """The validator of a schema, and what is wrong with the schema."""
    from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]
    from referencing import Registry

    schema = orjson.loads(packed)
    kind = validator_for(schema, default=Draft202012Validator)
    validator = kind(schema, registry=Registry())  # its own would fetch a `$ref` from the network
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        return validator, f"{error.json_path}: {error.message}"
    outside = next((ref for ref in _references(schema) if not ref.startswith("#")), "")
    return validator, f"`$ref` to {outside}" if outside else ""


def _references(schema: Any) -> list[str]:
    """All `$ref` in a schema."""
    if isinstance(schema, list):
        return [ref for part in schema for ref in _references(part)]
    if not isinstance(schema, dict):
        return []
    own = schema.get("$ref")
    return [ref for part in schema.values() for ref in _references(part)] + ([own] if isinstance(own, str) else [])
