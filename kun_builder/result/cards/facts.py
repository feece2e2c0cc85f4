"""The facts that a card is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kun_builder.report import SplitReport, StepFacts
from kun_builder.result.stats import SplitStats

if TYPE_CHECKING:
    from datasets import Features


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run that made some of the splits."""

    name: str
    version: str
    created: str
    seed: int
    limit: int | None
    lock: str
    """Path of its lock file in the repository."""
    steps: tuple[StepFacts, ...]
    models: Mapping[str, Mapping[str, Any]]
    review: Mapping[str, Any] | None = None
    """What people said of its pairs (`verdicts.summary`)."""
    evaluation: Mapping[str, Any] | None = None
    """What a model said of them (`kun-build evaluate pairs`)."""
    usage: tuple[Mapping[str, Any], ...] = ()
    """What each step asked of each model."""
    seconds: float = 0.0
    machine: str = ""
    hardware: str = ""
    """What kun-builder ran on, and what the models did."""


@dataclass(frozen=True, kw_only=True)
class ConfigFacts:
    """One configuration: where its files are, what columns they have, and how large its splits are."""

    features: Features
    paths: Mapping[str, str]
    """Glob pattern per split."""
    sizes: Mapping[str, tuple[int, int]]
    """Rows and bytes (in memory) per split."""
    download_size: int


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """All that a card says."""

    title: str
    repo: str
    """What `load_dataset` takes: a repository, or a folder."""
    splits: Mapping[str, tuple[SplitReport, SplitStats]]
    runs: Mapping[str, RunFacts]
    run_of: Mapping[str, str]
    """Per split, the key of its run."""
    configs: Mapping[str, ConfigFacts]
    license: str
    """As the Hub spells it, `other`, any other words, or nothing if none is declared."""
    license_name: str = ""
    license_link: str = ""
    """Of a licence that the Hub has no name for."""
    withheld: frozenset[str]
    """Splits whose raw text may not be passed on."""
    authors: tuple[str, ...] = ()
    contact: str = ""
    citation: str = ""
    """BibTeX of the dataset, if the recipe has one."""
    own_words: str = ""
    """The section with a person's own words, between its two lines."""
    acknowledged: bool
    """Whether the publisher has said to know the licences of the withheld splits."""
    releases: Sequence[Mapping[str, Any]]
    """What each release changed, oldest first."""
    pictures: tuple[str, ...]
    least: Mapping[str, float] = field(default_factory=dict)
    """Per column of numbers: the value from which rows are kept, if it is the same in all runs."""

    @property
    def pairs(self) -> bool:
        """Whether the rows are pairs, and not texts."""
        return "instruction" in self.configs["default"].features

    @property
    def rows(self) -> int:
        """Rows of all splits."""
        return sum(report.kept for report, _ in self.splits.values())
