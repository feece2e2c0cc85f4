import contextlib
import io
import subprocess
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from short_reads import records_of

from kun_builder.readers import Records, parquet
from kun_builder.readers.pages import PageError, page_sizes

ROWS = [{"text": f"文档 {number}", "score": number / 7} for number in range(1000)]


def _parquet(table, rows=300):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=rows)
    return buffer.getvalue()


WHOLE = _parquet(pa.Table.from_pylist(ROWS))


@given(st.integers(0, 1100), st.integers(1, 400))
def test_rows_from_anywhere(start, step):
    """Rows are dicts with their own number, from any row on, and only those that are wanted."""
    found = records_of(WHOLE, name="x.parquet", start=start, wanted=lambda index: index % step == 0)
    assert [record.index for record in found] == [number for number in range(start, 1000) if number % step == 0]
    assert all(record.data == ROWS[record.index] for record in found)


def test_a_file_and_an_archive(tmp_path):
    """Parquet is read from disk and from inside an archive, whatever its name."""
    path = tmp_path / "data"
    path.write_bytes(WHOLE)
    assert [record.data for record in Records(str(path))] == ROWS
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("a.parquet", "b.parquet"):
            info = tarfile.TarInfo(name)
            info.size = len(WHOLE)
            archive.addfile(info, io.BytesIO(WHOLE))
    found = records_of(buffer.getvalue(), name="x.tar.gz")
    assert [record.data for record in found] == ROWS + ROWS
    assert [record.index for record in found] == list(range(2000))


def test_a_broken_row_group_costs_itself():
    """A row group that cannot be read is one broken record; the groups around it keep their row numbers."""
    group = pq.ParquetFile(io.BytesIO(WHOLE)).metadata.row_group(1)
    data = bytearray(WHOLE)
    start = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
    data[start : start + group.column(0).total_compressed_size] = b"\xff" * group.column(0).total_compressed_size
    found = records_of(bytes(data), name="x.parquet")
    (broken,) = [record for record in found if record.error]
    assert broken.index == 300
    assert broken.error.startswith("broken_file: Parquet, row group 1 of 300 rows: ")
    good = [record for record in found if not record.error]
    assert [record.index for record in good] == [*range(300), *range(600, 1000)]
    assert all(record.data == ROWS[record.index] for record in good)


@pytest.mark.parametrize("cut", [4, 100, len(WHOLE) - 5])
def test_a_truncated_file_is_one_broken_record(cut):
    """Without its footer a Parquet file cannot be read, and says so."""
    (record,) = records_of(WHOLE[:cut], name="x.parquet")
    assert record.error.startswith("broken_file: ")


def test_text_that_is_not_utf8_costs_its_row():
    """A string column with other bytes in it loses that row, with its number, and no other."""
    bad = pa.array([b"one", b"\xff\xfe", b"three"]).view(pa.string())
    found = records_of(_parquet(pa.table({"text": bad})), name="x.parquet")
    assert [record.data for record in found] == [{"text": "one"}, None, {"text": "three"}]
    assert found[1].error.startswith("not_utf8: ")


def _absurd(rows=3):
    """Columns that Python cannot hold, beside a text."""
    far = pa.array([10**18] * rows, pa.int64())
    return pa.table(
        {
            "text": [f"文{number}" for number in range(rows)],
            "date": far.cast(pa.timestamp("ms")),
            "zone": pa.array([5] * rows, pa.int64()).cast(pa.timestamp("us", tz="Etc/Nowhere")),
            "day": pa.array([2**31 - 1] * rows, pa.int32()).cast(pa.date32()),
            "span": far.cast(pa.duration("s")),
            "nano": pa.array([1] * rows, pa.int64()).cast(pa.timestamp("ns")),
            "within": pa.array([{"at": 10**18}] * rows, pa.struct([("at", pa.timestamp("ms"))])),
        }
    )


def test_dates_that_python_does_not_know_cost_nothing():
    """A date or time zone that cannot be had is the file's number or nothing, and its row is read."""
    found = records_of(_parquet(_absurd()), name="x.parquet")
    assert [record.data["text"] for record in found] == ["文0", "文1", "文2"]
    assert {record.data["date"] for record in found} == {10**18}
    assert found[0].data["within"] is None


def test_only_the_columns_asked_for_are_read():
    """Columns that nobody asks for are not read: what is wrong in them, broken bytes included, has no effect."""
    data = bytearray(_parquet(_absurd(), 300))
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(1)
    start = column.dictionary_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    assert records_of(bytes(data), name="x.parquet")[0].error.startswith("broken_file: ")
    found = records_of(bytes(data), name="x.parquet", columns=("text",))
    assert [record.data for record in found] == [{"text": "文0"}, {"text": "文1"}, {"text": "文2"}]
    assert records_of(_parquet(_absurd()), name="x.parquet", columns=("txet",))[0].data.keys() >= {"text", "date"}


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())]
)
def test_text_in_a_binary_column_is_text(kind):
    """Bytes that are text, in UTF-8 or beyond doubt in GB18030, are text; others stay bytes."""
    values = ["一".encode(), "竹笋焯水可以去掉涩味".encode("gb18030"), b"\xff\xfe\xfa", None]
    column = pa.array(values, pa.binary())
    table = pa.table({"text": column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)})
    found = records_of(_parquet(table), name="x.parquet")
    assert [record.data["text"] for record in found] == ["一", "竹笋焯水可以去掉涩味", b"\xff\xfe\xfa", None]


