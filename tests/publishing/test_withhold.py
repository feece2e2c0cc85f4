"""Raw text of a corpus that may not be passed on is nowhere in what is published."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun_builder.errors import PublishError
from kun_builder.withhold import refuse_copies, without_text

TEXT = "关于茶的冲泡，先看水温，再看时间，最后看茶具。" * 3


def row(**changes):
    facts = {"id": "x/a:1", "split": "x", "file": "a", "position": 1, "text": TEXT, "score": 0.5}
    return {**facts, "instruction": "如何泡茶？", "output": "泡茶有三步。", "raw_answer": None, **changes}


def withheld(*rows):
    return without_text(pa.Table.from_pylist(list(rows))).to_pylist()


def test_digest_and_position():
    """The text gives way to its SHA-256; place, measures and result stay."""
    (found,) = withheld(row())
    assert found["text_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert "text" not in found
    assert (found["position"], found["score"], found["output"]) == (1, 0.5, "泡茶有三步。")


@pytest.mark.parametrize("copy", [TEXT, TEXT[:40], f"答：{TEXT}", TEXT.replace("，", "， ").replace("。", "。\n")])
def test_copies_of_the_text_go(copy):
    """A column that repeats the text, or a part of it, or holds it, is emptied; in other rows it stays."""
    found = withheld(row(raw_answer=copy), row(raw_answer="另一个回答，与原文无关，也不出自原文。"))
    assert [line["raw_answer"] for line in found] == [None, "另一个回答，与原文无关，也不出自原文。"]


@pytest.mark.parametrize("column", ["instruction", "output"])
def test_result_that_is_the_text(tmp_path, column):
    """If the result itself is the raw text, nothing is published: the row is named, and the cure."""
    pq.write_table(pa.Table.from_pylist([row(), row(**{column: TEXT + " "})]), tmp_path / "kept.parquet")
    with pytest.raises(PublishError, match="x/a:1") as refused:
        refuse_copies([tmp_path / "kept.parquet"])
    assert "polish" in refused.value.hint


@given(text=st.text(min_size=20, max_size=60), before=st.text(max_size=5), after=st.text(max_size=5))
def test_no_whole_text_is_left(text, before, after):
    """Whatever stands around the text in another column, the text is not in what is written."""
    (found,) = withheld(row(text=text, raw_answer=before + text + after))
    if text.strip():
        assert text not in str(found["raw_answer"] or "")
