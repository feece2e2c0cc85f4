import bz2
import gzip
import io
import json
import lzma
import random
import struct
import tarfile
import tracemalloc
import zipfile

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from samples import FORMATS, needs_samples, samples
from short_reads import records_of

from kun_builder.readers import Records

ROWS = st.lists(st.text('ab中文\n"\\', max_size=12).map(lambda text: {"text": text}), max_size=8)
SIZES = st.lists(st.integers(1, 50), max_size=60)


def _lines(rows):
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _gz(data):
    return gzip.compress(data, 1, mtime=0)


def _tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _pzstd(data):
    frame = zstandard.compress(data)
    return struct.pack("<III", 0x184D2A50, 4, len(frame)) + frame


WRAPPERS = {
    "x.jsonl": lambda parts: b"".join(parts),
    "x.jsonl.gz": lambda parts: _gz(b"".join(parts)),
    "x.jsonl.zst": lambda parts: zstandard.compress(b"".join(parts)),
    "many members.gz": lambda parts: b"".join(map(_gz, parts)),
    "many frames.zst": lambda parts: b"".join(map(zstandard.compress, parts)),
    "skippable frames.zst": lambda parts: b"".join(map(_pzstd, parts)),
    "x.jsonl.bz2": lambda parts: b"".join(bz2.compress(part) for part in parts),
    "x.jsonl.xz": lambda parts: (bytes(8)).join(lzma.compress(part) for part in parts),
    "x.jsonl.lzma": lambda parts: lzma.compress(b"".join(parts), lzma.FORMAT_ALONE),
    "x.tar": lambda parts: _tar({f"{number}.jsonl": part for number, part in enumerate(parts)}),
    "x.tar.gz": lambda parts: _gz(_tar({f"./{'long' * 40}/{n}.jsonl": part for n, part in enumerate(parts)})),
    "x.tar.zst": lambda parts: zstandard.compress(_tar({f"{n}.jsonl": part for n, part in enumerate(parts)})),
    "x.zip": lambda parts: _zip({f"folder/{number}.jsonl": part for number, part in enumerate(parts)}),
    "x.tar.xz": lambda parts: lzma.compress(_tar({f"{n}.jsonl": part for n, part in enumerate(parts)})),
    "x.tbz2": lambda parts: bz2.compress(_tar({f"{n}.jsonl": part for n, part in enumerate(parts)})),
    "gz in tar": lambda parts: _tar({f"{number}.jsonl.gz": _gz(part) for number, part in enumerate(parts)}),
    "zip in tar.gz": lambda parts: _gz(_tar({f"{n}.zip": _zip({"a.jsonl": part}) for n, part in enumerate(parts)})),
    "named like nothing": lambda parts: _gz(b"".join(parts)),
}


@pytest.mark.parametrize("name", WRAPPERS)
@given(parts=st.lists(ROWS, min_size=1, max_size=3), sizes=SIZES)
def test_containers_do_not_show(name, parts, sizes):
    """Whatever the files are packed in, records, numbers and positions are those of the files one after the other."""
    if name == "named like nothing":
        parts = [[{"text": ""}], *parts]  # an empty file would have no format to tell
    plain = b"".join(map(_lines, parts))
    assert records_of(WRAPPERS[name](list(map(_lines, parts))), sizes, name) == records_of(plain)


LONG = [{"text": f"第{number}条 {random.Random(number).random()}"} for number in range(200)]


@given(st.sampled_from(["x.jsonl.gz", "x.jsonl.zst", "x.jsonl.xz", "x.tar", "x.tar.gz", "gz in tar"]), st.data())
def test_what_is_cut_off_is_told_once(name, data):
    """A container that ends too early gives the whole records before its end, and one broken record that says so."""
    whole = WRAPPERS[name]([_lines(LONG)])
    member = {"x.tar": len(_lines(LONG)), "gz in tar": len(_gz(_lines(LONG)))}.get(name)
    low, high = (532, 512 + member) if member else (300 if "tar" in name else 20, len(whole))
    cut = data.draw(st.integers(low + 1, high - 1))
    found = records_of(whole[:cut], data.draw(SIZES), name)
    assert [record.data for record in found[:-1]] == LONG[: len(found) - 1]
    assert found[-1].error.startswith("broken_file: ")
    assert found[-1].offset == len(_lines(LONG[: len(found) - 1]))
    assert found[-1].raw == _lines(LONG)[found[-1].offset :][: len(found[-1].raw)]


