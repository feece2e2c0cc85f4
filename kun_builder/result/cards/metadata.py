"""The YAML head of a card, by the libraries that read it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from kun_builder.errors import PublishError
from kun_builder.result.cards.facts import CardFacts
from kun_builder.run.head import configurations

if TYPE_CHECKING:
    from huggingface_hub import DatasetCardData

_LICENSES = """apache-2.0 mit cc0-1.0 cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0 cc-by-nc-sa-4.0 cc-by-nc-nd-4.0 cc-by-nd-4.0
odc-by odbl openrail bigscience-openrail-m gpl-3.0 lgpl-3.0 agpl-3.0 bsd-2-clause bsd-3-clause unlicense pddl unknown
other"""
LICENSES = frozenset(_LICENSES.split())
"""Licences that the Hub knows by these names; any other is `other` with a `license_name`."""
_LANGUAGE_SHARE = 0.01
_PAIRS = ("instruction-tuning", "instruction-back-translation", "synthetic")
"""Tags of a dataset of instructions and answers."""


def metadata(facts: CardFacts) -> str:
    """The YAML head, by the libraries that read it."""
    from huggingface_hub import DatasetCardData

    license_id = facts.license.lower()
    named = license_id in LICENSES - {"other"} or not license_id
    data = DatasetCardData(
        language=languages(facts),
        license=(license_id or "unknown") if named else "other",
        pretty_name=facts.title,
        size_categories=[_size(facts.rows)],
        task_categories=["text-generation"],
        annotations_creators=["machine-generated" if facts.pairs else "no-annotation"],
        language_creators=["found", *(["machine-generated"] if facts.pairs else [])],
        source_datasets=_corpora(facts) or None,
        tags=[*(_PAIRS if facts.pairs else ()), "kun-builder"],
    )
    if not named:
        data["license_name"], data["license_link"] = _other_licence(facts)
    _add_configs(data, facts)
    return str(data.to_yaml())


def _other_licence(facts: CardFacts) -> tuple[str, str]:
    """Name and address of a licence that the Hub has no name for: what the recipe says, or the card's own section."""
    text = "" if facts.license.lower() == "other" else facts.license
    name = facts.license_name or text or "see-the-card"
    return name, facts.license_link or f"https://huggingface.co/datasets/{facts.repo}#licences"


def _corpora(facts: CardFacts) -> list[str]:
    """The corpora that have a title, as the Hub writes them in `source_datasets`."""
    titles = {re.sub(r"[^\w.]+", "-", report.title).strip("-").lower() for report, _ in facts.splits.values()}
    return sorted(f"extended|other-{title}" for title in titles if title)


def _add_configs(data: DatasetCardData, facts: CardFacts) -> None:
    """Put file patterns, columns and sizes of each configuration into the metadata."""
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict

    infos = DatasetInfosDict()
    for name, config in facts.configs.items():
        splits = SplitDict()
        for split, (rows, size) in config.sizes.items():
            splits.add(SplitInfo(split, num_bytes=size, num_examples=rows))
        infos[name] = DatasetInfo(
            config_name=name,
            features=config.features,
            splits=splits,
            download_size=config.download_size,
            dataset_size=sum(size for _, size in config.sizes.values()),
        )
    infos.to_dataset_card_data(data)
    data["configs"] = configurations({name: config.paths for name, config in facts.configs.items()})


def check_card(text: str, facts: CardFacts) -> None:
    """Read the card back as `datasets` will. Raises PublishError if it does not say what was meant."""
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    data = DatasetCard(text).data
    configs = MetadataConfigs.from_dataset_card_data(data)
    infos = DatasetInfosDict.from_dataset_card_data(data)
    for name, config in facts.configs.items():
        declared = {part["split"]: part["path"] for part in configs.get(name, {}).get("data_files", ())}
        if declared != dict(config.paths) or infos[name].features != config.features:
            raise PublishError(f"the card's metadata of configuration `{name}` does not read back as it was written")


def _size(rows: int) -> str:
    """The Hub's name for a size: `n<1K`, then one for each power of ten up to `n>1T`."""
    digits = len(str(rows))
    if digits <= 3:
        return "n<1K"
    return f"{_power(digits - 1)}<n<{_power(digits)}" if digits <= 12 else "n>1T"


def _power(of_ten: int) -> str:
    return f"{10 ** (of_ten % 3)}{' KMBT'[of_ten // 3]}"


def languages(facts: CardFacts) -> list[str]:
    """Languages that at least one row in a hundred has in its column `language`; Chinese where there is no such column.

    The Hub finds datasets by these, so they are the languages of the rows. The card itself is in English, too.
    """
    found: Counter[str] = Counter()
    for _, stats in facts.splits.values():
        found.update(stats.languages)
    common = [name for name, count in found.most_common() if count >= _LANGUAGE_SHARE * found.total()]
    return [name for name in common if name.isalpha()] or ["zh"]
