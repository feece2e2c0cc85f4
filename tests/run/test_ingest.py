import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import Dataset
from samples import FORMATS, needs_samples

from kun_builder import Record, Source
from kun_builder.errors import PluginError, SourceError
from kun_builder.recipe.parts import SplitSpec
from kun_builder.recipe.registry import Entry, Plugin
from kun_builder.run.ingest import ReadSettings, ingest
from kun_builder.run.inputs import input_key
from kun_builder.run.source_shards import load_rows
from kun_builder.status import Status


def _entry(parse=lambda row: row["text"], **source):
    return Entry(Source(name="plain", parse=parse, **source), Plugin("plain", "a-package"))


def _ingest(folder, path, entry=None, *, split="wiki", limit=None, seed=0, shard_rows=10, status=None, **options):
    paths = (path,) if isinstance(path, str | os.PathLike) else path
    spec = SplitSpec("plain", tuple(map(str, paths)), options)
    settings = ReadSettings(folder=folder, shard_rows=shard_rows, limit=limit, seed=seed, status=status or Status())
    return ingest({split: (spec, entry or _entry())}, settings)[split]


def _rows(result):
    return [row for shard in result.shards for row in load_rows(shard.path).to_pylist()]


def _write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path):
    """Three files of 25 documents, two of one name."""
    for name in ("a/part-0.jsonl", "b/part-0.jsonl", "b/part-1.jsonl"):
        _write(tmp_path / "in" / name, [{"text": f"{name} 第{number}篇"} for number in range(25)])
    return tmp_path / "in"


def test_rows_carry_where_they_come_from(tmp_path, corpus):
    """Every record is a row with id, split, file, record number and byte, in the order of the input."""
    status = Status()
    result = _ingest(tmp_path / "out", corpus, status=status)
    rows = _rows(result)
    assert [shard.rows for shard in result.shards] == [10, 10, 10, 10, 10, 10, 10, 5]
    assert result.counts.rows_in == result.counts.rows_out == 75
    assert rows[30] == {
        "id": "wiki/b/part-0.jsonl:5",
        "split": "wiki",
        "file": "b/part-0.jsonl",
        "position": 5,
        "offset": len((corpus / "b/part-0.jsonl").read_bytes()[: rows[30]["offset"]]),
        "text": "b/part-0.jsonl 第5篇",
        **dict.fromkeys(("_outcome", "_stage", "_reason", "_value")),
    }
    assert {row["file"] for row in rows} == {"a/part-0.jsonl", "b/part-0.jsonl", "part-1.jsonl"}
    assert all(
        json.loads((corpus / "b/part-1.jsonl").read_bytes()[row["offset"] :].split(b"\n")[0])["text"] == row["text"]
        for row in rows[50:]
    )
    assert status.reading.done == status.reading.total == sum(path.stat().st_size for path in corpus.rglob("*.jsonl"))
    assert Dataset.from_file(str(result.shards[0].path))["text"][0] == "a/part-0.jsonl 第0篇"


def test_progress_without_a_size_counts_rows(tmp_path, corpus):
    """Where nobody knows how long the input is, progress counts rows and has no total."""
    status = Status()
    read = lambda input, start: (Record(number, {"text": "a"}) for number in range(start, 30))  # noqa: E731
    _ingest(tmp_path / "out", "a stream", _entry(find=lambda path: [path], read=read), status=status)
    assert (status.reading.unit, status.reading.total, status.reading.done) == ("rows", None, 30)


def test_a_verdict_for_every_record_without_a_text(tmp_path):
    """What is broken is quarantined, what has no text is dropped, each with a fixed word; nothing stops the run."""

    def parse(row):
        if row == "trouble":
            raise ZeroDivisionError("in the plugin")
        if row == "the end":
            raise SystemExit
        return row["text"]

    lines = [
        b'{"text": "good"}',
        b'{"text": "cut',
        b'{"text": "\xff\xfe"}',
        b'{"text": null}',
        b'{"text": " \\n "}',
        b'{"text": 5}',
        b'{"text": ["a"]}',
        b'{"title": "b"}',
        b"[1]",
        b'"trouble"',
        b'"the end"',
        b"",
    ]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(lines))
    status = Status()
    result = _ingest(tmp_path / "out", path, _entry(parse), status=status)
    verdicts = [(row["_outcome"], row["_reason"], row["text"]) for row in _rows(result)]
    assert verdicts == [
        (None, None, "good"),
        ("quarantined", "broken_json", '{"text": "cut'),
        ("quarantined", "not_utf8", '{"text": "\\xff\\xfe"}'),
        ("dropped", "no_text", ""),
        ("dropped", "no_text", ""),
        ("quarantined", "text_not_string", ""),
        ("quarantined", "text_not_string", ""),
        ("quarantined", "missing_field", ""),
        ("quarantined", "parse_failed", ""),
        ("quarantined", "parse_failed", ""),
        ("quarantined", "parse_failed", ""),
    ]
    assert _rows(result)[9]["_value"] == "ZeroDivisionError: in the plugin"
    assert {row["_stage"] for row in _rows(result)[1:]} == {"read"}
    assert result.counts.adds_up
    assert result.counts.dropped == {"no_text": 2}
    assert sum(result.counts.quarantined.values()) == 8
    assert status.drops["read: parse_failed"] == 3


