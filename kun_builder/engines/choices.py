"""The extensions by which servers make a model answer with one of a few given strings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

FORMS = ("structured_outputs", "grammar", "guided_choice", "regex", "response_format")
"""Field names, in the order in which they are tried: vLLM, llama.cpp, older vLLM, SGLang, TGI."""

PROBE_CHOICES = ("\u00a75", "\u00a77")
"""Answers that no model gives of its own accord: a server that gives one has been made to."""


def choice_fields(form: str, choices: Sequence[str]) -> dict[str, Any]:
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


def one_of(choices: Sequence[str]) -> str:
    """A regular expression that matches exactly the given strings."""
    return "(" + "|".join(map(re.escape, choices)) + ")"
