import json
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from samples import FORMATS, needs_samples, samples
from short_reads import records_of

from kun_builder.readers import Records, arrays

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(['}, {"id": 7, "', "},{", '"', "\\", "]", "许功盖", '\\"}, {"id":']),
)
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**12), 10**12), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
NESTED = st.recursive(
    st.fixed_dictionaries({"id": st.integers(0, 99)}),
    lambda inner: st.fixed_dictionaries({"id": st.integers(0, 99), "children": st.lists(inner, max_size=3)}),
    max_leaves=6,
)
FIELDS = ("id", "title", "content")
DOCUMENT = st.tuples(st.integers(0, 10**6), TEXT, TEXT).map(lambda values: dict(zip(FIELDS, values, strict=True)))
ELEMENTS = st.one_of(st.lists(DOCUMENT, max_size=8), st.lists(NESTED, max_size=6), st.lists(VALUE, max_size=8))
SIZES = st.lists(st.integers(1, 50), max_size=60)
FRAME = st.sampled_from(
    [
        (b"[", b"]"),
        (b"\xef\xbb\xbf [ ", b" ]\r\n\x00"),
        (b'{"RECORDS": [', b"]}"),
        (b' {\n"RECORDS":\n[\n', b"\n]\n}\n"),
    ]
)
COMMA = st.sampled_from([b",", b", ", b"\n,\n", b" ,\t"])


def _array(elements, frame=(b"[", b"]"), comma=b", ", indent=None):
    pieces = [json.dumps(element, ensure_ascii=False, indent=indent).encode() for element in elements]
    return frame[0] + comma.join(pieces) + frame[1]


@given(ELEMENTS, FRAME, COMMA, st.sampled_from([None, 4]), SIZES)
def test_every_element_is_a_record(elements, frame, comma, indent, sizes):
    """An array of anything gives its elements in order, each at its byte, however the bytes come in."""
    data = _array(elements, frame, comma, indent)
    found = records_of(data, sizes, "x.json")
    assert [record.data for record in found] == elements
    assert [record.index for record in found] == list(range(len(elements)))
    assert not any(record.error for record in found)
    for record in found:
        assert json.JSONDecoder().raw_decode(data[record.offset :].decode())[0] == record.data


@given(ELEMENTS, FRAME, st.integers(0, 10), SIZES)
def test_reading_starts_anywhere(elements, frame, start, sizes):
    """Elements from `start` on are those that reading from the beginning gives there."""
    data = _array(elements, frame)
    assert records_of(data, sizes, "x.json", start=start) == records_of(data, (), "x.json")[start:]


@given(st.lists(DOCUMENT, min_size=1, max_size=6), st.lists(DOCUMENT, min_size=1, max_size=6), st.data())
def test_what_is_cut_out_costs_only_the_records_it_touches(before, after, data):
    """Where bytes are missing, the records around the gap are read, and what is broken says at which byte."""
    if data.draw(st.booleans()):
        after = [{name: row[name] for name in reversed(FIELDS)} for row in after]
    start, end = _array(before, (b"[", b", ")), _array(after, (b", ", b"]"))
    hurt = _array(data.draw(st.lists(DOCUMENT, min_size=1, max_size=3)), (b"", b""))
    low = data.draw(st.integers(1, len(hurt) - 3))
    high = data.draw(st.integers(low + 1, len(hurt) - 1))
    broken = start + hurt[:low] + hurt[high:] + end
    found = records_of(broken, data.draw(SIZES), "x.json")
    assert [record.data for record in found[: len(before)]] == before
    assert [record.data for record in found[-len(after) :]] == after
    touched = range(len(start), len(broken) - len(end) + 2)
    assert all(record.offset in touched for record in found[len(before) : -len(after)])


@given(st.lists(DOCUMENT, min_size=2, max_size=6), st.data())
def test_a_file_that_ends_too_early_keeps_what_it_has(documents, data):
    """A truncated array gives its whole elements, and a broken record for the last one if that was cut."""
    whole = _array(documents)
    cut = data.draw(st.integers(2, len(whole) - 2))
    found = records_of(whole[:cut], data.draw(SIZES), "x.json")
    good = [record for record in found if not record.error]
    assert [record.data for record in good] == documents[: len(good)]
    assert len(found) - len(good) in (0, 1)
    assert sum(record.offset + len(record.raw) == cut for record in found if record.error) == len(found) - len(good)


@given(st.lists(st.lists(DOCUMENT, min_size=1, max_size=4), min_size=2, max_size=4), SIZES)
def test_arrays_and_values_one_after_the_other(parts, sizes):
    """Several arrays in one file, and objects printed over several lines, are read through."""
    together = [document for part in parts for document in part]
    arrays_in_a_row = b" ".join(_array(part) for part in parts)
    printed = b"\n".join(json.dumps(document, indent=2).encode() for document in together)
    assert [record.data for record in records_of(arrays_in_a_row, sizes, "x.json")] == together
    assert [record.data for record in records_of(printed, sizes, "x.json")] == together


