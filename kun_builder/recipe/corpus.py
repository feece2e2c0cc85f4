"""What is declared of a split's corpus: by its source, or by the recipe, which goes before."""

from __future__ import annotations

from typing import TypedDict

from kun_builder.recipe.parts import SplitSpec
from kun_builder.types import Source

_LONGEST_FIELD = 3


class Declared(TypedDict):
    """Facts for the card; empty, or None, is what nobody has declared."""

    title: str
    license: str
    redistributable: bool | None
    homepage: str
    citation: str


def declared(source: Source, spec: SplitSpec) -> Declared:
    """What is known of the corpus of a split.

    The name of a source that reads whatever it is given is not that of the corpus. A licence that the recipe gives says
    nothing of passing the text on.
    """
    said = dict(spec.declared)
    title = said.get("corpus") or said.get("title") or _written_title(spec) or (source.name if source.corpus else "")
    theirs = source.license and said.get("license", source.license) == source.license
    passed_on = source.redistributable if theirs else None
    return Declared(
        title=title,
        license=said.get("license", source.license),
        redistributable=said.get("redistributable", passed_on),
        homepage=said.get("homepage", source.homepage),
        citation=said.get("citation", source.citation),
    )


def _written_title(spec: SplitSpec) -> str:
    """The `title` of a split, where it is plainly the corpus's and not the name of a field: it has several words."""
    title = spec.options.get("title")
    if not isinstance(title, str):
        return ""
    return title if " " in title or (not title.isascii() and len(title) > _LONGEST_FIELD) else ""