def test_other_encodings_in_a_text_column():
    """A string column that holds GB18030 is read; what cannot be told costs its row, and only where it is asked for."""
    column = pa.array(["竹笋焯水可以去掉涩味".encode("gb18030"), b"\xff\xfe", b"ok"]).view(pa.string())
    data = _parquet(pa.table({"text": column, "id": [1, 2, 3]}))
    found = records_of(data, name="x.parquet")
    assert [record.data and record.data["text"] for record in found] == ["竹笋焯水可以去掉涩味", None, "ok"]
    assert [record.data for record in records_of(data, name="x.parquet", columns=("id",))] == [
        {"id": n} for n in (1, 2, 3)
    ]


def test_a_row_above_the_limit_is_too_long(monkeypatch):
    """A row above the limit is one broken record, the rows around it are read, with their numbers."""
    monkeypatch.setattr(parquet, "MAX_RECORD", 1000)
    texts = ["short", "x" * 2000, "short", "y" * 900, "z" * 5000]
    for dictionary in (True, False):
        buffer = io.BytesIO()
        pq.write_table(pa.table({"text": texts}), buffer, use_dictionary=dictionary)
        found = records_of(buffer.getvalue(), name="x.parquet")
        assert [record.error.partition(":")[0] for record in found] == [
            "",
            "record_too_long",
            "",
            "",
            "record_too_long",
        ]
        assert [record.index for record in found] == list(range(5))


BOMB = r"""
import re, sys
from kun_builder.readers import Records, parquet
from kun_builder.readers.pages import PageError, page_sizes
count = 0
for record in Records(sys.argv[1], columns=("text",)):
    count += 1
print(count, record.error.partition(":")[0], re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.parametrize("kind", ["one value", "one value again and again", "a list of one value"])
def test_a_bomb_is_not_unpacked(tmp_path, kind):
    """A few kilobytes that hold a quarter of a gigabyte are one broken record; a long value that is repeated is read in
    batches that stay small."""
    if kind == "one value":
        table = pa.table({"text": ["a" * (1 << 28)]})
    else:
        values = pa.array(["b" * 900_000])
        many = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), values)
        lists = kind == "a list of one value"
        table = pa.table({"text": pa.ListArray.from_arrays(pa.array([0, 3000], pa.int32()), many) if lists else many})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd", store_schema=False)  # else it stays a dictionary
    assert (tmp_path / "x.parquet").stat().st_size < 50_000
    del table
    done = subprocess.run(
        [sys.executable, "-c", BOMB, tmp_path / "x.parquet"], capture_output=True, text=True, check=True
    )
    count, error, kilobytes = done.stdout.split(" ")
    assert (count, error) == (("3000", "") if kind == "one value again and again" else ("1", "record_too_long"))
    assert int(kilobytes) < 300 << 10


NESTED = [
    {
        "text": "一",
        "of": [{"role": "user", "content": "问"}, {"role": "a", "content": "答" * 50}],
        "tags": [["x", None], []],
    },
    {"text": None, "of": [], "tags": None},
    {"text": "三", "of": None, "tags": [["x"], ["y", "x"]]},
] * 200


@given(st.integers(0, 650), st.integers(1, 400), st.sampled_from([1000, 100_000, 16 << 20]))
def test_lists_and_structs_are_read(start, step, limit):
    """Nested values are what Python's are, in batches that are above the limit for a record and below it."""
    table = pa.Table.from_pylist(NESTED)
    table = table.append_column("map", pa.array([[("k", "v")]] * 600, pa.map_(pa.utf8(), pa.utf8())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "MAX_RECORD", limit)
        found = records_of(_parquet(table), name="x.parquet", start=start, wanted=lambda index: index % step == 0)
    assert [record.index for record in found] == [number for number in range(start, 600) if number % step == 0]
    assert all(record.data == {**NESTED[record.index], "map": [("k", "v")]} for record in found)


@given(
    st.lists(st.text(max_size=300), min_size=1, max_size=200), st.sampled_from(["none", "snappy", "zstd"]), st.data()
)
def test_pages_are_told_from_their_headers(texts, compression, data):
    """Of every column chunk, page sizes add up to what the file's metadata says, whatever version wrote the pages."""
    buffer = io.BytesIO()
    pq.write_table(
        pa.table({"text": texts, "list": [[text] for text in texts]}), buffer, compression=compression,
        use_dictionary=data.draw(st.booleans()), data_page_version=data.draw(st.sampled_from(["1.0", "2.0"])),
        data_page_size=data.draw(st.sampled_from([100, 1000, 1 << 20])), write_statistics=data.draw(st.booleans()),
    )  # fmt: skip
    group = pq.ParquetFile(buffer).metadata.row_group(0)
    for column in (group.column(0), group.column(1)):
        sizes = list(page_sizes(buffer, column))
        headers = column.total_compressed_size - sum(packed for packed, _ in sizes)
        assert headers == column.total_uncompressed_size - sum(unpacked for _, unpacked in sizes)
        assert 0 < headers < 2000 * len(sizes)


@given(st.binary(max_size=200))
def test_any_bytes_are_pages_or_an_error(junk):
    """What is no page header raises PageError and nothing else, and ends."""

    class Column:
        data_page_offset, dictionary_page_offset, has_dictionary_page = 4, None, False
        total_compressed_size = len(junk)

    with contextlib.suppress(PageError):
        for packed, unpacked in page_sizes(io.BytesIO(b"PAR1" + junk), Column()):
            assert packed >= 0
            assert unpacked >= 0