def test_what_is_finished_is_not_read_again(tmp_path, corpus):
    """Reading again reads nothing, until an input, an option, the shard size or the source's code changes."""
    parsed = []
    entry = _entry(lambda row, *, field="text": (parsed.append(1), row[field])[1])
    first = _ingest(tmp_path / "out", corpus, entry)
    assert len(parsed) == 75
    assert _ingest(tmp_path / "out", corpus, entry) == first
    assert len(parsed) == 75
    assert _ingest(tmp_path / "out", corpus, entry, field="text").key != first.key
    assert _ingest(tmp_path / "out", corpus, entry, shard_rows=7).key != first.key
    (tmp_path / "code.py").write_text("new")
    other = Entry(entry.value, Plugin("plain", "a-package", path=tmp_path / "code.py"))
    assert _ingest(tmp_path / "out", corpus, other).key != first.key
    assert len(parsed) == 75 * 4
    _write(corpus / "b/part-2.jsonl", [{"text": "new"}])
    grown = _ingest(tmp_path / "out", corpus, entry)
    assert grown.counts.rows_in == 76
    assert [shard.key for shard in grown.shards[:7]] == [shard.key for shard in first.shards[:7]]


def test_the_same_rows_have_the_same_key(tmp_path, corpus):
    """A copy of the corpus, with other times of change, gives other inputs but the same shards."""
    spec = SplitSpec("plain", (str(corpus),))
    key, first = input_key("wiki", spec, _entry()), _ingest(tmp_path / "one", corpus)
    for path in corpus.rglob("*.jsonl"):
        os.utime(path, (1, 1))
    assert input_key("wiki", spec, _entry()) != key
    assert [shard.key for shard in _ingest(tmp_path / "two", corpus).shards] == [shard.key for shard in first.shards]


def test_a_moved_folder_is_still_finished(tmp_path, corpus):
    """Shards are found where their manifest is, so that a run folder can be moved."""
    first = _ingest(tmp_path / "one", corpus)
    (tmp_path / "one").rename(tmp_path / "two")
    again = _ingest(tmp_path / "two", corpus, _entry(lambda row: pytest.fail("read again")))
    assert [shard.key for shard in again.shards] == [shard.key for shard in first.shards]


def test_shards_close_by_size(tmp_path, monkeypatch):
    """Long documents close a shard before it has all its rows."""
    monkeypatch.setattr("kun_builder.run.source_shards.SHARD_CHARACTERS", 1000)
    path = _write(tmp_path / "x.jsonl", [{"text": "长" * 400} for _ in range(9)])
    assert [shard.rows for shard in _ingest(tmp_path / "out", path).shards] == [3, 3, 3]


