import gzip
import json
import random

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from samples import FORMATS, needs_samples, samples
from short_reads import records_of

from kun_builder.errors import SourceError
from kun_builder.readers import Records, lines
from kun_builder.readers.cursor import Run
from kun_builder.readers.decode import BLANK
from kun_builder.types import Record

GBK = '{"text": "这一行是用国标编码写的，不是通用编码"}'.encode("gbk")
BIG5 = '{"text": "這一行是用大五碼寫的，功能許多，不是通用編碼"}'.encode("big5")

# Each line with what must become of it: its data, or the reason why it is broken.
LINES = st.one_of(
    st.fixed_dictionaries({"text": st.text(st.characters(exclude_categories=["Cs"]))}).map(
        lambda row: (json.dumps(row, ensure_ascii=False).encode(), row)
    ),
    st.sampled_from(
        [
            (b"", None),
            (b" \t\r", None),
            (b"\0\0\0", None),
            (b'\xef\xbb\xbf{"text": "a"}', {"text": "a"}),
            (b'{"text": "a"}\r', {"text": "a"}),
            (b'{"text": "a\tb\x0bc\x00d"}', {"text": "a\tb\x0bc\x00d"}),
            (b'\x00\x00{"text": "after a hole"}', {"text": "after a hole"}),
            (b'{"text": "\\ud83d half"}', {"text": " half"}),
            (b'{"text": "\\ud83d\\ude00 whole"}', {"text": "\U0001f600 whole"}),
            (b'{"text": null}', {"text": None}),
            (b'{"text": ["list", NaN]}', {"text": ["list", None]}),
            (b"17", 17),
            (GBK, {"text": "这一行是用国标编码写的，不是通用编码"}),
            (BIG5, {"text": "這一行是用大五碼寫的，功能許多，不是通用編碼"}),
            (b'{"text": "trunc', "broken_json"),
            (b'{"a":' * 2000, "broken_json"),
            (b'{"text": "\xff\xfe\xfa"}', "not_utf8"),
            ('{"text": "中文中文中文"}'.encode().replace(b"\xb8", b"", 1), "not_utf8"),
        ]
    ),
)
SIZES = st.lists(st.integers(1, 50), max_size=60)


def _is(record, expected):
    if isinstance(expected, str):
        return record.error.startswith(f"{expected}: ")
    return not record.error and orjson.dumps(record.data) == orjson.dumps(expected)  # NaN is null


@given(st.lists(LINES, max_size=12), SIZES, st.booleans())
@example([(b"\0\0\0", None), (b"\0\0\0", None), (b'{"text": "a"}', {"text": "a"})], [], False)  # no UTF-32
@example([(b"", None), (b"\0\0\0", None), (b"", None), (b"\0\0\0", None)], [], False)
def test_no_line_is_lost_or_doubled(given_lines, sizes, line_end):
    """Every line that is not blank is one record, as data or broken, at its byte, however the bytes come in."""
    data = b"\n".join(line for line, _ in given_lines) + b"\n" * line_end
    found = records_of(data, sizes)
    expected = [(line, what) for line, what in given_lines if line.strip(BLANK)]
    assert [record.index for record in found] == list(range(len(expected)))
    for record, (line, what) in zip(found, expected, strict=True):
        assert data[record.offset :].startswith(line)
        assert _is(record, what)
        assert not record.error or record.raw == line[:1000]


@given(st.lists(LINES, max_size=12), st.integers(0, 14), SIZES)
def test_reading_starts_anywhere(given_lines, start, sizes):
    """Records from `start` on are those that reading from the beginning gives there."""
    data = b"\n".join(line for line, _ in given_lines)
    assert records_of(data, sizes, start=start) == records_of(data)[start:]


@given(st.lists(LINES, max_size=12), st.sets(st.integers(0, 12)), SIZES)
def test_only_wanted_lines_are_parsed(given_lines, wanted, sizes):
    """Each record is asked for once, and those that are not wanted are left out with nothing else changed."""
    data, asked = b"\n".join(line for line, _ in given_lines), []
    found = records_of(data, sizes, wanted=lambda index: (asked.append(index), index in wanted)[1])
    everything = records_of(data)
    assert asked == list(range(len(everything)))
    assert found == [record for record in everything if record.index in wanted]


