"""The section `example`, by the kit of kun-builder, and what its command counts."""

from pathlib import Path

import kun_example
import pyarrow as pa
import pyarrow.parquet as pq

from kun_builder.testing import check_section

(SECTION,) = kun_example.kun_sections()


def test_section() -> None:
    """A recipe says the word, or leaves the section out."""
    assert check_section(SECTION, {"word": "茶"}) == kun_example.Wanted(word="茶")
    assert check_section(SECTION) == kun_example.Wanted()


def test_count(tmp_path: Path) -> None:
    """Texts with the word are counted."""
    (tmp_path / "kept").mkdir()
    pq.write_table(pa.table({"text": ["好茶", "清水", "茶水"]}), tmp_path / "kept/sample.parquet")
    assert kun_example.count(tmp_path, "茶") == (2, 3)
