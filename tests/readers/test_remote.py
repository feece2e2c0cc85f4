"""Inputs behind addresses: what is read of them is what is read of files, whatever the network does."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import tracemalloc
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers.cutting_proxy import cutting_proxy
from servers.s3 import KEY, SECRET
from servers.web import web_server

from kun_builder.errors import SourceError
from kun_builder.readers import Records, find_files, name_inputs, remote
from kun_builder.readers.addresses import may_hold_key, public
from kun_builder.readers.places import look, open_stream
from kun_builder.readers.remote import Remote

_buckets = itertools.count()


@pytest.fixture
def web(monkeypatch):
    """A web server; failed requests are made again at once."""
    monkeypatch.setattr(remote, "PAUSES", (0.01,) * 3)
    with web_server() as server:
        yield server


def _bucket(s3, files):
    return s3.put(f"bucket-{next(_buckets)}", files)


def _lines(count):
    return "".join(json.dumps({"text": f"第{number}行" * 50}) + "\n" for number in range(count)).encode()


def _read(path, spans=(None,)):
    found = []
    for span in spans:
        records = Records(path)
        records.span = span
        found += [(record.data, record.offset, record.error) for record in records]
    return found


# --- finding ---------------------------------------------------------------------------------------------------

NAMES = (
    *("b/2.jsonl", "a/1.jsonl", "a/1.txt", "a/.hidden.jsonl", ".git/3.jsonl", "a/deep/4.jsonl", "a-b/7.jsonl"),
    *("[x].jsonl", "data[1]/5.jsonl", "data[1]/[x] y/6.jsonl"),
)
GLOBS = (
    *("", "a", "a/", "a/1.txt", "[x].jsonl", "*/*.jsonl", "a/**/*.jsonl", "[ab]", "a*", ".git/3.jsonl", "**"),
    *("data[1]/*.jsonl", "data[1]/**/*.jsonl", "*/[x] y/*.jsonl", "data[1]/[x] y/[67].jsonl", "d*[[]1]/5.jsonl"),
)


def test_the_same_files_are_found_in_a_bucket_as_in_a_folder(s3, tmp_path):
    """Files, folders and globs find in a bucket what they find on disk, in the same order, under the same names."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    address = _bucket(s3, {name: b"{}" for name in NAMES} | {"empty/": b""})
    for glob in GLOBS:
        files = find_files(f"{tmp_path}/{glob}", ("*.jsonl",), "wiki")
        objects = find_files(f"{address}/{glob}", ("*.jsonl",), "wiki")
        assert list(name_inputs(files, 1)) == list(name_inputs(objects, 1))
        found = [os.path.relpath(file, tmp_path) for file in dict.fromkeys(files)]
        assert found == [name.removeprefix(f"{address}/") for name in dict.fromkeys(objects)], glob


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("{}/a/missing.jsonl", r"split `wiki`: no file at {}/a/missing.jsonl; the nearest .* {}/a \(it holds 1.txt\)"),
        ("{}/c/*.jsonl", r"no file at {}/c/\*.jsonl; the nearest folder that exists is {} \(it holds a\)"),
        ("{}/a", r"no file at {}/a: it has none that matches \*.jsonl"),
        (
            "s3://no-such-bucket/x.jsonl",
            "no file at s3://no-such-bucket/x.jsonl; there is no s3://no-such-bucket either",
        ),
        ("s3://no-such-bucket/*", "there is no s3://no-such-bucket either"),
        ("bogus://x", "bogus://x: Protocol not known: bogus"),
        ("gs://bucket/x", "the package for `gs://` is not installed"),
    ],
)
def test_nothing_found_says_where_it_looked(s3, path, says):
    """An object, a bucket or a package that is not there, and a glob of nothing, are errors with the address."""
    address = _bucket(s3, {"a/1.txt": b""})
    with pytest.raises(SourceError, match=says.format(*[address] * 3)) as error:
        find_files(path.format(address), ("*.jsonl",), "wiki")
    assert error.value.hint


