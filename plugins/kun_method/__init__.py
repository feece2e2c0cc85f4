"""Kun's method: label, score and polish a text, refine the pair. The prompts are the files in `prompts/`."""

from __future__ import annotations

from kun_builder import RowStage, hookimpl

from . import label, polish, refine, score

kun_api = 1


@hookimpl
def kun_stages() -> list[RowStage]:
    """The four stages, in the order that a recipe uses them."""
    return [label.stage, score.stage, polish.stage, refine.stage]
