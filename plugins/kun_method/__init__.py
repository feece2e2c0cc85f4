"""Kun's method: label, score and polish a text, refine and verify the pair; ask on. Prompts are files in `prompts/`.

`presets` has the recipes of it: the method as published, and the one that looks at each pair.
"""

from __future__ import annotations

from kun_builder import Preset, RowStage, hookimpl

from . import follow_up, label, polish, presets, refine, score, verify

kun_api = 1


@hookimpl
def kun_stages() -> list[RowStage]:
    """The stages, in the order that a recipe uses them."""
    return [label.stage, score.stage, polish.stage, refine.stage, verify.stage, follow_up.stage]


@hookimpl
def kun_presets() -> list[Preset]:
    """The stages that recipes can name by `preset:`."""
    return [presets.VERIFIED, presets.KUN]
