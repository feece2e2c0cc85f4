"""fineweb-zh: Parquet with a score for each page."""

from __future__ import annotations

import kun_fineweb_zh
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kun_builder import Drop
from kun_builder.testing import check_source

(SOURCE,) = kun_fineweb_zh.kun_sources()
PAGES = [
    {"text": f"第{number}页讲的是生理盐水的用途。", "score": round(0.4 + number / 20, 2), "source": "CCI3"}
    for number in range(10)
]


def parquet(folder, rows, name="00000.parquet"):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / name, row_group_size=4)
    return folder


def verdicts(rows):
    return [(row["_outcome"], row["_reason"], row["_value"]) for row in rows if row["_outcome"]]


def test_every_page_is_read(tmp_path):
    """The folders of the bands have files of the same names; each page has an id of its own."""
    parquet(tmp_path / "3_4", PAGES[:6])
    parquet(tmp_path / "4_5", PAGES[6:])
    rows = check_source(SOURCE, tmp_path)
    assert [row["text"] for row in rows] == [page["text"] for page in PAGES]
    assert (rows[0]["id"], rows[-1]["id"]) == ("test/3_4/00000.parquet:0", "test/4_5/00000.parquet:3")


def test_low_scores_are_dropped_with_their_score(tmp_path):
    """Below `min_score`, a page is dropped and its score is the value; the limit itself is kept."""
    rows = check_source(SOURCE, parquet(tmp_path, PAGES), min_score=0.8)
    assert [row["text"] for row in rows if not row["_outcome"]] == [page["text"] for page in PAGES[8:]]
    assert verdicts(rows) == [("dropped", "low_score", str(page["score"])) for page in PAGES[:8]]


def test_dirt_costs_its_rows_only(tmp_path):
    """Null texts are dropped, scores that are none are quarantined; a page without a score does where none is asked."""
    dirty = [*PAGES[:2], {"text": None, "score": 0.9, "source": None}, {"text": "无分", "score": None, "source": ""}]
    folder = parquet(tmp_path / "in", dirty)
    assert verdicts(check_source(SOURCE, folder)) == [("dropped", "no_text", "none")]
    outcomes = verdicts(check_source(SOURCE, folder, min_score=0.42))
    assert [outcome[:2] for outcome in outcomes] == [
        ("dropped", "low_score"), ("dropped", "no_text"), ("quarantined", "parse_failed"),
    ]  # fmt: skip
    bare = parquet(tmp_path / "bare", [{"text": "没有分数这一列。"}])
    assert not verdicts(check_source(SOURCE, bare))
    with pytest.raises(KeyError, match="score"):
        SOURCE.parse({"text": "没有分数这一列。"}, min_score=0.1)


def test_the_scale_is_said(tmp_path):
    """A limit on the scale of the folders is wrong, and says so before anything is read."""
    with pytest.raises(AssertionError, match="`min_score` must be less than or equal to 1, not 3"):
        check_source(SOURCE, parquet(tmp_path, PAGES), min_score=3)


def test_the_sample_is_one_of_its_records():
    """The sample passes and fails by its score."""
    assert SOURCE.parse(SOURCE.sample, min_score=0.8) == SOURCE.sample["text"]
    with pytest.raises(Drop):
        SOURCE.parse(SOURCE.sample, min_score=0.9)
