"""JSON against the schemas of an OpenAPI 3.0 description, with the `jsonschema` package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator


class Api:
    """The schemas of a description. A property that it does not name is an error, since servers overlook such ones."""

    def __init__(self, path: Path) -> None:
        self._components = {"schemas": {}}
        schemas = json.loads(path.read_text())["components"]["schemas"]
        self._components["schemas"] = {name: _closed(_translated(schema)) for name, schema in schemas.items()}

    def check(self, name: str, value: Any) -> None:
        """Raises jsonschema.ValidationError if `value` is not a `name`."""
        schema = {"$ref": f"#/components/schemas/{name}", "components": self._components}
        Draft202012Validator(schema).validate(value)


def _translated(schema: Any) -> Any:
    """OpenAPI's `nullable` in the words of JSON Schema."""
    if isinstance(schema, list):
        return [_translated(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _translated(value) for key, value in schema.items() if key not in {"nullable", "example", "default"}}
    return {"anyOf": [inner, {"type": "null"}]} if schema.get("nullable") is True else inner


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "additionalProperties": False} if "properties" in schema else schema
