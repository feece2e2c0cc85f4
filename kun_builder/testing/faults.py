"""How the kit says that a plugin breaks a rule."""

from __future__ import annotations

from kun_builder.errors import PluginError
from kun_builder.recipe.options import Option
from kun_builder.recipe.plugin_checks import checked_options


def expect(holds: object, message: str) -> None:
    """Raise AssertionError with `message` unless `holds`; unlike `assert`, also under `python -O`."""
    if not holds:
        raise AssertionError(message)


def declared(kind: str, value: object) -> tuple[Option, ...]:
    """The options of a source, stage or engine that could be registered as it is."""
    try:
        return checked_options(kind, value)
    except PluginError as error:
        raise AssertionError(f"{error.message}; {error.hint}") from error
