"""Writes what people look at in a run folder: the card with its pictures, and the report page."""

from __future__ import annotations

from pathlib import Path

from kun_builder.files import replace_file
from kun_builder.result.finished import open_run
from kun_builder.result.release import present
from kun_builder.result.report_page import report_page
from kun_builder.result.verdicts import EVALUATION
from kun_builder.run.verdicts import FOLDER


def write_presentation(path: Path) -> Path:
    """Write the card, its pictures and the lock file into the dataset of the run in `path`, and `report.html`.

    Returns the page's path. Raises RunError or PublishError if the run is not finished.
    """
    run = open_run(path)
    for name, content in present(run, str(run.folder.dataset)).items():
        replace_file(run.folder.dataset / name, content)
    page = path / "report.html"
    replace_file(page, report_page(run.report, run.kept, run.stats, run.rejected, run.judged).encode(), private=True)
    return page


def is_presented(path: Path) -> bool:
    """Whether the page is there and not older than what it was made of."""
    page = path / "report.html"
    made_of = [path / "report.json", path / "recipe.lock.yaml"]
    made_of += [part for part in (path / EVALUATION, *(path / FOLDER).glob("*.jsonl")) if part.exists()]
    return page.exists() and all(page.stat().st_mtime_ns >= part.stat().st_mtime_ns for part in made_of)