def test_garbage_in_a_compressed_file():
    """Bytes that cannot be decompressed end their file with one broken record."""
    data = bytearray(_gz(_lines(LONG)))
    data[len(data) // 2 : len(data) // 2 + 20] = bytes(20)
    found = records_of(bytes(data), name="x.gz")
    assert [record.data for record in found[:50]] == LONG[:50]
    assert found[-1].error.startswith("broken_file: ")
    trailing = records_of(_gz(_lines(LONG)) + b"garbage", name="x.gz")
    assert [record.data for record in trailing[:-1]] == LONG
    assert trailing[-1].error.startswith("broken_file: ")
    for name, compress in {"zst": zstandard.compress, "bz2": bz2.compress, "xz": lzma.compress}.items():
        found = records_of(compress(_lines(LONG)) + b"garbage", name=f"x.{name}")
        assert [record.data for record in found[:-1]] == LONG
        assert found[-1].error.startswith("broken_file: ")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_a_bomb_is_unpacked_in_pieces(compress):
    """A few bytes that unpack to very many are read in pieces: one record that is too long, in little memory."""
    bomb = compress(b'{"text": "' + b"a" * (1 << 27) + b'"}\n{"text": "b"}')
    tracemalloc.start()
    found = records_of(bomb, name="x.jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [record.error.partition(":")[0] for record in found] == ["record_too_long", ""]
    assert peak < 120 << 20


FOREIGN = {
    "7-Zip": b"7z\xbc\xaf\x27\x1c\0\4",
    "RAR": b"Rar!\x1a\x07\x01\x00",
    "LZ4": b"\x04\x22\x4d\x18\x64\x40",
    "Avro": b"Obj\x01\x04\x14avro.codec",
    "PDF": b"%PDF-1.7\n",
    "HTML": b"<!DOCTYPE html>\n<html><body>an error page</body></html>",
    "SQLite": b"SQLite format 3\0\x10\0",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_format_that_is_not_read_is_named(name):
    """A file of another kind is one broken record that says what it is, and never a text."""
    for file in ("part-0", "x.jsonl", "x.json", "x.csv", *(["x.md"] if name == "Git LFS" else [])):
        (record,) = records_of(FOREIGN[name], name=file)
        assert record.error.startswith("unknown_format: ")
        assert name in record.error


def test_arrow_and_office_files_are_named():
    """Real Arrow files and Office documents say what they are."""
    sink = io.BytesIO()
    table = pa.table({"text": ["一"]})
    for open_writer in (pa.ipc.new_file, pa.ipc.new_stream):
        sink = io.BytesIO()
        with open_writer(sink, table.schema) as writer:
            writer.write_table(table)
        (record,) = records_of(sink.getvalue(), name="data-00000-of-00001.arrow")
        assert "an Arrow file" in record.error
    (record,) = records_of(
        _zip({"[Content_Types].xml": b"<?xml ?>", "xl/worksheets/sheet1.xml": b"<x/>"}), name="x.xlsx"
    )
    assert "Office" in record.error


def test_a_broken_header_costs_its_member():
    """Where a tar header is damaged, one broken record says so and the members around it are read."""
    parts = {f"{number}.jsonl": _lines(LONG[number * 50 : number * 50 + 50]) for number in range(3)}
    data = bytearray(_tar(parts))
    header = data.index(b"1.jsonl")
    data[header : header + 4] = b"\xff\xff\xff\xff"
    found = records_of(bytes(data), name="x.tar")
    assert [record.data for record in found if not record.error] == LONG[:50] + LONG[100:150]
    (broken,) = [record for record in found if record.error]
    assert broken.index == 50
    assert "bad checksum" in broken.error


def test_a_damaged_zip_member_costs_itself():
    """A zip member with a wrong checksum is told after its records; an unreadable archive is one broken record."""
    data = bytearray(_zip({"0.jsonl": _lines(LONG[:3]), "1.jsonl": _lines(LONG[3:5])}))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.infolist()[0].header_offset + 30 + len("0.jsonl")
    data[start + 5] ^= 0xFF
    found = records_of(bytes(data), name="x.zip")
    assert [record.data for record in found][-2:] == LONG[3:5]
    assert sum(record.error.startswith("broken_file: ") for record in found) == 1
    (record,) = records_of(bytes(data)[:-30], name="x.zip")
    assert record.error.startswith("broken_file: zip: ")


def test_what_is_no_data_is_passed_over():
    """Dot files, and what macOS adds to archives, give no records, but positions count them as unpacking does."""
    files = {
        "a/x.jsonl": _lines(LONG[:1]),
        "a/._x.jsonl": b"\0\1binary",
        "__MACOSX/y": b"z",
        "b.jsonl": _lines(LONG[1:2]),
    }
    for name, data in {"x.tar": _tar(files), "x.zip": _zip(files)}.items():
        found = records_of(data, name=name)
        assert [record.data for record in found] == LONG[:2]
        assert found[1].offset == sum(map(len, list(files.values())[:3]))


def test_an_archive_of_itself_ends():
    """Containers are opened to a fixed depth: an endless nesting is one record, not an endless run."""
    data = _lines(LONG[:1])
    for _ in range(20):
        data = _gz(data)
    (record,) = records_of(data, name="x.gz")
    assert record.error


@needs_samples
def test_the_real_archives_have_the_counts_of_tarfile():
    """WanJuan's archives give every line that Python's tarfile and json give, at its byte."""
    for path in samples(FORMATS / "wanjuan", "*.tar.gz"):
        with tarfile.open(path) as archive:
            content = b"".join(archive.extractfile(member).read() for member in archive if member.isfile())
        expected = [json.loads(line, strict=False) for line in content.decode().split("\n") if line.strip()]
        found = list(Records(str(path)))
        assert [record.data for record in found] == expected
        assert all(json.loads(content[r.offset :].split(b"\n")[0], strict=False) == r.data for r in found[::37])