@pytest.mark.parametrize("glob", ["x.jsonl", "*.jsonl", ""])
@pytest.mark.parametrize("wrong", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", None])
def test_wrong_and_missing_keys_are_told_with_the_cure(s3, monkeypatch, glob, wrong):
    """The address and the variables to set are named, the keys are not."""
    address = _bucket(s3, {"x.jsonl": b"{}"})
    if wrong:
        monkeypatch.setenv(wrong, "not-the-key-of-anybody")
    else:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3.check_keys(True)
    try:
        with pytest.raises(SourceError) as error:
            find_files(f"{address}/{glob}", ("*.jsonl",), "wiki")
    finally:
        s3.check_keys(False)
    said = f"{error.value.message} {error.value.hint}"
    assert f"{address}/{glob} cannot be looked at: " in said
    assert "AWS_ACCESS_KEY_ID" in said
    assert not [secret for secret in (KEY, SECRET, "not-the-key-of-anybody") if secret in said]


def test_a_server_that_is_connected_to_at_once(caplog):
    """A kind of address that connects before anything is asked, as FTP does, is told like one that does not answer."""
    with pytest.raises(SourceError, match=r"^ftp://127\.0\.0\.1:9/x\.jsonl cannot be reached: ") as caught:
        find_files("ftp://127.0.0.1:9/x.jsonl", ("*.jsonl",), "wiki")
    assert "check the address" in caught.value.hint


def test_names_of_web_addresses_have_a_query_only_where_it_tells_them_apart():
    """The name in row ids is that of the file; addresses that differ in their query alone stay two inputs."""
    assert list(name_inputs(["https://x.org/a/1.jsonl?download=1", "s3://b/2.jsonl"], 1)) == ["1.jsonl", "2.jsonl"]
    names = list(name_inputs(["https://x.org/get?n=1", "https://x.org/get?n=2", "https://x.org/get?n=1"], 1))
    assert len(names) == 2
    assert [name.split("/")[0] for name in names] == ["?n=1", "?n=2"]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://x.org/a.jsonl?X-Amz-Signature=0a1b", "https://x.org/a.jsonl"),
        ("https://x.org/a.jsonl?se=1&v=0123456789abcdef0123456789", "https://x.org/a.jsonl"),
        ("https://somebody@x.org/a.jsonl", "https://x.org/a.jsonl"),
        ("s3://me:mine@bucket/a.jsonl", "s3://bucket/a.jsonl"),
    ],
)
def test_addresses_with_keys_are_known(address, shown):
    """Passwords and signed links are recognised, and what is shown of them is without."""
    assert may_hold_key(address)
    assert public(address) == shown


@pytest.mark.parametrize(
    "address",
    [
        *("https://x.org/a.jsonl?download=true", "abfs://box@account.dfs.core.windows.net/a", "s3://b/data-0?.jsonl"),
        *("hf://datasets/a/b@main/x.jsonl", "/a:b@c/x?token=1", "s3://b/a.jsonl?versionId=0123456789abcdef0123456789"),
    ],
)
def test_addresses_without_keys_are_left_alone(address):
    """Harmless queries, containers of Azure, revisions, globs and files are no keys."""
    assert not may_hold_key(address)


# --- reading ---------------------------------------------------------------------------------------------------