def test_an_empty_split_has_a_schema(tmp_path):
    """A file without records gives one shard without rows."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n\n")
    result = _ingest(tmp_path / "out", path)
    assert [shard.rows for shard in result.shards] == [0]
    assert "text" in Dataset.from_file(str(result.shards[0].path)).column_names


def test_one_split_leaves_another_alone(tmp_path, corpus):
    """Splits in one folder keep their shards when another one is read anew, whatever their names begin with."""
    other = _ingest(tmp_path / "out", corpus, split="wiki-2")
    _ingest(tmp_path / "out", corpus, split="wiki")
    _ingest(tmp_path / "out", corpus, split="wiki", shard_rows=3)
    assert all(shard.path.exists() for shard in other.shards)


# --- limit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "json", "own"])
def test_a_sample_is_spread_and_nested(tmp_path, kind):
    """`limit` draws over the whole input, in its order; a larger one contains the smaller; only those are parsed."""
    documents = [{"text": f"第{number}篇"} for number in range(2000)]
    path = tmp_path / f"x.{kind}"
    path.write_text(
        json.dumps(documents) if kind == "json" else "\n".join(json.dumps(document) for document in documents)
    )
    parsed = []

    def read(input, start):
        return (Record(number, row) for number, row in enumerate(documents) if number >= start)

    entry = _entry(lambda row: (parsed.append(1), row["text"])[1], read=read if kind == "own" else None)
    small = _rows(_ingest(tmp_path / "out", path, entry, limit=40))
    assert len(parsed) < 40 * 8
    large = _rows(_ingest(tmp_path / "out", path, entry, limit=200))
    other = _rows(_ingest(tmp_path / "out", path, entry, limit=40, seed=1))
    assert [len(small), len(large), len(other)] == [40, 200, 40]
    assert [row for row in large if row in small] == small
    assert other != small
    assert [row["position"] for row in large] == sorted(row["position"] for row in large)
    assert {row["position"] // 500 for row in small} == {0, 1, 2, 3}
    assert all(row["text"] == f"第{row['position']}篇" for row in large)
    assert not list((tmp_path / "out").glob(".*"))


def test_a_sample_of_everything(tmp_path, corpus):
    """A limit above the number of records takes them all; it counts records per split."""
    assert _rows(_ingest(tmp_path / "one", corpus, limit=1000)) == _rows(_ingest(tmp_path / "two", corpus))
    assert _ingest(tmp_path / "one", corpus, limit=5).counts.rows_in == 5


# --- failures --------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on(tmp_path, corpus):
    """After Ctrl-C the finished shards stay, only what is behind them is parsed, and the result is the same."""
    whole = _ingest(tmp_path / "whole", corpus)
    for stop in range(1, 75, 9):
        parsed = []

        def parse(row, *, stop=stop, parsed=parsed):
            if len(parsed) == stop:
                raise KeyboardInterrupt
            parsed.append(row["text"])
            return row["text"]

        folder = tmp_path / f"stopped at {stop}"
        with pytest.raises(KeyboardInterrupt):
            _ingest(folder, corpus, _entry(parse))
        again = []
        result = _ingest(folder, corpus, _entry(lambda row, again=again: (again.append(1), row["text"])[1]))
        assert [shard.key for shard in result.shards] == [shard.key for shard in whole.shards]
        assert len(again) == 75 - stop // 10 * 10


_KILLED = """
import sys, time
from pathlib import Path
from kun_builder import Source
from kun_builder.run.ingest import ReadSettings, ingest
from kun_builder.recipe.registry import Entry, Plugin
from kun_builder.recipe.parts import SplitSpec
from kun_builder.status import Status

def parse(row):
    time.sleep(0.002)
    return row["text"]

entry = Entry(Source(name="plain", parse=parse), Plugin("plain", "a-package"))
limit = int(sys.argv[3]) or None
spec = SplitSpec("plain", (sys.argv[1],))
settings = ReadSettings(folder=Path(sys.argv[2]), shard_rows=10, limit=limit, status=Status())
ingest({"wiki": (spec, entry)}, settings)
"""


@pytest.mark.parametrize("limit", [None, 60])
def test_a_killed_run_goes_on(tmp_path, corpus, limit):
    """After `kill -9` at any moment the same command gives the rows that an undisturbed run gives."""
    whole = _rows(_ingest(tmp_path / "whole", corpus, limit=limit))
    command = [sys.executable, "-c", _KILLED, str(corpus), str(tmp_path / "out"), str(limit or 0)]
    for _ in range(2):
        process = subprocess.Popen(command)
        before = len(list((tmp_path / "out").glob("**/*.arrow")))
        while len(list((tmp_path / "out").glob("**/*.arrow"))) <= before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = _ingest(tmp_path / "out", corpus, limit=limit)
    assert _rows(result) == whole
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["wiki.json", *(shard.path.name for shard in result.shards)]
    )


def test_a_source_that_does_not_fit_is_told(tmp_path):
    """Where not one of many records could be used, an error shows the first and where to look."""
    path = _write(tmp_path / "x.jsonl", [{"body": "b"}] * 10)
    with pytest.raises(SourceError, match=r"could not use any of 10 records; .*wiki/x\.jsonl:0: missing_field: 'text'"):
        _ingest(tmp_path / "out", path)
    assert _ingest(tmp_path / "few", _write(tmp_path / "y.jsonl", [{"body": "b"}] * 9)).counts.rows_out == 0


def test_a_failing_source_is_named(tmp_path, corpus):
    """Whatever a source's own reading raises comes under its name and package, with the input."""

    def read(input, start):
        yield Record(0, {"text": "a"})
        raise OSError("the tape is torn")

    with pytest.raises(PluginError, match=r"`plain` of a-package failed while reading .*part-0.*OSError: the tape"):
        _ingest(tmp_path / "out", corpus, _entry(read=read))
    with pytest.raises(PluginError, match=r"record 0 came after record 0"):
        _ingest(tmp_path / "out", corpus, _entry(read=lambda input, start: iter([Record(0, {}), Record(0, {})])))
    with pytest.raises(PluginError, match=r"failed while looking for the inputs of split `wiki`: KeyError"):
        _ingest(tmp_path / "out", corpus, _entry(find=lambda path: {}[path]))
    with pytest.raises(SourceError, match="finds nothing"):
        _ingest(tmp_path / "out", corpus, _entry(find=lambda path: []))


