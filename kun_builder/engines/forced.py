"""The extensions by which servers hold an answer to a form: one of a few given strings, or JSON of a schema."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from kun_builder.engines.field_support import Fields
from kun_builder.engines.manners import Kind
from kun_builder.types import Request

log = logging.getLogger(__name__)

CHOICE_FORMS = ("structured_outputs", "grammar", "guided_choice", "regex", "response_format")
"""Field names, in the order in which they are tried: vLLM, llama.cpp, older vLLM, SGLang, TGI."""

SCHEMA_FORMS = ("openai", "tgi", "json_object", "json_schema", "guided_json")
"""Forms, in the order in which they are tried: OpenAI and most servers; TGI; llama-cpp-python and some APIs; llama.cpp
for completions; older vLLM."""

_MARK = "mark"
PROBE = Request(
    "",
    choices=("\u00a75", "\u00a77"),
    schema={
        "type": "object",
        "properties": {_MARK: {"type": "string", "enum": ["\u00a75", "\u00a77"]}},
        "required": [_MARK],
        "additionalProperties": False,
    },
)
"""A request for answers that no model gives by itself: a server that returns one does enforce the form."""

Ask = Callable[[Kind, Fields], Awaitable[str]]
"""The text that a server answers to a short question with these fields; empty if it refuses them."""


class Forced:
    """The forms in which one server is made to answer, each tried out once, when it is first wanted."""

    def __init__(self, url: str, ask: Ask) -> None:
        self._url, self._ask = url, ask
        self._found: dict[tuple[Kind, bool], str] = {}
        self._lock = asyncio.Lock()

    async def fields(self, kind: Kind, request: Request) -> Fields:
        """The request field that holds the server to what `request` demands; none if it cannot be held to it."""
        if not request.choices and request.schema is None:
            return {}
        form = await self._form(kind, request.schema is not None)
        return _fields(form, request) if form else {}

    async def _form(self, kind: Kind, schema: bool) -> str:
        async with self._lock:
            if (kind, schema) not in self._found:
                self._found[kind, schema] = await self._search(kind, schema)
            return self._found[kind, schema]

    async def _search(self, kind: Kind, schema: bool) -> str:
        for form in SCHEMA_FORMS if schema else CHOICE_FORMS:
            text = await self._ask(kind, {"temperature": 0, **_fields(form, PROBE)})
            if _has_mark(text) if schema else text.strip().startswith(PROBE.choices[0][0]):
                return form
        if schema:
            log.warning("%s cannot be held to a JSON schema: its answers are only checked", self._url)
        return ""


def _has_mark(text: str) -> bool:
    try:
        return orjson.loads(text)[_MARK] in PROBE.choices
    except (orjson.JSONDecodeError, TypeError, LookupError):
        return False


def _fields(form: str, request: Request) -> Fields:
    return choice_fields(form, request.choices) if form in CHOICE_FORMS else schema_fields(form, request.schema)


def choice_fields(form: str, choices: Sequence[str]) -> Fields:
    """The request field that demands one of `choices` in the extension `form`."""
    match form:
        case "structured_outputs":
            return {form: {"choice": choices}}
        case "grammar":
            quoted = (orjson.dumps(choice).decode() for choice in choices)  # GBNF strings are written as in JSON
            return {form: "root ::= " + " | ".join(quoted)}
        case "guided_choice":
            return {form: choices}
        case "regex":
            return {form: one_of(choices)}
        case _:
            return {form: {"type": "regex", "value": one_of(choices)}}


def schema_fields(form: str, schema: Any) -> Fields:
    """The request field that demands JSON of `schema` in the extension `form`."""
    match form:
        case "openai":
            named = {"name": "answer", "schema": schema, "strict": _is_closed(schema)}
            return {"response_format": {"type": "json_schema", "json_schema": named}}
        case "tgi":
            return {"response_format": {"type": "json", "value": schema}}
        case "json_object":
            return {"response_format": {"type": "json_object", "schema": schema}}
        case _:
            return {form: schema}


def _is_closed(schema: Any) -> bool:
    """Whether OpenAI takes the schema as `strict`: each object of it requires all of its properties and allows no
    others."""
    if isinstance(schema, list):
        return all(map(_is_closed, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        optional = set(schema.get("properties", ())) - set(schema.get("required", ()))
        if optional or schema.get("additionalProperties") is not False:
            return False
    return all(map(_is_closed, schema.values()))


def one_of(choices: Sequence[str]) -> str:
    """A regular expression that matches exactly the given strings."""
    return "(" + "|".join(map(re.escape, choices)) + ")"
