"""The source `example`, by the kit of kun-builder."""

from pathlib import Path

import kun_example

from kun_builder.testing import check_source

DATA = Path(__file__).parents[1] / "data"


def test_documents() -> None:
    """Every document of the sample data is read, whole, in parts and damaged."""
    (source,) = kun_example.kun_sources()
    rows = check_source(source, DATA)
    assert [row["text"][:4] for row in rows[:2]] == ["晒被子最", "雨后天空"]


def test_sample() -> None:
    """The sample record has a text."""
    assert kun_example.parse(kun_example.SAMPLE)
