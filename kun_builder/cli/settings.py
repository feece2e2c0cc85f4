"""`NAME=VALUE` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """Settings as YAML would have their values: numbers, true and false, null, lists, words. Raises BadParameter."""
    import yaml

    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"`{item}` is not NAME=VALUE", param_hint="--set")
        try:
            found[name.strip()] = _number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise click.BadParameter(f"the value of `{item}` cannot be read", param_hint="--set") from error
    return found


def _number(value: Any) -> Any:
    """`1e-5` is a word for YAML 1.1 and a number for everyone else."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
