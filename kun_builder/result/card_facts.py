"""Makes the facts of a card out of the entries of a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kun_builder.errors import PublishError
from kun_builder.report import SplitReport, StepFacts
from kun_builder.result.cards.facts import CardFacts, ConfigFacts, RunFacts
from kun_builder.result.limits import limits_of
from kun_builder.result.own_words import section
from kun_builder.result.stats import SplitStats
from kun_builder.run.head import CONFIGS, readable

if TYPE_CHECKING:
    from datasets import Features

    from kun_builder.result.finished import FinishedRun


def card_facts(
    repo: str,
    run: FinishedRun,
    splits: Mapping[str, Mapping[str, Any]],
    runs: Mapping[str, Mapping[str, Any]],
    releases: Sequence[Mapping[str, Any]],
    words: str = "",
) -> CardFacts:
    run_facts = {key: _run_facts(entry) for key, entry in runs.items()}
    licenses = {entry["license"] for entry in splits.values()}
    return CardFacts(
        title=run.report.name,
        repo=repo,
        splits={n: (SplitReport.from_json(e["report"]), SplitStats.from_json(e["stats"])) for n, e in splits.items()},
        runs=run_facts,
        run_of={name: entry["run"] for name, entry in splits.items()},
        configs={config: config_facts(config, splits) for config in CONFIGS},
        license=licenses.pop() if len(licenses) == 1 else "other",
        authors=tuple(map(str, run.publish.get("authors") or ())),
        **{name: str(run.publish.get(name) or "") for name in ("contact", "citation")},
        own_words=section(words),
        license_name=str(run.publish.get("license_name") or ""),
        license_link=str(run.publish.get("license_link") or ""),
        withheld=frozenset(name for name, entry in splits.items() if entry["withheld"]),
        acknowledged=bool(releases) or run.acknowledged,
        releases=releases,
        pictures=(),
        least=_common_limits(run_facts.values()),
    )


def _run_facts(entry: Mapping[str, Any]) -> RunFacts:
    known = {name: value for name, value in entry.items() if name in RunFacts.__dataclass_fields__}
    return RunFacts(
        **{**known, "steps": tuple(map(StepFacts.from_json, entry["steps"])), "usage": tuple(entry.get("usage", ()))}
    )


def _common_limits(runs: Iterable[RunFacts]) -> dict[str, float]:
    """The limits from which rows are kept, by column, that all runs have set alike."""
    found = [{limit.column: limit.value for limit in limits_of(run.steps) if limit.at_least} for run in runs]
    return dict(set.intersection(*(set(limits.items()) for limits in found))) if found else {}


def config_facts(config: str, splits: Mapping[str, Mapping[str, Any]]) -> ConfigFacts:
    named = readable({name: entry["report"]["kept"] for name, entry in splits.items()})
    entries = {name: splits[name]["configs"][config] for name in named}
    return ConfigFacts(
        features=_union(config, {name: entry["features"] for name, entry in entries.items()}),
        paths={name: entry["path"] for name, entry in entries.items()},
        sizes={name: (splits[name]["report"]["kept"], entry["bytes"]) for name, entry in entries.items()},
        download_size=sum(entry["download"] for entry in entries.values()),
    )


def _union(config: str, columns: Mapping[str, Mapping[str, Any]]) -> Features:
    """The columns of all splits; `datasets` reads one that a split lacks as null. Raises PublishError for a clash."""
    from datasets import Features

    union: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for split, features in columns.items():
        for name, kind in Features.from_dict(dict(features)).items():
            if union.setdefault(name, kind) != kind:
                raise PublishError(
                    f"column `{name}` of {config} is {kind} in split `{split}`, but {union[name]} in `{owner[name]}`",
                    hint="publish both splits from one recipe, or into another repository",
                )
            owner.setdefault(name, split)
    return Features(union)
