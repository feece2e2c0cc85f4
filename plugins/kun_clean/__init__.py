"""Cleaning stages: normalize, language, length, perplexity, dedup; and, on request, pii and decontaminate."""

from __future__ import annotations

from kun_builder import BatchStage, DatasetStage, hookimpl

from . import decontaminate, dedup, language, length, normalize, perplexity, pii

kun_api = 1


@hookimpl
def kun_stages() -> list[BatchStage | DatasetStage]:
    """The stages, in the order that a recipe uses them."""
    modules = (normalize, pii, language, length, perplexity, dedup, decontaminate)
    return [module.stage for module in modules]
