"""`NAME=VALUE` on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """Settings with their values as JSON has them (numbers, true, null, lists), and any other word as it is.

    Raises BadParameter.
    """
    found: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"`{item}` is not NAME=VALUE", param_hint="--set")
        try:
            found[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            found[name.strip()] = value
    return found
