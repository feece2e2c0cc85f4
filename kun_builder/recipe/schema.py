"""The JSON schema of recipes, for editors: with every source, stage and engine that is installed, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kun_builder.recipe.option_values import adapter
from kun_builder.recipe.options import REQUIRED, Option
from kun_builder.recipe.parts import EMBEDDED, MODEL_OPTIONS, PRESET, SERVER
from kun_builder.recipe.recipe import Settings
from kun_builder.recipe.registry import Entry, Registry
from kun_builder.recipe.splits import SPLIT_OPTIONS, corpus_options

JsonSchema = dict[str, Any]


def json_schema(registry: Registry) -> JsonSchema:
    """JSON schema (draft 2020-12) of the recipes that `registry` allows."""
    schema = Settings.model_json_schema()
    definitions: JsonSchema = schema.pop("$defs")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "kun-builder recipe"
    schema["properties"] |= {
        "models": _named([_model(name, engine.options) for name, engine in registry.engines.items()]),
        "splits": _named([_split(name, source.options) for name, source in registry.sources.items()]),
        "stages": {"type": "array", "minItems": 1, "items": _stage(registry.stages)},
        "preset": {
            "enum": list(registry.presets),
            "default": PRESET,
            "description": "The stages, where `stages` are not given.",
        },
    }
    for name, section in registry.sections.items():
        own = section.value.model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        definitions |= {f"{name}.{inner}": value for inner, value in own.pop("$defs", {}).items()}
        schema["properties"][name] = own
    schema["required"] = ["splits"]  # and `models`, where a stage asks one
    return {**_untitled(schema), "$defs": _untitled(definitions)}


def _named(variants: list[JsonSchema]) -> JsonSchema:
    return {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": variants}}


def _options(options: tuple[Option, ...]) -> JsonSchema:
    schema = adapter(options).json_schema(ref_template="#/$defs/{model}")
    inner = schema.pop("$defs", {})
    return _inlined(schema, inner) if inner else schema


def _inlined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """`value` with its references replaced by what they refer to: options of two plugins may share a type's name."""
    if isinstance(value, dict):
        target = str(value.get("$ref", "")).removeprefix("#/$defs/")
        if target in definitions:
            return _inlined({**definitions[target], **{k: v for k, v in value.items() if k != "$ref"}}, definitions)
        return {key: _inlined(item, definitions) for key, item in value.items()}
    return [_inlined(item, definitions) for item in value] if isinstance(value, list) else value


def _model(name: str, options: tuple[Option, ...]) -> JsonSchema:
    """A model of one engine, which may go unnamed where it is the default."""
    schema = _options((*MODEL_OPTIONS, *options))
    schema["properties"]["engine"] = {"const": name}
    schema["properties"]["api_key"] = {"type": "string", "pattern": r"^\$\{[A-Za-z_]\w*\}$"}
    if name == EMBEDDED:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema if name == SERVER else {**schema, "required": ["engine", *schema.get("required", [])]}


def _split(name: str, options: tuple[Option, ...]) -> JsonSchema:
    schema = _options((*SPLIT_OPTIONS, *corpus_options(options), *options))
    schema["properties"]["source"] = {"const": name}
    return schema


def _stage(stages: Mapping[str, Entry[Any]]) -> JsonSchema:
    """A stage is a name, or one name with its options."""
    bare = [name for name, stage in stages.items() if all(option.default is not REQUIRED for option in stage.options)]
    options = {name: {"anyOf": [_options(stage.options), {"type": "null"}]} for name, stage in stages.items()}
    one = {"type": "object", "properties": options, "additionalProperties": False, "minProperties": 1}
    return {"anyOf": [{"enum": bare}, {**one, "maxProperties": 1}]}


def _untitled(value: Any) -> Any:
    """The schema without the titles that pydantic gives, which only repeat the names of fields."""
    if isinstance(value, dict):
        return {k: _untitled(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}
    return [_untitled(item) for item in value] if isinstance(value, list) else value
