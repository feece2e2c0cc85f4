"""What of its text an answer keeps, as report and card show it for each split: no row is dropped by it."""

from __future__ import annotations

from kun_builder import Quantity

from .pairs import facts_kept

ADDS = {"relative_length": "double", "facts_kept": "double"}
QUANTITIES = {
    "relative_length": Quantity(title="length of the answer", unit="% of the text's characters"),
    "facts_kept": Quantity(title="share of the text's numbers and names that the answer keeps"),
}


def substance(output: str, text: str) -> dict[str, float | None]:
    """The columns of `ADDS`, as `QUANTITIES` describes them; null for a text without characters, numbers or names."""
    kept = facts_kept(output, text)
    return {
        "relative_length": round(100 * len(output) / len(text), 1) if text else None,
        "facts_kept": None if kept is None else round(kept, 4),
    }
