import csv
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from short_reads import records_of

from kun_builder.readers import delimited

CELL = st.text('ab中 ,;"\n', max_size=8)
ROWS = st.lists(st.tuples(CELL.map(lambda text: f"{text}。"), CELL), min_size=1, max_size=8)
SIZES = st.lists(st.integers(1, 50), max_size=60)


def _table(rows, end="\n", **form):
    out = io.StringIO()
    csv.writer(out, lineterminator=end, **form).writerows([("text", "source"), *rows])
    return out.getvalue()


@given(ROWS, st.sampled_from(["\n", "\r\n"]), SIZES, st.sampled_from([("x.csv", ","), ("x.csv", ";"), ("x.tsv", "\t")]))
def test_every_row_is_a_record(rows, end, sizes, form):
    """Each row below the names is a dict, line ends in quotation marks included, at its byte, from any row on."""
    data = _table(rows, end, delimiter=form[1]).encode()
    found = records_of(data, sizes, form[0])
    assert [tuple(record.data.values()) for record in found] == rows
    assert [record.index for record in found] == list(range(len(rows)))
    assert [list(record.data) for record in found] == [["text", "source"]] * len(rows)
    for record, row in zip(found, rows, strict=True):
        there = io.StringIO(data[record.offset :].decode(), newline="")
        assert tuple(next(csv.reader(there, delimiter=form[1]))) == row
    assert records_of(data, sizes, form[0], start=3) == found[3:]
    assert records_of(data, sizes, form[0], wanted=lambda index: index % 2 == 0) == found[::2]


def test_a_nul_here_and_there_is_a_character():
    """Exports of databases have them; a table of nothing else is none."""
    rows = "text,n\n" + "".join(f"第{n}行\0{60 * '文'},{n}\n" for n in range(3))
    assert [record.data["n"] for record in records_of(rows.encode(), name="x.csv")] == ["0", "1", "2"]
    (record,) = records_of(b"a,b\n\0\0\0\1,\0\2\n", name="x.csv")
    assert record.error.startswith("unknown_format: ")


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_encodings_of_spreadsheets(codec):
    """Tables are read in the encodings in which spreadsheets save them; short rows too."""
    rows = [("竹笋焯水可以去掉涩味，冷水下锅。", "网页"), ("短", "书"), ("写毛笔字要先学会握笔。", "a")]
    found = records_of(_table(rows).encode(codec), [7] * 9, "x.csv")
    assert [tuple(record.data.values()) for record in found] == rows
    assert list(found[0].data) == ["text", "source"]


def test_a_bad_row_costs_itself():
    """A row with too many or too few fields, or other bytes, is broken with its place; a mark that is not closed costs
    its line, not those behind it."""
    lines = [b"text,source", b"one,a", b"one,two,three", b"short", b'"open,b', b"four,c", b"\xff\xfe,d", b"", b"five,e"]
    found = records_of(b"\n".join(lines), name="x.csv")
    assert [record.data and record.data["text"] for record in found] == ["one", None, None, None, "four", None, "five"]
    assert [record.error.partition(":")[0] for record in found if record.error] == ["broken_row"] * 3 + ["not_utf8"]
    assert [record.raw for record in found if record.error] == [lines[2], lines[3], lines[4], lines[6]]
    assert "3 fields, where the first row has 2" in found[1].error


def test_an_endless_row_is_too_long(monkeypatch):
    """A row above the limit is one broken record, and the rows behind its first line are read."""
    monkeypatch.setattr(delimited, "MAX_RECORD", 200)
    data = b'text\n"open\n' + b"row\n" * 100
    found = records_of(data, name="x.csv")
    assert found[0].error.startswith("record_too_long: ")
    assert [record.data for record in found[1:]] == [{"text": "row"}] * 100


def test_a_cut_off_table_says_so():
    """A compressed table that ends too early gives its whole rows, and one broken record."""
    import gzip

    rows = [(random.Random(number).randbytes(20).hex(), "x") for number in range(300)]
    found = records_of(gzip.compress(_table(rows).encode())[:-2000], name="x.csv.gz")
    assert [tuple(record.data.values()) for record in found[:-1]] == rows[: len(found) - 1]
    assert len(found) > 50
    assert found[-1].error.startswith("broken_file: ")
