"""Dataset cards: the facts of a release and the templates of `dataset_cards/` become a README.md. Pure.

Every number comes from the report, every sentence from a template that a person can read and sign. A fact that a
template asks for and that is missing stops the publishing (`StrictUndefined`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from kun_builder import markdown
from kun_builder.errors import PublishError
from kun_builder.report import SplitReport
from kun_builder.stats import SplitStats

if TYPE_CHECKING:
    from datasets import Features
    from huggingface_hub import DatasetCardData

_LICENSES = """apache-2.0 mit cc0-1.0 cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0 cc-by-nc-sa-4.0 cc-by-nc-nd-4.0 cc-by-nd-4.0
odc-by odbl openrail bigscience-openrail-m gpl-3.0 lgpl-3.0 agpl-3.0 bsd-2-clause bsd-3-clause unlicense pddl unknown
other"""
LICENSES = frozenset(_LICENSES.split())
"""Licences that the Hub knows by these names; any other is `other` with a `license_name`."""
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_LANGUAGE_SHARE = 0.01
CAPTIONS = {
    "funnel": "Rows left after each step · 每一步之后剩余的条数",
    "lengths": "Length of instructions and outputs · 指令与回答的长度",
    "scores": "Scores, and the threshold · 得分与阈值",
    "perplexity": "Perplexity, and the range that its step let pass · 困惑度及其通过范围",
    "asks": "What instructions ask for · 指令的类型",
}
"""Pictures of a card in order, with the text for those who do not see them."""


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
    steps: tuple[Mapping[str, Any], ...]
    models: Mapping[str, Mapping[str, Any]]
    review: Mapping[str, Any] | None = None
    """What people said of its pairs (`verdicts.summary`)."""
    evaluation: Mapping[str, Any] | None = None
    """What a model said of them (`kun-build evaluate pairs`)."""


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
    withheld: frozenset[str]
    """Splits whose raw text may not be passed on."""
    acknowledged: bool
    """That the publisher has said to know what that means."""
    releases: Sequence[Mapping[str, Any]]
    """What each release changed, oldest first."""
    pictures: tuple[str, ...]
    threshold: float | None = None
    """The score from which rows are kept, if it is the same in all runs."""


def card(facts: CardFacts) -> str:
    """README.md: metadata and prose in English and Chinese. Raises PublishError where a fact is missing."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: `markdown` escapes what is foreign
    )
    environment.filters |= {name: getattr(markdown, name) for name in ("words", "code", "fence", "link", "inside_html")}
    environment.filters |= {"prompts": prompts, "settings": settings}
    try:
        body = environment.get_template("README.md.jinja").render(facts=facts, **_derived(facts))
    except jinja2.UndefinedError as error:
        raise PublishError(f"the card cannot be written: {error}", hint="a fact is missing in report.json") from error
    return f"---\n{metadata(facts)}\n---\n\n{body}"


def template(name: str) -> str:
    """The text of a template in `dataset_cards/`, which is installed beside the package."""
    return (files("dataset_cards") / name).read_text(encoding="utf-8")


