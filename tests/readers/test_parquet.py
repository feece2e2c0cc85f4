import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from short_reads import records_of

from kun_builder.readers import Records

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
    assert broken.error.startswith("broken_file: Parquet, row group 1: ")
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
