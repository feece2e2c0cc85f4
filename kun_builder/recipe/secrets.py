"""What a model's server must be told and nobody else may see: the API key, and headers. Secrets come from the
environment; what stands in a recipe is never repeated by a complaint, since it may be one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from kun_builder.errors import shown
from kun_builder.readers.addresses import may_hold_key, public
from kun_builder.recipe.file import Place, RecipeFile

_ALL = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = {"accept-encoding", "connection", "content-length", "content-type", "transfer-encoding"}
"""Headers that belong to the way in which requests are written."""


def read_api_key(file: RecipeFile, place: Place, values: Mapping[str, Any]) -> str:
    """The API key from its environment variable."""
    if "api_key" not in values:
        return ""
    found = _ALL.fullmatch(str(values["api_key"]))
    if not found:
        file.complain(place, "`api_key` must name an environment variable, like `${API_KEY}`: keys are not for files")
        return ""
    return _variable(file, place, "`api_key`", found[1])


def read_headers(file: RecipeFile, place: Place, given: Any) -> dict[str, str]:
    """The headers, `${NAME}` in their values replaced by environment variables."""
    if not isinstance(given, dict):
        file.complain(place, "`headers` must be a mapping, like `headers: {x-team: data, api-key: '${API_KEY}'}`")
        return {}
    return {name: _header(file, (*place, name), name, value) for name, value in given.items()}


def _header(file: RecipeFile, place: Place, name: str, value: Any) -> str:
    what = f"header `{name}`"
    if not _HEADER.fullmatch(name):
        file.complain(place, f"{what}: no server takes such a name")
    elif name.lower() in _OURS:
        file.complain(place, f"{what} says how requests are written and cannot be set")
    elif not isinstance(value, str) or not _sendable(value):
        file.complain(place, f"{what}: its value must be a string of ASCII characters in one line; quote it")
    else:
        return _ALL.sub(lambda found: _variable(file, place, what, found[1]), value)
    return ""


def _variable(file: RecipeFile, place: Place, what: str, name: str) -> str:
    """The value of an environment variable, without the line end that files of secrets have."""
    value = os.environ.get(name, "").strip()
    if not value:
        file.complain(place, f"{what}: the environment variable {name} is not set")
    elif not _sendable(value):
        file.complain(place, f"{what}: the environment variable {name} holds more than ASCII characters in one line")
    return value


def _sendable(value: str) -> bool:
    return value.isascii() and value.isprintable()


def check_paths(file: RecipeFile, place: Place, paths: Iterable[str]) -> None:
    """Note each address of an input that may hold a key: inputs stand in recipe.lock.yaml, which is published."""
    for path in filter(may_hold_key, paths):
        what = f"{shown(public(path))} has a password or a query that may be a key, and recipes are published"
        file.complain(place, f"{what}: {_KEYLESS}")


_KEYLESS = (
    "keys come from the environment (`AWS_ACCESS_KEY_ID`, `HF_TOKEN`, ~/.netrc); download what a signed link gives"
)
