"""Dataset cards: the facts of a release and the templates of `dataset_cards/` become a README.md. Pure.

Every number comes from the report, every sentence from a template that a person can read and sign. A fact that a
template asks for and that is missing stops the publishing (`StrictUndefined`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from kun_builder.errors import PublishError
from kun_builder.report import SplitReport, StepFacts
from kun_builder.result import markdown
from kun_builder.result.cards.facts import CardFacts
from kun_builder.result.cards.metadata import languages, metadata
from kun_builder.result.measures import Measure
from kun_builder.result.stats import SplitStats

_CAPTIONS = {
    "funnel": "Rows left after each step · 每一步之后剩余的条数",
    "lengths": "Length of instructions and outputs · 指令与回答的长度",
    "text-lengths": "Length of texts · 文本的长度",
    "asks": "How instructions ask · 指令的提问方式",
}


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


def prompts(step: StepFacts, models: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The options of a step that are prompts: texts of several lines.

    Of `chat_prompt` and `completion_prompt`, that which its model takes.
    """
    kinds = {models[name].get("prompt") for name in step.models}
    other = {"chat": "completion_prompt", "completion": "chat_prompt"}
    unused = other.get(str(kinds.pop()), "") if len(kinds) == 1 else ""
    return {name: value for name, value in step.options.items() if _is_prompt(value) and name != unused}


def caption(picture: str, stats: Mapping[str, SplitStats]) -> str:
    """What a picture shows, in words, for readers who cannot see it."""
    column = picture.removeprefix("measure-")
    measured = [stat.measures[column].heading(column) for stat in stats.values() if column in stat.measures]
    return _CAPTIONS.get(picture) or f"{measured[0]}: kept and rejected rows · 保留与剔除的数据"


def settings(step: StepFacts) -> dict[str, Any]:
    """The options of a step that have a value and are neither prompts nor names of models."""
    said = {name: value for name, value in step.options.items() if value is not None and value not in step.models}
    return {name: value for name, value in said.items() if not _is_prompt(value)}


def _is_prompt(value: object) -> bool:
    return isinstance(value, str) and "\n" in value


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


def measured(stats: Mapping[str, SplitStats]) -> list[dict[str, Any]]:
    """The rows of the table of measured values, one for each column of numbers and split."""
    names = dict.fromkeys(name for stat in stats.values() for name in stat.measures)
    return [
        {"column": name, "split": split, "step": ", ".join(one.steps), "cut": _cut(one), "measure": one}
        | {"share": one.beyond / one.rows}
        for name in names
        for split, stat in stats.items()
        if (one := stat.measures.get(name))
    ]


def _cut(measure: Measure) -> str:
    """Where rows were cut; empty if no limit was set and none was rejected for its value."""
    bounds = ("≥", measure.least), ("≤", measure.most), (">", measure.cut_below), ("<", measure.cut_above)
    return ", ".join(f"{sign} {value:.4g}" for sign, value in bounds if value is not None)


def _derived(facts: CardFacts) -> dict[str, Any]:
    steps = [step for run in facts.runs.values() for step in run.steps]
    stats = {name: stat for name, (_, stat) in facts.splits.items()}
    return {
        "total": facts.rows,
        "pairs": facts.pairs,
        "stages": {step.stage for step in steps},
        "sampled": any(run.limit is not None for run in facts.runs.values()),
        "lock": list(facts.runs.values())[-1].lock,
        "left": _left(facts),
        "rejected": _rejected(facts),
        "bibtex": facts.citation or _bibtex(facts),
        "example": _example(facts),
        "corpora": sorted({report.title for report, _ in facts.splits.values() if report.title}),
        "models": sorted({str(model["id"]) for run in facts.runs.values() for model in run.models.values()}),
        "forms": _forms(facts),
        "judged": any(run.review or run.evaluation for run in facts.runs.values()),
        "columns": {name: _kind(kind) for name, kind in facts.configs["provenance"].features.items()},
        "titles": {n: one.title for step in steps for n, one in (step.quantities or {}).items() if one.title},
        "languages": languages(facts),
        "pictures": [(name, caption(name, stats)) for name in facts.pictures],
        "measured": measured(stats),
        "templates": tuple(
            f"{name}.md.jinja" for name in ("en", "zh", *(["quality"] if facts.pairs else []), "details")
        ),
    }


def _bibtex(facts: CardFacts) -> str:
    """A BibTeX entry for the dataset, made of what is known of it."""
    owner = facts.repo.partition("/")[0] if facts.releases else ""
    last = max(run.created for run in facts.runs.values())
    known = {"title": facts.title, "author": " and ".join(facts.authors) or owner, "year": last[:4]}
    if facts.releases:
        known["url"] = f"https://huggingface.co/datasets/{facts.repo}"
    lines = [f"  {name} = {{{re.sub(r'[{}]', '', value)}}}" for name, value in known.items() if value]
    key = re.sub(r"[^A-Za-z0-9]+", "-", facts.title).strip("-").lower() or "dataset"
    return "\n".join([f"@misc{{{key},", ",\n".join(lines), "}"])


def _example(facts: CardFacts) -> str:
    """A row of the default configuration as JSON, its texts cut; empty if there is no row."""
    rows = (row for _, stats in facts.splits.values() for row in stats.examples)
    row = next(rows, None)
    if row is None:
        return ""
    return json.dumps(
        {name: markdown.plain(row[name], 600) for name in row if name != "id"}, ensure_ascii=False, indent=2
    )


def _left(facts: CardFacts) -> dict[str, dict[str, int]]:
    """Rows of each split after each step, from the corpus to the dataset."""
    left: dict[str, dict[str, int]] = {"records in the corpus · 语料记录": {}, "records read · 读入记录": {}}
    for name, (report, _) in facts.splits.items():
        left["records in the corpus · 语料记录"][name] = report.records or report.read
        left["records read · 读入记录"][name] = report.read
        for step in report.stages:
            left.setdefault(step.label, {})[name] = step.rows_out
    return left


def _rejected(facts: CardFacts) -> dict[str, dict[str, str]]:
    """Rejected rows of each split by step and reason, in the order of the steps, and their share of what came in."""
    found: dict[str, dict[str, str]] = {}
    for label in _left(facts):
        for name, (report, _) in facts.splits.items():
            for step in funnel(report):
                for reason, count in step["reasons"] if step["label"] == label else ():
                    share = count / (step["rows_in"] + step["created"])
                    found.setdefault(f"{label}: {reason}", {})[name] = f"{count:,} ({share:.1%})"
    return found


def _forms(facts: CardFacts) -> dict[str, dict[str, int]]:
    """Rows of each split by the form of their instructions, the most frequent forms first."""
    found: dict[str, dict[str, int]] = {}
    for name, (_, stats) in facts.splits.items():
        for form, count in stats.forms.items():
            found.setdefault(form, {})[name] = count
    return dict(sorted(found.items(), key=lambda item: -sum(item[1].values())))


def _kind(feature: Any) -> str:
    """The type of a column as one word: `string`, `float64`, `list`."""
    return str(feature.dtype) if hasattr(feature, "dtype") else "list"
