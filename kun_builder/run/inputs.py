"""All files that a recipe names, looked for before anything is spent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kun_builder.errors import RecipeError, SourceError, shown
from kun_builder.readers import find_files, name_inputs
from kun_builder.readers.addresses import is_address
from kun_builder.readers.places import Look, look
from kun_builder.recipe.file import Place, RecipeFile
from kun_builder.recipe.options import accepted
from kun_builder.run.parts import blame
from kun_builder.run.plan import digest, file_digests, plain
from kun_builder.types import Source

if TYPE_CHECKING:
    from kun_builder.recipe.parts import SplitSpec
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Entry, Registry

_FORMAT = 2  # of shards as they are read and of what is in their metadata; part of every key


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
                if name != option.default and not Path(os.path.expanduser(name)).exists():
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


# --- one split ---------------------------------------------------------------------------------------------------


def input_key(split: str, spec: SplitSpec, entry: Entry[Source]) -> str:
    """The `reading_key` of a split, whose inputs are looked for. Raises SourceError if there are none."""
    return reading_key(split, inputs_of(split, spec, entry), spec, entry)


def inputs_of(split: str, spec: SplitSpec, entry: Entry[Source]) -> dict[str, str]:
    """The inputs of a split by the names that row ids carry. Raises SourceError if there are none."""
    source = entry.value
    with blame(entry, f"looking for the inputs of split `{split}`"):
        if source.find is None:
            found = [file for path in spec.path for file in find_files(path, source.files, split)]
        else:
            options = accepted(source.find, spec.options)
            found = [file for path in spec.path for file in source.find(path, **options)]
    if not found:
        raise SourceError(f"split `{split}`: source `{source.name}` finds nothing at {shown(', '.join(spec.path))}")
    return name_inputs(found, source.depth)


def reading_key(split: str, inputs: Mapping[str, str], spec: SplitSpec, entry: Entry[Source]) -> str:
    """Digest of the `inputs` of a split (names, sizes, times of change), its options and its source's code."""
    source = entry.value
    stamps = [[name, *look_at(source, path).stamp] for name, path in inputs.items()]
    options = {name: plain(value) for name, value in spec.options.items()}
    files = file_digests(entry.options, spec.options)
    return digest([_FORMAT, split, source.name, source.version, entry.owner.digest, options, files, stamps])


def look_at(source: Source, path: str) -> Look:
    """What is known of an input. An address that a source has found itself may be one that only the source can read."""
    try:
        return look(path)
    except SourceError:
        if source.find is None:
            raise
        return Look()
