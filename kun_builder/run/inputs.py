"""All files that a recipe names, looked for before anything is spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kun_builder.errors import RecipeError, SourceError, shown
from kun_builder.readers.addresses import is_address
from kun_builder.recipe.file import Place, RecipeFile
from kun_builder.run.ingest import input_key

if TYPE_CHECKING:
    from kun_builder.recipe.plugins import Registry
    from kun_builder.recipe.recipe import Recipe


def input_keys(recipe: Recipe, registry: Registry) -> dict[str, str]:
    """Key of what each split reads, as `input_key` makes it; reads no input.

    Raises SourceError with every input, and every file named by an option of a stage, that cannot be found: each with
    its `file:line`.
    """
    keys: dict[str, str] = {}
    missing: list[tuple[Place, str, str]] = []
    for name, spec in recipe.splits.items():
        try:
            keys[name] = input_key(name, spec, registry.sources[spec.source])
        except SourceError as error:
            missing.append((("splits", name, "path"), error.message, error.hint))
    missing += _files(recipe, registry)
    if missing:
        lines = [f"{_where(recipe, place)}{what}" for place, what, _ in missing]
        raise SourceError("\n".join(lines), hint="; ".join(dict.fromkeys(hint for _, _, hint in missing if hint)))
    return keys


def _files(recipe: Recipe, registry: Registry) -> Iterator[tuple[Place, str, str]]:
    """Place, fault and cure of every option of type `FileName` that names no file. Defaults are not checked, since they
    may mean something else."""
    for number, spec in enumerate(recipe.stages):
        for option in registry.stages[spec.name].options:
            value = spec.options[option.name] if option.role == "file" else None
            for name in [value] if isinstance(value, str) else value or ():
                if name != option.default and not Path(name).expanduser().exists():
                    what = f"stage `{spec.name}`: `{option.name}`: no file at {shown(name)}"
                    yield ("stages", number, spec.name, option.name), what, _COPY if is_address(name) else _RELATIVE


_RELATIVE = "files are found relative to the recipe, or from here"
_COPY = "only `path:` of a split takes addresses: copy the file to this machine"


def _where(recipe: Recipe, place: Place) -> str:
    """`file:line: ` of a place in the recipe; nothing for a recipe that is no file, or none any more."""
    try:
        return f"{recipe.file}:{RecipeFile.read(recipe.file).line(place)}: "
    except RecipeError:
        return ""
