"""Kun's method: label, score and polish a text, refine and verify the pair; ask on. Prompts are files in `prompts/`."""

from __future__ import annotations

from kun_builder import RowStage, hookimpl

from . import follow_up, label, polish, refine, score, verify

kun_api = 1


@hookimpl
def kun_stages() -> list[RowStage]:
    """The stages, in the order that a recipe uses them."""
    return [label.stage, score.stage, polish.stage, refine.stage, verify.stage, follow_up.stage]
