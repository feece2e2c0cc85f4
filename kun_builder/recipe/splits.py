"""What a recipe can say of a split, besides the options of its source."""

from __future__ import annotations

from collections.abc import Sequence

from kun_builder.recipe.options import Option

SPLIT_OPTIONS = (Option("source", str), Option("path", str | tuple[str, ...]))
"""What every split is told, whatever its source."""
CORPUS_OPTIONS = (
    Option("corpus", str | None, None),
    Option("title", str | None, None),
    Option("license", str | None, None),
    Option("redistributable", bool | None, None),
    Option("homepage", str | None, None),
    Option("citation", str | None, None),
)
"""What a recipe may say of a split's corpus in its source's place, for the card. An option of the source that has one
of these names goes before it; `corpus` is the title even where `title` is such an option."""


def corpus_options(source: Sequence[Option]) -> tuple[Option, ...]:
    """Those of `CORPUS_OPTIONS` that the source's own options leave free."""
    taken = {option.name for option in source}
    return tuple(option for option in CORPUS_OPTIONS if option.name not in taken)
