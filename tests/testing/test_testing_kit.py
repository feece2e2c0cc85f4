"""The kit for plugin authors finds what would go wrong in a run, says it, and lets good plugins pass."""

from __future__ import annotations

import csv
import io
import itertools
import random
import zipfile
from dataclasses import replace

import pyarrow as pa
import pytest

from kun_builder import (
    BatchStage,
    DatasetStage,
    Drop,
    ModelName,
    Record,
    RowStage,
    Source,
    drop_rows,
)
from kun_builder.errors import RejectedError
from kun_builder.testing import check_source, check_stage

TEXTS = ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。", "short"]


# --- sources ---------------------------------------------------------------------------------------------------


def parse(data, *, field: str = "text"):
    if not isinstance(data[field], str):
        raise ValueError(data[field])
    return data[field]


def parse_anything(data):
    return str(data.get("text"))


def read(input, start):
    """Poems of a CSV file in a zip file."""
    try:
        with zipfile.ZipFile(input) as archive, archive.open("poems.csv") as file:
            rows = csv.DictReader(io.TextIOWrapper(file, "big5"))
            for index, row in itertools.islice(enumerate(rows), start, None):
                yield Record(index, row)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        yield Record(0, error=f"broken_file: {error}")


def read_without_start(input, start):
    yield from read(input, 0)


def read_from_one(input, start):
    for record in read(input, start):
        yield replace(record, index=record.index + 1)


def read_at_once(input, start):
    blob = "x" * (8 << 20)
    yield from read(input, start)
    del blob


def read_and_fall(input, start):
    with zipfile.ZipFile(input) as archive:
        archive.testzip()
    yield from read(input, start)


def read_at_random(input, start):
    return iter([Record(0, {"text": str(random.random())})])


POEMS = Source(name="poems", parse=parse, read=read, license="CC0-1.0", files=("*.zip",))


@pytest.fixture
def poems(tmp_path):
    """A zip file with a CSV file in BIG5."""
    table = io.StringIO()
    writer = csv.DictWriter(table, ["text", "title"])
    writer.writeheader()
    writer.writerows({"text": f"床前明月光{number}", "title": "靜夜思"} for number in range(20))
    with zipfile.ZipFile(tmp_path / "poems.zip", "w") as archive:
        archive.writestr("poems.csv", table.getvalue().encode("big5"))
    return tmp_path / "poems.zip"


def test_good_source_passes(poems):
    """A source of an unusual format passes, and its rows come back as a run would have them."""
    rows = check_source(POEMS, poems)
    assert [row["text"] for row in rows] == [f"床前明月光{number}" for number in range(20)]
    assert [row["id"] for row in rows[:2]] == ["test/poems.zip:0", "test/poems.zip:1"]
    assert [row["position"] for row in rows] == list(range(20))
    assert check_source(POEMS, poems.parent, field="title")[0]["text"] == "靜夜思"


def test_good_source_without_a_reader_passes(tmp_path):
    """A source that only parses passes; a broken record is quarantined in its place."""
    (tmp_path / "a.jsonl").write_text('{"text": "一"}\n{"text": \n{"text": null}\n')
    rows = check_source(Source(name="s", parse=parse, license="mit"), tmp_path)
    assert [row["_reason"] for row in rows] == [None, "broken_json", "parse_failed"]


def test_a_field_that_is_not_the_text_is_found_out(tmp_path):
    """A source that names a field whose string `parse` does not return as it is fails."""
    (tmp_path / "a.jsonl").write_text('{"text": "一", "title": "二"}\n')
    source = Source(name="s", parse=parse, license="mit", verbatim=lambda: "title")
    with pytest.raises(AssertionError, match="record 0: `parse` returns another text than `title`"):
        check_source(source, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"license": ""}, "source `poems` has no `license`"),
        ({"name": "po ems"}, "'po ems' cannot name a source"),
        ({"parse": lambda data, field: data}, "options are keyword-only"),
        ({"read": read_without_start}, "must skip"),
        ({"read": read_from_one}, "must be counted 0, 1, 2, ..., not [1, 2, 3, 4, 5]..."),
        ({"read": read_at_once}, "reading takes 8 MB: `read` must stream, not load"),
        (
            {"read": read_and_fall},
            "File is not a zip file: yield a Record with `error`, or raise SourceError",
        ),
        ({"read": read_at_random}, "gives other rows when it reads again"),
        ({"parse": parse_anything}, "source `poems` makes text of a record without any field"),
        ({"parse": lambda data: str(data["text"])}, "source `poems` takes None for text: 'None'"),
        ({"parse": lambda data: None}, "source `poems` finds no text in "),
    ],
)
def test_bad_source_is_found_out(poems, change, message):
    """Whatever would cost records, memory or a run is said."""
    with pytest.raises(AssertionError) as caught:
        check_source(replace(POEMS, **change), poems, memory=4 << 20)
    assert message in str(caught.value)


def test_wrong_option_of_a_source(poems):
    """Options are checked as in a recipe."""
    with pytest.raises(AssertionError, match=r"unknown option `feld`; did you mean `field`"):
        check_source(POEMS, poems, feld="title")


# --- stages ----------------------------------------------------------------------------------------------------


async def ask(row, generate, *, model: ModelName = "chat", shortest: int = 6):
    if len(row["text"]) < shortest:
        raise Drop("too_short", len(row["text"]))
    return {**row, "instruction": (await generate(model, row["text"])).text}


async def forgetful(row, generate):
    return row


