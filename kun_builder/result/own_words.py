"""A person's own words in a card: a section between two lines, which every push keeps.

They come from the recipe (`publish: {notes: FILE}`) or are written on the Hub, between the lines of the card there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

BEGIN = "<!-- Your own words: whatever stands between these two lines is kept by every later push. -->"
END = "<!-- End of your own words. -->"
_SECTION = re.compile(f"{re.escape(BEGIN)}\n(.*?)\n?{re.escape(END)}", re.DOTALL)


def section(words: str) -> str:
    """The section with `words` in it, without those of their lines that would end the section."""
    inner = words.replace(BEGIN, "").replace(END, "").strip()
    return f"{BEGIN}\n{inner}\n{END}"


def words_of(card: str) -> str | None:
    """The words in the section of a card; None if it has no section."""
    found = _SECTION.search(card.replace("\r\n", "\n"))
    return found[1].strip() if found else None


def merge(recipe: str, before: Mapping[str, Any], published: str | None) -> str:
    """The words of the next card.

    recipe: what the recipe says now. before: what it said at the last push (`recipe`) and what the card then showed
    (`shown`). published: what stands on the Hub now, if the card there has the section.
    """
    shown = before.get("shown", "") if published is None else published
    said = before.get("recipe", "")
    recipe = recipe.strip()
    if not recipe or recipe == said or recipe in shown:
        return str(shown)
    if said and said in shown:
        return str(shown.replace(said, recipe, 1))
    return f"{shown}\n\n{recipe}".strip()


def with_words(card: str, words: str) -> Iterator[str]:
    """Yield what a published card may have been before somebody wrote in its section.

    `words` stood in the section then. An editor may have changed the line ends, or added or removed the last one, so
    there is one card for each of these.
    """
    plain = card.replace("\r\n", "\n")
    swapped = _SECTION.sub(lambda _: section(words), plain, count=1)
    yield swapped
    yield swapped.rstrip("\n") + "\n"
    yield swapped.rstrip("\n")
