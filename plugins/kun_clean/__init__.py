"""Cleaning stages: normalize, language, length, perplexity, dedup; and, on request, pii, chunk and decontaminate."""

from __future__ import annotations

from kun_builder import BatchStage, DatasetStage, hookimpl

from . import chunk, decontaminate, dedup, language, length, normalize, perplexity, pii

kun_api = 1


@hookimpl
def kun_stages() -> list[BatchStage | DatasetStage]:
    """The stages, in the order that a recipe uses them."""
    modules = (normalize, pii, language, chunk, length, perplexity, dedup, decontaminate)
    return [module.stage for module in modules]