MORE_LINES = st.one_of(
    LINES.map(lambda line: line[0]),
    st.sampled_from(
        [
            b'  {"text": "a"} \t',
            b'{"text": "a", "text": "twice"}',
            b'{"text": "a"}{"text": "b"}',
            b'{"text": "a"},',
            b'{"text": "}, {"}',
            b'{"text": ""}',
            b'{"text": " \\u3000"}',
            b'{"text": {"text": "deeper"}}',
            b'{"text": 17}',
            b'{"title": "a"}',
            b'["text"]',
            b'"text"',
            b"[",
            b"]",
            b'{"text": "a"}\x00',
            b'{"text": "a", "x": 1e999}',
        ]
    ),
)


@given(st.lists(MORE_LINES, max_size=20), st.integers(0, 9), SIZES, st.integers(1, 60))
def test_runs_of_plain_lines_are_the_records_that_come_one_by_one(given_lines, start, sizes, most):
    """Whatever stands between them, texts in runs have the numbers, places and words of the records; only lines with a
    text are in a run, and all else comes as it does without."""
    data = b"\n".join(given_lines)
    alone = records_of(data, sizes, start=start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_RUN", most)
        patch.setattr(lines, "_TOGETHER", most % 5 + 1)
        items = records_of(data, sizes, start=start, only="text")
    found = []
    for item in items:
        if isinstance(item, Run):
            assert all(text.strip() for text in item.texts)
            places = enumerate(zip(item.offsets, item.texts, strict=True), item.index)
            found += [Record(index, {"text": text}, offset) for index, (offset, text) in places]
        else:
            found.append(item)
    assert [(one.index, one.offset, one.error, one.raw) for one in found] == [
        (one.index, one.offset, one.error, one.raw) for one in alone
    ]
    for one, same in zip(found, alone, strict=True):
        assert one.data == same.data or orjson.dumps(one.data["text"]) == orjson.dumps(same.data["text"])


def test_most_lines_come_in_runs():
    """A line without a text breaks a run; there is none without a field, or where records are chosen."""
    data = b'{"text": "a"}\n{"text": "b"}\n{"text": null}\n{"text": "c"}\n'
    runs = [item for item in records_of(data, only="text") if isinstance(item, Run)]
    assert [(run.index, run.offsets, run.texts) for run in runs] == [(0, [0, 14], ["a", "b"]), (3, [43], ["c"])]
    for cursor in ({}, {"only": "title"}, {"only": "text", "wanted": lambda index: True}):
        assert not any(isinstance(item, Run) for item in records_of(data, **cursor))


@given(SIZES)
def test_a_line_without_end_is_broken_and_the_next_one_is_read(sizes):
    """A line above the limit is one broken record; memory holds no more of it, and reading goes on after it."""
    data = b'{"text": "' + b"a" * 300 + b'"}\n{"text": "b"}\n' + b"c" * 500
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MAX_RECORD", 100)
        found = records_of(data, sizes)
    assert [record.error.partition(":")[0] for record in found] == ["record_too_long", "", "record_too_long"]
    assert [record.offset for record in found] == [0, 313, 327]
    assert found[1].data == {"text": "b"}


TEXTS = st.lists(
    st.sampled_from([b"", b"  ", b"one", "二".encode(), b"three\r", "四四四四".encode("gbk"), b"\xff\xff"])
)


@given(TEXTS, SIZES, st.sampled_from(["file", "paragraph", "line"]))
def test_text_is_cut_into_documents(pieces, sizes, documents):
    """A text file is one document, or one per paragraph or line; blank ones are none; every other byte is in one."""
    data = b"\n".join(pieces)
    found = records_of(data, sizes, "x.txt", documents)
    assert found == records_of(data, (), "x.txt", documents)
    blank = [not piece.strip() for piece in pieces]
    starts = [number for number, empty in enumerate(blank) if not empty and (number == 0 or blank[number - 1])]
    expected = {"file": not all(blank), "paragraph": len(starts), "line": blank.count(False)}
    assert len(found) == expected[documents]
    if documents == "paragraph":
        assert [record.offset for record in found] == [sum(len(p) + 1 for p in pieces[:start]) for start in starts]


def test_text_is_told_by_name_where_it_looks_like_json():
    """A text file may begin with a bracket or brace; JSON without a telling name is told by content."""
    assert records_of(b"[1] A footnote.\n\n{2} Another.\n", name="x.txt")[0].data == "[1] A footnote.\n\n{2} Another."
    assert [record.data for record in records_of(b"[1, NaN]\n[2]\n")] == [
        [1, pytest.approx(float("nan"), nan_ok=True)],
        [2],
    ]
    assert records_of(b'{"text": "a"}\n', name="part-0")[0].data == {"text": "a"}
    assert records_of("《没有后缀》".encode(), name="part-0")[0].data == "《没有后缀》"
    assert records_of(b"\x7fELF\x00\x01", name="part-0")[0].error.startswith("unknown_format: ")
    assert records_of(b"\x00\xff one", name="x.txt")[0].error.startswith("not_utf8: ")


def test_a_long_text_says_how_to_cut_it(monkeypatch):
    """A text file above the limit is one broken record that names the option that helps."""
    monkeypatch.setattr(lines, "MAX_RECORD", 100)
    (record,) = records_of(b"a b\n" * 100, [7] * 40, "x.txt")
    assert "documents: paragraph" in record.error
    assert len(records_of(b"a b\n" * 100, (), "x.txt", "line")) == 100


OBJECTS = st.lists(
    st.fixed_dictionaries(
        {"text": st.text('ab中"{},\\', max_size=8), "of": st.lists(st.just({"text": "inner"}), max_size=3)}
    ),
    min_size=1,
    max_size=8,
)
GAPS = st.sampled_from(
    [b"", b" ", b"\r", b",", b"\n", b",\n", b"\n,\n", b"\n\x1e", b"\xef\xbb\xbf", b"\n\xef\xbb\xbf", b"\t", b"\0"]
)


def _run_together(objects, gaps):
    pieces = [json.dumps(row, ensure_ascii=False).encode() for row in objects]
    return b"".join(piece + gap for piece, gap in zip(pieces, gaps, strict=False))


@given(OBJECTS, st.lists(GAPS, min_size=8, max_size=8), SIZES, st.sampled_from(["x.jsonl", "x.json", "part-0"]))
def test_objects_without_a_line_end_between_them(objects, gaps, sizes, name):
    """Whatever stands or is missing between objects, each is a record at its byte, from any of them on."""
    data = _run_together(objects, gaps)
    found = records_of(data, sizes, name)
    assert [record.data for record in found] == objects
    assert [record.index for record in found] == list(range(len(objects)))
    for record in found:
        assert json.JSONDecoder().raw_decode(data[record.offset :].decode().lstrip("\ufeff\x1e\0"))[0] == record.data
    for start in range(len(objects) + 1):
        assert records_of(data, sizes, name, start=start) == found[start:]
    assert records_of(data, sizes, name, wanted=lambda index: index % 2 == 0) == found[::2]


@given(OBJECTS, SIZES)
def test_a_sequence_of_rfc_7464(objects, sizes):
    """Record separators stand before values, which may be printed over several lines."""
    for indent in (None, 2):
        data = b"".join(b"\x1e" + json.dumps(row, indent=indent).encode() + b"\n" for row in objects)
        assert [record.data for record in records_of(data, sizes, "x.json-seq")] == objects


@given(OBJECTS, st.lists(GAPS.filter(lambda gap: b"\n" not in gap), min_size=8, max_size=8), SIZES)
def test_one_endless_line_is_read_in_pieces(objects, gaps, sizes):
    """A line of any length is read object by object, and the lines behind it are."""
    data = _run_together([*objects, *objects, *objects], gaps * 3) + b'\n{"text": "next"}\n'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MAX_RECORD", 150)
        found = records_of(data, sizes)
    assert [record.data for record in found if not record.error] == [*objects * 3, {"text": "next"}]


def test_a_broken_object_in_a_line_costs_itself():
    """Among objects in one line, one that is broken ends where the next begins; none of its parts is a record."""
    lost = b'{"id": 2, "of": [{"x": 1}, {"x": 2}], oops}'
    found = records_of(b'{"id": 1}' + lost + b'{"id": 3}\n' + lost + b"\n")
    assert [record.data for record in found] == [{"id": 1}, None, {"id": 3}, None]
    assert [record.raw for record in found if record.error] == [lost, lost]


def test_what_is_cut_off_in_one_line_keeps_its_records():
    """Where a compressed file of a single line ends too early, its whole objects are read and the rest is told once."""
    whole = b"".join(
        b'{"n": %d, "text": "%s"}' % (n, random.Random(n).randbytes(20).hex().encode()) for n in range(500)
    )
    found = records_of(gzip.compress(whole)[:-5000], name="x.jsonl.gz")
    assert len(found) > 100
    assert [record.data["n"] for record in found[:-1]] == list(range(len(found) - 1))
    assert found[-1].error.startswith("broken_file: ")
    assert whole[found[-1].offset :].startswith(found[-1].raw)


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@given(st.lists(st.text("ab中😀", max_size=9), min_size=1, max_size=5), SIZES)
def test_utf_16_and_utf_32_are_read(codec, texts, sizes):
    """Text in UTF-16 or UTF-32 is what it is in UTF-8, with a byte order mark or, for JSON, without one."""
    data = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\r\n" for text in texts)
    assert [record.data["text"] for record in records_of(data.encode(codec), sizes)] == texts
    if codec in ("utf-16", "utf-32"):
        for kind in ("file", "line", "paragraph"):
            plain = records_of(data.encode(), (), "x.txt", kind)
            assert records_of(data.encode(codec), sizes, "x.txt", kind) == plain


def test_half_a_character_at_the_end_of_utf_16_is_told():
    """A UTF-16 file that ends within a character gives what is before, and says so; half a pair is left out."""
    data = '{"text": "一"}\n{"text": "二"}\n'.encode("utf-16")
    found = records_of(data + b"\x4e")
    assert [record.data for record in found[:2]] == [{"text": "一"}, {"text": "二"}]
    assert found[2].error.startswith("broken_file: ")
    half = '{"text": "a'.encode("utf-16") + b"\x3d\xd8" + '"}\n'.encode("utf-16-le")
    assert records_of(half)[0].data == {"text": "a"}


@pytest.mark.parametrize("name", ["x.txt", "x.csv"])
def test_carriage_returns_alone_end_lines(name):
    """Lines of old Mac files end, in text and tables, as others do."""
    found = records_of(b"text\rone\r\rtwo\r", name=name, documents="line")
    assert [record.data for record in found][-2:] == {
        "x.txt": ["one", "two"],
        "x.csv": [{"text": "one"}, {"text": "two"}],
    }[name]


@needs_samples
def test_the_real_files_have_the_counts_of_json_loads():
    """Every sample in the corpora's containers is read completely, with the data that Python's json gives."""
    for path in samples(FORMATS / "skypile", "*.jsonl"):
        expected = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        assert [record.data for record in Records(str(path))] == expected


@needs_samples
def test_each_trap_has_its_outcome():
    """Each line of the traps is a record with its position: repaired where that is safe, else broken."""
    path = FORMATS / "traps" / "skypile_like_dirty.jsonl"
    raw = path.read_bytes()
    found = list(Records(str(path)))
    assert [bool(record.error) for record in found] == [False, False, False, True, False, False, False, False]
    assert [raw[r.offset :].split(b"\n")[0] for r in found] == [line for line in raw.split(b"\n") if line]
    assert found[3].error.startswith("broken_json: ")
    assert found[6].data == {"text": "GBK编码的行，中文测试"}
    assert "\ud83d" not in found[7].data["text"]


def test_a_missing_file_is_named(tmp_path):
    """What cannot be opened is an error that names it, not a broken record."""
    with pytest.raises(SourceError, match="nothing\\.jsonl cannot be opened"):
        list(Records(str(tmp_path / "nothing.jsonl")))
