"""Writes what people look at in a run folder: the card, the page, and the pictures of both.

A build writes the card in words, which takes a tenth of a second. Pictures take more than all else that a small run
does, so that `kun-build report` draws them, and the page; from then on, every build keeps them up to date.
"""

from __future__ import annotations

from pathlib import Path

from kun_builder.files import replace_file
from kun_builder.result.finished import FinishedRun, open_run
from kun_builder.result.release import LOCK, present
from kun_builder.result.verdicts import EVALUATION
from kun_builder.run.verdicts import FOLDER


def write_presentation(path: Path) -> Path:
    """Write the card, its pictures and the lock file into the dataset of the run in `path`, and `report.html`.

    Returns the page's path. Raises RunError or PublishError if the run is not finished.
    """
    from kun_builder.result.report_page import report_page

    run, page = open_run(path), _page(path)
    _write_card(run, drawn=True)
    replace_file(page, report_page(run.report, run.kept, run.stats, run.rejected, run.judged).encode(), private=True)
    return page


def renew_presentation(path: Path) -> None:
    """Write anew what is there of the run in `path` to look at: all of it where there is a page, else the card."""
    if _page(path).exists():
        write_presentation(path)
    else:
        _write_card(open_run(path), drawn=False)


def is_presented(path: Path) -> bool:
    """Whether what there is to look at is not older than what it was made of."""
    last = _page(path) if _page(path).exists() else path / "dataset" / LOCK
    made_of = [path / "report.json", path / "recipe.lock.yaml"]
    made_of += [part for part in (path / EVALUATION, *(path / FOLDER).glob("*.jsonl")) if part.exists()]
    return last.exists() and all(last.stat().st_mtime_ns >= part.stat().st_mtime_ns for part in made_of)


def _page(path: Path) -> Path:
    return path / "report.html"


def _write_card(run: FinishedRun, *, drawn: bool) -> None:
    """Write the card, `drawn` with its pictures; the lock file comes last, and says that all of it is there."""
    for name, content in present(run, str(run.folder.dataset), drawn=drawn).items():
        replace_file(run.folder.dataset / name, content)
