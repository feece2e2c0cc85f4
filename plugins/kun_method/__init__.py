"""Kun's method: label, score and polish a text, refine and verify the pair. The prompts are the files in `prompts/`."""

from __future__ import annotations

from kun_builder import RowStage, hookimpl

from . import label, polish, refine, score, verify

kun_api = 1


@hookimpl
def kun_stages() -> list[RowStage]:
    """The five stages, in the order that a recipe uses them."""
    return [label.stage, score.stage, polish.stage, refine.stage, verify.stage]