@pytest.mark.parametrize("rest", [b'"', b' "', b', "', b'", "', b'"content": "', b'\\"', b"}"])
@pytest.mark.parametrize("key", ["id", "title"])
def test_the_rest_of_a_string_is_no_record(rest, key):
    """What a gap leaves of a string does not join with the next record, whatever that one begins with."""
    good, following = {"id": 1, "title": "a"}, {key: "b", "content": "c"}
    pieces = [json.dumps(good).encode(), json.dumps(good).encode() + rest, json.dumps(following).encode()]
    found = records_of(b"[" + b"}, ".join([b", ".join(pieces[:2]), pieces[2]]) + b"]", name="x.json")
    assert [record.data for record in found[:2]] == [good, good]
    assert found[-1].data == following
    assert all(record.error for record in found[2:-1])


def test_dirt_in_an_array():
    """Control characters, half an emoji and Chinese encodings are handled as in lines; what follows is read."""
    rows = [
        b'{"id": 1, "content": "tab\there\x00"}',
        b'{"id": 2, "content": "\\ud83d half"}',
        '{"id": 3, "content": "这一行是用国标编码写的，不是通用编码"}'.encode("gbk"),
        '{"id": 4, "content": "這一行是用大五碼寫的，許功蓋"}'.encode("big5"),
        b'{"id": 5, "content": "\xff\xff\xff"}',
        b'{"id": 6, "content": NaN}',
    ]
    data = b"[" + b", ".join(rows) + b"]"
    found = records_of(data, [3] * 40, "x.json")
    assert [record.error.partition(":")[0] for record in found] == ["", "", "", "", "not_utf8", ""]
    assert [data[record.offset :][: len(row)] for record, row in zip(found, rows, strict=True)] == rows
    assert found[0].data["content"] == "tab\there\x00"
    assert found[1].data["content"] == " half"
    assert found[2].data["content"] == "这一行是用国标编码写的，不是通用编码"
    assert found[3].data["content"] == "這一行是用大五碼寫的，許功蓋"


@given(st.integers(0, 3), SIZES)
def test_an_element_without_end_is_given_up(position, sizes):
    """An element above the limit is one broken record, and the next one is found again."""
    rows = [{"id": number, "content": "x" * 20} for number in range(4)]
    pieces = [json.dumps(row).encode() for row in rows]
    pieces[position] = b'{"id": 9, "content": "' + b"a" * 9000 + b'"}'
    assume(position < 3)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_TINY": 16, "_SMALL": 64, "_LARGE": 256, "MAX_RECORD": 1024}.items():
            patch.setattr(arrays, name, value)
        found = records_of(b"[" + b", ".join(pieces) + b"]", sizes, "x.json")
    assert [r.data for r in found if not r.error] == rows[:position] + rows[position + 1 :]
    assert [r.error.partition(":")[0] for r in found if r.error] == ["record_too_long"]


@given(ELEMENTS, SIZES)
def test_windows_do_not_show(elements, sizes):
    """Elements longer than the stretches in which their end is looked for are read all the same."""
    data = _array(elements)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_TINY": 4, "_SMALL": 8, "_LARGE": 1 << 20}.items():
            patch.setattr(arrays, name, value)
        assert [record.data for record in records_of(data, sizes, "x.json")] == elements


@needs_samples
def test_the_real_files_have_the_counts_of_json_loads():
    """Every sample of WuDao's containers gives what Python's json gives for the whole file."""
    for path in samples(FORMATS / "wudao", "*.json"):
        whole = json.loads(path.read_bytes())
        expected = whole["RECORDS"] if isinstance(whole, dict) else whole
        assert [record.data for record in Records(str(path))] == expected


_TWO_GIGABYTES = """
import json, re, sys
from kun_builder.readers.cursor import Cursor
from kun_builder.readers.records import read_stream
from kun_builder.readers.streams import Stream

row = json.dumps({"id": 1, "title": "标题", "content": "正文" * 500}, ensure_ascii=False).encode() + b", "
block, size = row * 700, 2 << 30
blocks = -(-size // len(block))
chunks = iter([b"[", *[block] * blocks, row[:-2] + b"]"])
stream = Stream(lambda size: next(chunks, b""), "part-2021000001.json")
records = sum(not record.error for record in read_stream(stream, Cursor()))
memory = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) >> 10
print(json.dumps([stream.position, records, blocks * 700 + 1, memory]))
"""


@pytest.mark.slow
def test_two_gigabytes_on_one_line_take_little_memory():
    """A one-line array of 2 GB is read completely in less than 300 MB."""
    done = subprocess.run([sys.executable, "-c", _TWO_GIGABYTES], capture_output=True, text=True, check=True)
    size, records, expected, megabytes = json.loads(done.stdout)
    assert size > 2 << 30
    assert records == expected
    assert megabytes < 300