def prompts(step: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The options of a step that are prompts: texts of several lines.

    Of `chat_prompt` and `completion_prompt`, that which its model takes.
    """
    kinds = {models[name].get("prompt") for name in step["models"]}
    other = {"chat": "completion_prompt", "completion": "chat_prompt"}
    unused = other.get(str(kinds.pop()), "") if len(kinds) == 1 else ""
    return {name: value for name, value in step["options"].items() if _is_prompt(value) and name != unused}


def settings(step: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a step that are neither prompts, nor models, nor nothing."""
    said = {name: value for name, value in step["options"].items() if value is not None and value not in step["models"]}
    return {name: value for name, value in said.items() if not _is_prompt(value)}


def _is_prompt(value: object) -> bool:
    return isinstance(value, str) and "\n" in value


def metadata(facts: CardFacts) -> str:
    """The YAML head, by the libraries that read it."""
    from huggingface_hub import DatasetCardData

    license_id = facts.license.lower()
    named = license_id in LICENSES
    data = DatasetCardData(
        language=_languages(facts),
        license=license_id if named else "other",
        pretty_name=facts.title,
        size_categories=[_size(_rows(facts))],
        task_categories=["text-generation"],
        annotations_creators=["machine-generated"],
        language_creators=["found", "machine-generated"],
        source_datasets=sorted({f"extended|other-{report.source}" for report, _ in facts.splits.values()}),
        tags=["instruction-tuning", "instruction-back-translation", "synthetic", "kun-builder"],
    )
    if not named:
        data["license_name"] = facts.license
    _add_configs(data, facts)
    return str(data.to_yaml())


def _add_configs(data: DatasetCardData, facts: CardFacts) -> None:
    """Put columns, sizes and file patterns of each configuration into the metadata."""
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs

    infos, configs = DatasetInfosDict(), MetadataConfigs()
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
        configs[name] = {"data_files": [{"split": split, "path": path} for split, path in config.paths.items()]}
        if name == "default":
            configs[name]["default"] = True
    infos.to_dataset_card_data(data)
    configs.to_dataset_card_data(data)


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


def funnel(report: SplitReport) -> list[dict[str, Any]]:
    """The rows of a split's funnel table: each step with what went in, out, and why."""
    rows = []
    for step in report.stages:
        reasons = Counter(step.dropped) + Counter(
            {f"{name} (error)": count for name, count in step.quarantined.items()}
        )
        rows.append(
            {
                "label": step.label,
                "rows_in": step.rows_in,
                "rows_out": step.rows_out,
                "created": step.created,
                "reasons": reasons.most_common(),
            }
        )
    return rows


def _derived(facts: CardFacts) -> dict[str, Any]:
    steps = [step for run in facts.runs.values() for step in run.steps]
    return {
        "total": _rows(facts),
        "stages": {step["stage"] for step in steps},
        "sampled": any(run.limit is not None for run in facts.runs.values()),
        "lock": list(facts.runs.values())[-1].lock,
        "left": _left(facts),
        "rejected": _rejected(facts),
        "forms": _forms(facts),
        "judged": any(run.review or run.evaluation for run in facts.runs.values()),
        "columns": {name: _kind(kind) for name, kind in facts.configs["provenance"].features.items()},
        "languages": _languages(facts),
        "pictures": CAPTIONS.items(),
        "templates": tuple(f"{name}.md.jinja" for name in ("en", "zh", "quality", "details")),
    }


def _left(facts: CardFacts) -> dict[str, dict[str, int]]:
    """Rows of each split after each step, from the corpus to the dataset."""
    left: dict[str, dict[str, int]] = {"records in the corpus · 语料记录": {}, "records read · 读入记录": {}}
    for name, (report, _) in facts.splits.items():
        left["records in the corpus · 语料记录"][name] = report.records or report.read
        left["records read · 读入记录"][name] = report.read
        for step in report.stages:
            left.setdefault(step.label, {})[name] = step.rows_out
    return left


def _rejected(facts: CardFacts) -> dict[str, dict[str, int]]:
    """Rejected rows of each split by step and reason, in the order of the steps."""
    found: dict[str, dict[str, int]] = {}
    for label in _left(facts):
        for name, (report, _) in facts.splits.items():
            for step in funnel(report):
                for reason, count in step["reasons"] if step["label"] == label else ():
                    found.setdefault(f"{label}: {reason}", {})[name] = count
    return found


def _forms(facts: CardFacts) -> dict[str, dict[str, int]]:
    """Rows of each split by the form of their instructions, the most frequent forms first."""
    found: dict[str, dict[str, int]] = {}
    for name, (_, stats) in facts.splits.items():
        for form, count in stats.forms.items():
            found.setdefault(form, {})[name] = count
    return dict(sorted(found.items(), key=lambda item: -sum(item[1].values())))


def _kind(feature: Any) -> str:
    """A column's type as a word."""
    return str(feature.dtype) if hasattr(feature, "dtype") else "list"


def _rows(facts: CardFacts) -> int:
    return sum(report.kept for report, _ in facts.splits.values())


def _size(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), "n>10M")


def _languages(facts: CardFacts) -> list[str]:
    """Languages of at least one row in a hundred, as the rows' own column has them; Chinese where there is none.

    The Hub's `language` finds datasets by the language of their rows: that the card is in English, too, is not in it.
    """
    found: Counter[str] = Counter()
    for _, stats in facts.splits.values():
        found.update(stats.languages)
    common = [name for name, count in found.most_common() if count >= _LANGUAGE_SHARE * found.total()]
    return [name for name in common if name.isalpha()] or ["zh"]
