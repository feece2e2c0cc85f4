"""Files in spans: the same records as the whole file, wherever it is cut."""

from __future__ import annotations

import gzip
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun_builder.readers import Records

LINES = st.sampled_from(
    [
        '{"text": "春眠不觉晓，处处闻啼鸟。😀"}\n',
        '{"text": "a"}\r\n',
        "\n",
        "  \r\n",
        '{"text": "a"}{"text": "两个"}\n',
        '{"text": "cut off\n',
        '\ufeff{"text": "mark"}\n',
        '{"text": "one\u2028line"},\n',
        "[\n",
        "12\n",
    ]
)


def _whole(path):
    return list(Records(str(path)))


def _in_spans(path, edges):
    found, first = [], 0
    for span in pairwise(edges):
        records = Records(str(path))
        records.span = span
        found += [replace(record, index=record.index + first) for record in records]
        first += records.count
    return found


@given(
    lines=st.lists(LINES, max_size=12),
    tail=st.sampled_from(["", '{"text": "no line end"}', '{"text": "cut', " "]),
    cuts=st.lists(st.integers(1, 400)),
)
def test_lines_are_the_same_wherever_a_file_is_cut(tmp_path_factory, lines, tail, cuts):
    """Cut within a line, a CRLF or a character of several bytes, no record is lost, doubled or changed."""
    path = tmp_path_factory.mktemp("spans") / "x.jsonl"
    content = ('{"text": "first"}\n' + "".join(lines) + tail).encode()
    path.write_bytes(content)
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    assert _in_spans(path, edges) == _whole(path)


def test_a_line_longer_than_a_span_is_one_record(tmp_path):
    """Spans in which no line begins are empty."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "长" * 1000 + '"}\n{"text": "b"}\n')
    records = Records(str(path))
    assert len(records.cuts(100)) > 5
    assert _in_spans(path, [0, *(end for _, end in records.cuts(100))]) == _whole(path)


def test_row_groups_of_parquet_are_spans(tmp_path):
    """Neighbouring row groups go together until they are large enough; rows keep their numbers."""
    path = tmp_path / "x.parquet"
    texts = [f"第{number}篇" * 50 for number in range(100)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10, compression="none", use_dictionary=False)
    spans = Records(str(path)).cuts(path.stat().st_size // 4)
    assert 2 < len(spans) < 10
    assert (spans[0][0], spans[-1][1]) == (0, 10)
    assert _in_spans(path, [0, *(end for _, end in spans)]) == _whole(path)


@pytest.mark.parametrize("kind", ["gz", "array", "utf-16", "small"])
def test_what_must_be_read_as_a_whole_is_not_cut(tmp_path, kind):
    """Compressed files, arrays, other encodings and small files have no spans."""
    path = tmp_path / "x.json"
    line = '{"text": "春眠不觉晓"}\n' * 100
    content = {
        "gz": gzip.compress(line.encode()),
        "array": ("[" + line.replace("\n", ",") + "{}]").encode(),
        "utf-16": line.encode("utf-16"),
        "small": line[:20].encode(),
    }
    path.write_bytes(content[kind])
    assert Records(str(path)).cuts(20) == []
