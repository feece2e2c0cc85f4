"""Texts and files of the real corpora: they lie beside a checkout and are no part of it."""

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FORMATS, CORPUS, SEEDS = DATA / "formats", DATA / "corpus", DATA / "seeds"
"""Text in the corpora's own containers; plain articles, a JSON object a line; pairs written by people."""

needs_samples = pytest.mark.skipif(not DATA.is_dir(), reason="needs the sample corpora beside the checkout")


def samples(folder: Path, pattern: str) -> list[Path]:
    """The files that a test runs over: there is one, or the test has shown nothing."""
    found = sorted(folder.rglob(pattern))
    assert found, f"nothing like {pattern} in {folder}"
    return found
