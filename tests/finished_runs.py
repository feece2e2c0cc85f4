"""Finished run folders of any size, as a build leaves them, made without building: for tests of what comes after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from kun_method.asking import FORMS

from kun_builder.report import RunReport, SplitReport, StepCounts, StepFacts
from kun_builder.run.folder import provenance
from kun_builder.run.head import dataset_head
from kun_builder.run.redact import stays_here

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "split", "file")),
        *((name, pa.int64()) for name in ("position", "offset")),
        ("text", pa.string()),
        ("tokens", pa.int64()),
        ("language", pa.string()),
        ("perplexity", pa.float64()),
        ("instruction", pa.string()),
        ("score", pa.float64()),
        ("raw_answer", pa.string()),
        ("output", pa.string()),
        ("calls", pa.list_(pa.struct([("stage", pa.string()), ("model", pa.string()), ("key", pa.string())]))),
    ]
)
REJECTED = pa.schema([*SCHEMA, *((name, pa.string()) for name in ("_outcome", "_stage", "_reason", "_value"))])
SUBJECTS = ("茶的冲泡", "桥梁的结构", "候鸟的迁徙", "豆腐的做法", "潮汐的成因", "古琴的调弦", "梯田的灌溉")
PROMPT = "[system]\n你是助手。\n[user]\n请为下面的文本写一条指令：\n{text}\n"


def make_run(
    path: Path,
    splits: Mapping[str, int],
    *,
    seed: int = 0,
    name: str = "my-kun",
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    publish: Mapping[str, Any] | None = None,
    threshold: float = 0.5,
    change: Mapping[str, str] | None = None,
    text: str = "",
) -> Path:
    """A run with so many kept rows per split, and half as many rejected ones.

    seed: other answers for the same rows. sources: what each split's source says of itself. change: replaces words in
    the rows' outputs. text: put into every row's text, instruction and output.
    """
    for split, rows in splits.items():
        words = {"seed": seed, "text": text, "change": change or {}}
        _write(
            path / "dataset/data",
            split,
            _kept(split, rows, **words),
            pa.schema([SCHEMA.field("instruction"), SCHEMA.field("output")]),
        )
        closed = stays_here(_split(rows, (sources or {}).get(split, {})))
        kept = [path / f"kept/{split}-00000-of-00001.parquet"]
        with provenance(kept, path / "dataset", split, "parquet", withheld=closed) as pass_on:
            _write(path / "kept", split, _kept(split, rows, **words), SCHEMA)
            for table in (SCHEMA.empty_table(), *_kept(split, rows, **words)):
                pass_on(table)
        with _writer(path / f"rejected/{split}.parquet", REJECTED) as writer:
            writer.write_table(_rejected(split, rows // 2, text))
    (path / "dataset/README.md").write_text(dataset_head(list(splits), "parquet"))
    lock = {"name": name, "publish": {"license": "cc0-1.0", "license_acknowledged": False, **(publish or {})}}
    (path / "recipe.lock.yaml").write_text(yaml.safe_dump(lock, allow_unicode=True))
    _report(name, splits, seed, threshold, sources or {}).write(path / "report.json")
    return path


def _kept(split: str, rows: int, *, seed: int, text: str, change: Mapping[str, str]) -> Iterator[pa.Table]:
    for start in range(0, rows, 10_000):
        numbers = range(start, min(start + 10_000, rows))
        yield pa.Table.from_pylist([_row(split, number, seed, text, change) for number in numbers], SCHEMA)


def _row(split: str, number: int, seed: int, text: str, change: Mapping[str, str]) -> dict[str, Any]:
    subject = SUBJECTS[number % len(SUBJECTS)]
    raw = f"关于{subject}的第{number}篇短文。{text}" + "先看来历，再看方法，最后看今天的人们怎样对待它。" * (
        1 + number % 4
    )
    output = (
        f"{subject}可以分三步来看（{seed}）：来历、方法和今天的做法。" + "每一步都有讲究。" * (1 + number % 5) + text
    )
    for old, new in change.items():
        output = output.replace(old, new)
    return {
        "id": f"{split}/part-{number // 1000:03d}.jsonl:{number % 1000}",
        "split": split,
        "file": f"part-{number // 1000:03d}.jsonl",
        "position": number % 1000,
        "offset": number * 100,
        "text": raw,
        "tokens": 20 + number % 80,
        "language": "zh",
        "perplexity": 150.0 + number % 400,
        "instruction": f"请{('介绍', '解释', '总结', '比较')[number % 4]}{subject}。{text}",
        "score": 0.5 + (number % 50) / 100,
        "raw_answer": raw[:80],
        "output": output,
        "calls": [{"stage": "label", "model": "chat", "key": f"{number:08x}"}],
    }


def _rejected(split: str, rows: int, text: str) -> pa.Table:
    verdicts = [
        {"_outcome": "dropped", "_stage": "score", "_reason": "below_threshold", "_value": "0.21", "score": 0.21},
        {"_outcome": "dropped", "_stage": "perplexity", "_reason": "too_high", "_value": "2300.0", "perplexity": 2300.0}
        | dict.fromkeys(("instruction", "score", "raw_answer", "output")),
        {"_outcome": "quarantined", "_stage": "label", "_reason": "rejected", "_value": "413: too long"}
        | dict.fromkeys(("instruction", "score", "raw_answer", "output")),
    ]
    found = [
        _row(split, 10**6 + number, 0, text, {}) | {"output": None, "raw_answer": None} | verdicts[number % 3]
        for number in range(rows)
    ]
    return pa.Table.from_pylist(found, REJECTED)


def _write(folder: Path, split: str, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    with _writer(folder / f"{split}-00000-of-00001.parquet", schema) as writer:
        for table in tables:
            writer.write_table(table.select(schema.names), row_group_size=10_000)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    return pq.ParquetWriter(path, schema, use_content_defined_chunking=True)


def _report(
    name: str, splits: Mapping[str, int], seed: int, threshold: float, sources: Mapping[str, Mapping[str, Any]]
) -> RunReport:
    def step(label: str, plugin: str, models: tuple[str, ...] = (), **options: Any) -> StepFacts:
        facts = {"label": label, "stage": label, "plugin": plugin, "package": "kun-builder", "version": "1"}
        facts |= {"package_version": "0.1.0", "digest": "0123456789abcdef"}
        kinds = {"perplexity": "double", "label": "string", "score": "double"}
        adds = {"instruction" if label == "label" else label: kinds[label]}
        forms = FORMS if label == "label" else None
        return StepFacts(**facts, options=options, models=models, adds=adds, forms=forms)

    return RunReport(
        name=name,
        version="0.1.0",
        status="complete",
        signature=f"{name}-{seed}-{threshold}",
        created=f"2026-11-{20 + seed % 9:02d}T10:00:00+00:00",
        seconds=12.5,
        seed=seed,
        limit=None,
        format="parquet",
        splits={split: _split(rows, sources.get(split, {})) for split, rows in splits.items()},
        models={"chat": {"id": "org/chat-7b", "revision": "abc123", "context_length": 4096, "license": "apache-2.0"}},
        steps=(
            step("perplexity", "kun-clean", keep_percentiles=[5, 90]),
            step("label", "kun-method", ("chat",), prompt=PROMPT),
            step("score", "kun-method", ("chat",), threshold=threshold),
        ),
    )


def _split(rows: int, source: Mapping[str, Any]) -> SplitReport:
    dead = rows // 2
    by = [(dead + 2 - number) // 3 for number in range(3)]  # score, perplexity and label, in the order of `_rejected`
    read, fluent, labelled = rows + dead, rows + dead - by[1], rows + by[0]
    steps = (
        StepCounts(label="read", stage="read", rows_in=read, rows_out=read),
        _step("perplexity", read, fluent, dropped={"too_high": by[1]}),
        _step("label", fluent, labelled, quarantined={"rejected": by[2]}),
        _step("score", labelled, rows, dropped={"below_threshold": by[0]}),
    )
    facts = {
        "source": "wudao",
        "title": "wudao",
        "license": "cc0-1.0",
        "homepage": "https://example.org/corpus",
        "redistributable": True,
    }
    return SplitReport(**{**facts, "citation": "@misc{corpus}", **source}, read=read, kept=rows, stages=steps)


def _step(name: str, rows_in: int, rows_out: int, **lost: Any) -> StepCounts:
    return StepCounts(label=name, stage=name, rows_in=rows_in, rows_out=rows_out, **lost)