def test_objects_are_read_as_files_are(s3, tmp_path, monkeypatch):
    """Lines, packed lines, archives and Parquet in a bucket give the records of the same files, whole and in spans."""
    monkeypatch.setattr(remote, "_FIRST", 5000)  # several blocks
    monkeypatch.setattr(remote, "_BLOCK", 20_000)
    lines = _lines(300)
    table = pa.table({"text": [f"第{n}行" * 30 for n in range(900)], "title": ["x" * (n % 90) for n in range(900)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    contents = {
        "a.jsonl": lines,
        "b.jsonl.gz": gzip.compress(lines),
        "t.parquet": (tmp_path / "t.parquet").read_bytes(),
    }
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c.jsonl", lines)
    contents["z.zip"] = (tmp_path / "z.zip").read_bytes()
    address = _bucket(s3, contents)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        whole = _read(f"{tmp_path}/{name}")
        assert len(whole) >= 300
        assert _read(f"{address}/{name}") == whole
        spans = Records(f"{address}/{name}").cuts(len(content) // 4)
        assert spans == Records(f"{tmp_path}/{name}").cuts(len(content) // 4)
        assert bool(spans) == (name in ("a.jsonl", "t.parquet"))
        assert not spans or _read(f"{address}/{name}", spans) == whole


@pytest.mark.parametrize("packed", [False, True])
def test_a_connection_that_is_cut_goes_on_where_it_was(s3, monkeypatch, packed):
    """Answers of S3 that break off are asked for again from the block in which they broke; no record is lost."""
    content = os.urandom(9_000_000).hex().encode() if packed else _lines(30_000)
    lines = (
        b"".join(b'{"text": "%s"}\n' % content[at : at + 999] for at in range(0, len(content), 999))
        if packed
        else content
    )
    body = gzip.compress(lines, 1) if packed else lines
    address = _bucket(s3, {"x": body})
    with cutting_proxy(s3.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.cuts = [200_000, 3_000_000]
        assert len(_read(f"{address}/x")) == lines.count(b"\n")
        assert not proxy.cuts
        assert proxy.passed < len(body) + 9_000_000


@pytest.mark.parametrize("ranged", [True, False])
def test_an_answer_that_breaks_off_is_asked_for_again(web, ranged, caplog):
    """A web server that breaks off, with ranges and without, gives all records; what was had is not worked on twice."""
    web.files, web.ranged = {"/x.jsonl": _lines(30_000)}, ranged
    web.cuts = [30_000, 2_000_000, 3_000_000] if ranged else [2_000_000, 9_000_000]
    assert _read(f"{web.url}/x.jsonl") == [
        (json.loads(line), offset, "") for offset, line in _offsets(web.files["/x.jsonl"])
    ]
    assert not web.cuts
    again = [record for record in caplog.records if "asked again" in record.getMessage()]
    assert len(again) == (3 if ranged else 2)
    starts = [start for method, _, start in web.asked if method == "GET"]
    assert max(starts) > 4_000_000 if ranged else not any(start > 1 for start in starts)


def _offsets(content):
    lines = content.splitlines(keepends=True)
    return zip(itertools.accumulate((len(line) for line in lines), initial=0), lines, strict=False)


def test_a_server_that_stays_away_is_an_error_with_the_byte(web, caplog):
    """After the last retry the error has the address without its query, the byte, and what the server said."""
    web.files = {"/x.jsonl": _lines(5000)}
    with open_stream(f"{web.url}/x.jsonl?download=1") as read:
        read(10)
        web.status = 503
        with pytest.raises(SourceError, match=rf"^{web.url}/x.jsonl cannot be read from byte 65536 on: HTTP 503"):
            list(iter(lambda: read(1 << 16), b""))
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "at byte 65536; asked again" in line]) == len(remote.PAUSES)


@pytest.mark.parametrize(("status", "says"), [(404, "there is no such object"), (403, "HTTP 403 Forbidden")])
def test_a_web_address_that_is_refused(web, status, says):
    """A missing page and a forbidden one are told apart, and never with the query."""
    web.status = status
    with pytest.raises(SourceError, match=rf"{web.url}/x.jsonl cannot be looked at: {says}") as error:
        find_files(f"{web.url}/x.jsonl?sig=secret", ("*",), "wiki")
    assert "secret" not in error.value.message


def test_an_object_that_changes_while_it_is_read_is_noticed(web, s3):
    """Half of one file and half of another are no input: the run ends, and reads it again when it goes on."""
    web.files = {"/x.jsonl": _lines(9000)}
    with open_stream(f"{web.url}/x.jsonl") as read:
        read(10)
        web.files, web.cuts = {"/x.jsonl": _lines(9001)}, [100]
        with pytest.raises(SourceError, match=r"x.jsonl was changed while it was read"):
            list(iter(lambda: read(1 << 16), b""))


def test_a_changed_object_has_another_stamp(s3, web):
    """Of equal size too: by the entity tag; a listing from before does not hide it."""
    address = _bucket(s3, {"x.jsonl": b"12"})
    web.files = {"/x.jsonl": b"12"}
    for place, change in (
        (f"{address}/x.jsonl", lambda: _put(s3, address, b"34")),
        (f"{web.url}/x.jsonl", lambda: web.__setattr__("files", {"/x.jsonl": b"34"})),
    ):
        find_files(place.replace("x.jsonl", "*") if "s3" in place else place, ("*",), "wiki")
        before = look(place)
        assert (before.size, len(before.stamp)) == (2, 2)
        assert look(place) == before
        change()
        find_files(place.replace("x.jsonl", "*") if "s3" in place else place, ("*",), "wiki")
        assert look(place) != before


def _put(s3, address, content):
    s3.client.put_object(Bucket=address.removeprefix("s3://"), Key="x.jsonl", Body=content)


def test_reading_takes_little_memory():
    """An object of 200 MB passes in blocks, in order and in any order."""
    system = fsspec.filesystem("memory")
    system.pipe_file("/large.bin", bytes(200 << 20))
    tracemalloc.start()
    try:
        with open_stream("memory://large.bin") as read:
            assert sum(len(data) for data in iter(lambda: read(1 << 20), b"")) == 200 << 20
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
        with Remote("memory://large.bin") as place, place.file() as file:
            assert all(file.seek(at) == at and len(file.read(9)) == 9 for at in range(0, 199 << 20, 3 << 20))
        assert tracemalloc.get_traced_memory()[1] < 90 << 20
    finally:
        tracemalloc.stop()
        system.rm_file("/large.bin")


def test_no_byte_is_fetched_that_the_next_span_will_fetch(web):
    """Spans side by side ask for each byte about once: line ends are looked for in small pieces."""
    web.files = {"/x.jsonl": _lines(20_000)}
    spans = Records(f"{web.url}/x.jsonl").cuts(3_000_000)
    assert len(spans) > 4
    web.sent = 0
    assert len(_read(f"{web.url}/x.jsonl", spans)) == 20_000
    assert web.sent < 1.06 * len(web.files["/x.jsonl"])