def test_a_source_may_let_surrogates_pass(tmp_path, corpus):
    """A lone surrogate from a source's own reader is left out; it reaches neither Arrow nor an error."""

    def read(input, start):
        return iter([Record(0, {"text": "半\ud83d个"}), Record(1, {"text": ["\ud83d"]}), Record(2, error="\ud83d: x")])

    rows = _rows(_ingest(tmp_path / "out", corpus / "b/part-1.jsonl", _entry(read=read)))
    assert [row["text"] for row in rows] == ["半个", "", ""]
    assert [row["_reason"] for row in rows] == [None, "text_not_string", "broken_record"]


def test_a_truncated_archive_does_not_stop_the_others(tmp_path, corpus):
    """After an archive that ends too early comes the next file; the break is a row with file and position."""
    import gzip

    for number in range(2):
        data = gzip.compress("".join(json.dumps({"text": f"{n} {random.random()}"}) + "\n" for n in range(99)).encode())
        (corpus / f"part-{number}.jsonl.gz").write_bytes(data[: -300 if number == 0 else None])
    result = _ingest(tmp_path / "out", sorted(corpus.glob("*.gz")))
    rows = _rows(result)
    (broken,) = [row for row in rows if row["_outcome"]]
    assert (broken["file"], broken["_reason"]) == ("part-0.jsonl.gz", "broken_file")
    assert 0 < broken["position"] < 99
    assert broken["offset"] > 0
    assert sum(row["file"] == "part-1.jsonl.gz" for row in rows) == 99


_MEMORY = """
import json, re, sys
from pathlib import Path
from kun_builder import Source, Record
from kun_builder.run.ingest import ReadSettings, ingest
from kun_builder.recipe.registry import Entry, Plugin
from kun_builder.readers import cursor, records, streams
from kun_builder.recipe.parts import SplitSpec
from kun_builder.status import Status

def read(input, start):
    block = (json.dumps({"text": "正文" * 3000}, ensure_ascii=False) + "\\n").encode() * 50
    chunks = iter([block] * 700)
    return records.read_stream(streams.Stream(lambda size: next(chunks, b""), "x.jsonl"), cursor.Cursor(start))

entry = Entry(Source(name="plain", parse=lambda row: row["text"], read=read), Plugin("plain", "a-package"))
spec = SplitSpec("plain", (sys.argv[1],))
settings = ReadSettings(folder=Path(sys.argv[2]), shard_rows=1 << 30, status=Status())
result = ingest({"wiki": (spec, entry)}, settings)["wiki"]
memory = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) >> 10
print(json.dumps([result.counts.rows_in, len(result.shards), memory]))
"""


@pytest.mark.slow
def test_memory_is_bounded_by_a_shard(tmp_path, corpus):
    """630 MB of text pass in less than 350 MB, interpreter and Arrow included, however many rows a shard may have."""
    command = [sys.executable, "-c", _MEMORY, str(corpus / "b/part-1.jsonl"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, shards, megabytes = json.loads(done.stdout)
    assert rows == 35_000
    assert shards > 5
    assert megabytes < 350


@needs_samples
def test_the_traps_end_well(tmp_path):
    """Each line of the traps is kept, dropped or quarantined with its reason and position."""
    path = Path(FORMATS, "traps", "skypile_like_dirty.jsonl")
    rows = _rows(_ingest(tmp_path, path))
    assert [row["_reason"] for row in rows] == [
        None, None, None, "broken_json", "no_text", "text_not_string", None, None
    ]  # fmt: skip
    assert [row["position"] for row in rows] == list(range(8))
    assert [row["offset"] for row in rows] == [0, 61, 1063, 1110, 1135, 1150, 1177, 1211]