async def mistyped(row, generate):
    return {**row, "instruction": 3}


async def failing(row, generate):
    raise OSError("disk")


async def talkative(row, generate):
    raise Drop(f"too short: {len(row['text'])}")


async def chancy(row, generate):
    return {**row, "instruction": str(random.random())}


async def demanding(row, generate, *, strength: object = object()):
    return {**row, "instruction": "x"}


ASK = RowStage(name="ask", run=ask, adds={"instruction": "string"})


def test_good_row_stage_passes():
    """A stage that asks a model passes; rows, drops with reason and value, and requests come back."""
    result = check_stage(ASK, TEXTS, answers=["一？", "二？"])
    assert [row["instruction"] for row in result.rows] == ["一？", "二？"]
    assert result.dropped == {"test/rows.jsonl:2": ("too_short", "5")}
    assert result.reasons == ["too_short"]
    assert [request.prompt for request in result.requests] == TEXTS[:2]
    assert check_stage(ASK, TEXTS, shortest=20).rows == []


def test_refused_request_is_a_reason():
    """A request that the server refuses costs its row, as in a run."""
    result = check_stage(ASK, TEXTS[:2], answers=[RejectedError("too long", status=413), "二？"])
    assert result.reasons == ["request_rejected"]
    assert len(result.rows) == 1


def test_rows_bring_the_columns_of_earlier_stages():
    """A row may be given with columns, its id among them."""

    rows = [{"id": "a", "text": "一二三四五六七", "score": 0.5}]
    assert check_stage(ASK, rows).rows[0]["score"] == 0.5
    assert check_stage(ASK, rows).rows[0]["id"] == "a"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (forgetful, "column `instruction` was not set"),
        (mistyped, "column `instruction`: "),
        (failing, "stage `ask` failed on row test/rows.jsonl:0: OSError: disk"),
        (talkative, "reason 'too short: 12' must be one fixed word"),
        (chancy, "gives other rows when it runs again"),
        (demanding, "no recipe can say `strength: object = "),
        (lambda row, generate: row, "`run` must be `async def run(row, generate, *, options...)`"),
    ],
)
def test_bad_row_stage_is_found_out(run, message):
    """Whatever would quarantine rows or make a run unrepeatable is said."""
    with pytest.raises(AssertionError) as caught:
        check_stage(replace(ASK, run=run), TEXTS)
    assert message in str(caught.value)


def test_stage_that_cannot_be_pickled():
    """A stage made of a local function cannot go to other processes."""

    async def local(row, generate):
        return row

    with pytest.raises(AssertionError, match=r"stage `local` cannot be pickled: .*; use functions of a module"):
        check_stage(RowStage(name="local", run=local), TEXTS)


def long_enough(table, *, least: int = 6):
    lengths = pa.compute.utf8_length(table["text"]).to_pylist()
    table = table.append_column("length", pa.array(lengths, pa.int64()))
    return drop_rows(table, [length < least for length in lengths], "too_short", lengths)


def removing(table):
    return long_enough(table).slice(0, 1)


def undeclared(table):
    return long_enough(table).append_column("extra", pa.nulls(len(table)))


def reversing(table):
    return long_enough(table).take(list(range(len(table)))[::-1])


def counting(table):
    return long_enough(table).set_column(table.num_columns, "length", pa.array(range(len(table)), pa.int64()))


def same_id(table):
    table = long_enough(table)
    return pa.concat_tables([table, table])


LENGTH = BatchStage(name="length", run=long_enough, adds={"length": "int64"})


def test_good_batch_stage_passes():
    """A vectorised stage passes; dropped rows are those that it marked."""
    result = check_stage(LENGTH, TEXTS)
    assert [row["length"] for row in result.rows] == [12, 12]
    assert result.dropped == {"test/rows.jsonl:2": ("too_short", "5")}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (removing, "removed 2 rows"),
        (undeclared, "returned other columns than it declares: extra"),
        (reversing, "changes the order of the rows"),
        (counting, "gives other rows when they come one by one: shards may end anywhere"),
        (same_id, "gives two rows one id"),
    ],
)
def test_bad_batch_stage_is_found_out(run, message):
    """Whatever depends on where shards end, or loses rows, is said."""
    with pytest.raises(AssertionError) as caught:
        check_stage(replace(LENGTH, run=run), TEXTS)
    assert message in str(caught.value)


def longest(dataset, *, least: int = 6):
    return [(row, "too_short", length) for row, length in enumerate(dataset["length"]) if length < least]


def measure(table, *, least: int = 6):
    return table.append_column("length", pa.compute.cast(pa.compute.utf8_length(table["text"]), pa.int64()))


def beyond(dataset, *, least: int = 6):
    return [(7, "x", 1)] if len(dataset) else []


def never_empty(dataset, *, least: int = 6):
    return [(0, "x", 1)]


LONGEST = DatasetStage(name="longest", run=longest, measure=measure, adds={"length": "int64"})


def test_dataset_stage():
    """A stage that sees all rows passes; a row that is not there is found out."""
    result = check_stage(LONGEST, TEXTS)
    assert (len(result.rows), result.dropped) == (2, {"test/rows.jsonl:2": ("too_short", "5")})
    with pytest.raises(AssertionError, match=r"stage `longest` drops row \[7\] of 3"):
        check_stage(replace(LONGEST, run=beyond), TEXTS)
    with pytest.raises(AssertionError, match="stage `longest` drops rows where there are none"):
        check_stage(replace(LONGEST, run=never_empty), TEXTS)
