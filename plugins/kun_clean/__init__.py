"""Cleaning stages: normalize, language, length, perplexity, dedup."""

from __future__ import annotations

from kun_builder import BatchStage, DatasetStage, hookimpl

from . import dedup, language, length, normalize, perplexity

kun_api = 1


@hookimpl
def kun_stages() -> list[BatchStage | DatasetStage]:
    """The five stages, in the order that a recipe uses them."""
    return [normalize.stage, language.stage, length.stage, perplexity.stage, dedup.stage]
