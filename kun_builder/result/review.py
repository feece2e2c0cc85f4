"""Pairs for people to judge, one at a time beside their texts, and the page that shows them.

Which stratum a pair is from is not shown: it would sway the judgement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kun_builder.errors import RunError
from kun_builder.files import replace_file
from kun_builder.report import read_report
from kun_builder.result.page import render
from kun_builder.result.review_draw import draw
from kun_builder.result.shapes import need_pairs
from kun_builder.run.folder import RunFolder
from kun_builder.run.review import WAITING
from kun_builder.run.verdicts import FOLDER, KINDS

SAMPLE = 60
Pair = Mapping[str, Any]


@dataclass(frozen=True)
class Review:
    """Pairs to judge. `run` is the name of their run, `folder` is where files of verdicts go, one a reviewer."""

    run: str
    pairs: Sequence[Pair]
    folder: Path
    waiting: bool = False
    """Whether a build waits for the verdicts, and the pairs are what its rows are there."""


def open_review(path: Path, *, sample: int = SAMPLE, seed: int = 0) -> Review:
    """The rows that a build in `path` waits for; else `sample` pairs of the finished run there, drawn by `seed`.

    `path` may also be a folder of verdicts that a recipe names. Raises RunError if the run is not finished or has no
    pair.
    """
    for waiting in sorted([*path.glob(WAITING), *path.glob(f"{FOLDER}/*/{WAITING}")]):
        name = " ".join(dict.fromkeys((path.resolve().name, waiting.parent.resolve().name)))
        return Review(name, orjson.loads(waiting.read_bytes()), waiting.parent, waiting=True)
    folder = RunFolder(path)
    report = read_report(folder.report_path)
    need_pairs(folder)
    pairs = draw(folder, report, sample=sample, seed=seed)
    if not pairs:
        raise RunError(f"no row of {path} has an instruction to judge", hint="rejected/ says what became of the rows")
    return Review(report.name, pairs, path / FOLDER)


def review_page(review: Review, *, said: Sequence[tuple[str, Mapping[str, Any]]] | None = None) -> str:
    """The page as HTML.

    said: row ids and verdicts that are there already, the last one last, of a page that gives each verdict to the
        server that it is from; without it, the page is a file, and gives its verdicts as a file to save.
    """
    key = hashlib.sha256(orjson.dumps(list(review.pairs))).hexdigest()[:16]  # what a browser keeps is about these pairs
    facts = {"run": review.run, "kinds": KINDS, "pairs": review.pairs, "key": key, "said": said}
    return render(
        "review",
        facts,
        title=f"{review.run} · kun-builder review",
        allow="" if said is None else "connect-src 'self'",
        run=review.run,
        kinds=KINDS,
        rows=len(review.pairs),
        served=said is not None,
    )


def write_page(review: Review, page: Path) -> None:
    """Write the page as one file that needs no network, for a person who cannot reach this machine."""
    replace_file(page, review_page(review).encode(), private=True)
