"""What `run_table` makes of shards: every row has one outcome, whatever the stages do."""

import asyncio
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kun_builder import BatchStage, Drop, RowStage, drop_rows
from kun_builder.errors import PluginError, RejectedError
from kun_builder.recipe.registry import Plugin
from kun_builder.run.plan import Segment, Step
from kun_builder.run.rows import RowRunner
from kun_builder.run.worker import make_job, run_table
from kun_builder.status import Status

# A row's fate is written in its text: one letter per step.
KEEP, DROP, RAISE, SPLIT = "kdrs"
OWNER = Plugin("test", "test-package", "1")
FATES = st.lists(st.text(alphabet="kdrs", min_size=3, max_size=3), max_size=25)


def table(texts):
    return pa.table(
        {
            "id": pa.array([f"s/f:{number}" for number in range(len(texts))], pa.string()),
            "split": pa.array(["s"] * len(texts), pa.string()),
            "text": pa.array(texts, pa.string()),
        }
    )


def batch(at):
    def run(table):
        texts = table["text"].to_pylist()
        if any(text[at] == RAISE for text in texts):
            raise ValueError(f"no {RAISE} please")
        table = table.append_column(f"seen{at}", pa.array([text[at] for text in texts], pa.string()))
        split = table.filter(pa.array([text[at] == SPLIT for text in texts], pa.bool_()))
        ids = pa.array([f"{name}/{at}" for name in split["id"].to_pylist()], pa.string())
        table = pa.concat_tables([table, split.set_column(0, "id", ids)])
        return drop_rows(
            table, [text[at] == DROP for text in table["text"].to_pylist()], "unwanted", table["id"].to_pylist()
        )

    return BatchStage(name=f"batch{at}", run=run, adds={f"seen{at}": "string"})


def row(at):
    async def run(row, generate):
        await asyncio.sleep(0)
        fate = row["text"][at]
        if fate == DROP:
            raise Drop("unwanted", row["id"], **{f"seen{at}": fate})
        if fate == RAISE:
            raise ValueError(f"no {RAISE} please")
        if fate == SPLIT:
            raise RejectedError("400 from the server", status=400)
        return {**row, f"seen{at}": fate}

    return RowStage(name=f"row{at}", run=run, adds={f"seen{at}": "string"})


def segment(kind, *stages):
    steps = tuple(Step(stage.name, stage, {}, OWNER) for stage in stages)
    return Segment(kind, steps)


class Idle:
    """A generator that nobody asks."""

    capacity = 4
    on_growth = None


def run(kind, stages, rows):
    job = make_job(segment(kind, *stages), rows.schema)
    return run_table(rows, job, lambda rows, steps: asyncio.run(RowRunner(Idle(), Status()).run(0, rows, steps)))


def check_adds_up(result, rows_in):
    for count in result.counts:
        assert count.adds_up
        assert count.rows_in == rows_in
        rows_in = count.rows_out
    assert rows_in == result.alive
    created = sum(count.created for count in result.counts)
    ids = result.table["id"].to_pylist()
    assert len(set(ids)) == len(ids) == result.counts[0].rows_in + created
    outcomes = result.table["_outcome"].to_pylist()
    assert outcomes[: result.alive] == [None] * result.alive
    assert None not in outcomes[result.alive :]


@settings(max_examples=60, deadline=None)
@given(FATES)
def test_batches_add_up(texts):
    """For any mix of batch stages that drop, raise or split, every row has exactly one outcome."""
    try:
        result = run("batches", [batch(0), batch(1), batch(2)], table(texts))
    except PluginError:
        assert any(len({text[:at] for text in texts}) for at in range(3))
        assert len(texts) >= 3  # of which splits can make ten
        return
    check_adds_up(result, len(texts))
    died = Counter(zip(result.table["_stage"].to_pylist(), result.table["_reason"].to_pylist(), strict=True))
    assert died["batch0", "ValueError"] == sum(text[0] == RAISE for text in texts)
    assert died["batch0", "unwanted"] == sum(text[0] == DROP for text in texts)


@settings(max_examples=60, deadline=None)
@given(FATES)
def test_rows_add_up_and_keep_their_order(texts):
    """For any mix of row stages that drop, raise or are refused, rows have one outcome and keep their order."""
    try:
        result = run("rows", [row(0), row(1), row(2)], table(texts))
    except PluginError:
        assert len(texts) >= 10
        return
    check_adds_up(result, len(texts))
    alive = [f"s/f:{number}" for number, text in enumerate(texts) if text == KEEP * 3]
    assert result.table["id"].to_pylist()[: result.alive] == alive
    refused = result.table.filter(pc.equal(result.table["_reason"], "request_rejected"))
    assert set(refused["_outcome"].to_pylist()) <= {"quarantined"}


def test_row_stages_know_whether_a_text_may_be_passed_on():
    """Rows of a closed split say so to their stages; it is no column of the result."""

    async def told(row, generate):
        return {**row, "open": row["redistributable"]}

    rows = table(["kk", "kk"]).set_column(1, "split", pa.array(["ours", "theirs"]))
    stage = RowStage(name="told", run=told, adds={"open": "bool"})
    job = make_job(segment("rows", stage), rows.schema, {"theirs"})
    result = run_table(rows, job, lambda rows, steps: asyncio.run(RowRunner(Idle(), Status()).run(0, rows, steps)))
    assert result.table["open"].to_pylist() == [True, False]
    assert "redistributable" not in result.table.column_names


def test_a_dropped_row_keeps_what_the_stage_adds_to_the_verdict():
    """`Drop(reason, value, column=...)` leaves reason, value and column on the rejected row."""
    result = run("rows", [row(0)], table(["d"]))
    assert result.table.select(["seen0", "_outcome", "_stage", "_reason", "_value"]).to_pylist() == [
        {"seen0": "d", "_outcome": "dropped", "_stage": "row0", "_reason": "unwanted", "_value": "s/f:0"}
    ]


@pytest.mark.parametrize("kind", ["rows", "batches"])
def test_an_empty_shard_has_the_declared_schema(kind):
    """A shard without rows has the same columns and types as one with rows."""
    stages = [row(0)] if kind == "rows" else [batch(0)]
    assert run(kind, stages, table([])).table.schema == run(kind, stages, table(["k"])).table.schema


@pytest.mark.parametrize("kind", ["rows", "batches"])
def test_a_stage_that_fails_on_every_row_stops_the_run_with_its_name(kind):
    """A stage that raises for each of many rows is broken itself: the error names stage, package and first fault."""
    stages = [row(0)] if kind == "rows" else [batch(0)]
    with pytest.raises(
        PluginError,
        match=r"stage `(row|batch)0` of plugin `test` \(test-package\) failed on every row: ValueError: no r",
    ):
        run(kind, stages, table(["r"] * 12))


@pytest.mark.parametrize(
    ("kind", "end_of"), [("rows", SystemExit), ("rows", KeyboardInterrupt), ("batches", SystemExit)]
)
def test_a_stage_that_ends_the_process_costs_its_row(kind, end_of):
    """A library that calls `sys.exit`, or its like, over one row does not end the run, least of all as if it were
    finished."""

    def end(text):
        if text == "bad":
            raise end_of

    async def one(row, generate):
        end(row["text"])
        return row

    def many(table):
        any(map(end, table["text"].to_pylist()))
        return table

    stage = RowStage(name="ends", run=one) if kind == "rows" else BatchStage(name="ends", run=many)
    result = run(kind, [stage], table(["good", "bad", "good"]))
    assert result.table["_reason"].to_pylist() == [None, None, end_of.__name__]


def test_a_row_of_the_wrong_type_is_quarantined_alone():
    """A row stage that returns a value of another type than it declares costs that row, and the column is named."""

    async def measure(row, generate):
        return {**row, "score": 0.5 if row["text"] == "good" else "high"}

    stage = RowStage(name="measure", run=measure, adds={"score": "double"})
    result = run("rows", [stage], table(["good", "bad", "good"]))
    assert result.alive == 2
    assert result.table["_reason"].to_pylist() == [None, None, "wrong_type"]
    assert "score" in result.table["_value"].to_pylist()[2]


@pytest.mark.parametrize(("value", "kept"), [(3, "3"), ("a\ud83d", "a\\ud83d"), (["x"], "['x']")])
@pytest.mark.parametrize("then", ["kept", "dropped"])
def test_a_text_that_no_column_holds_costs_its_row(value, kept, then):
    """A stage that spoils a column which was there before, by another type or half a character, loses that row; also
    where the row dies of something else behind it."""

    async def spoil(row, generate):
        return {**row, "text": value} if row["text"] == "bad" else row

    async def look(row, generate):
        if then == "dropped" and row["text"] == value:
            raise Drop("unwanted", value)
        return row

    stages = [RowStage(name="spoil", run=spoil), RowStage(name="look", run=look)]
    result = run("rows", stages, table(["good", "bad", "good"]))
    check_adds_up(result, 3)
    assert result.table["text"].to_pylist() == ["good", "good", kept]
    assert result.table["_reason"].to_pylist()[2] == ("unwanted" if then == "dropped" else "wrong_type")


def test_a_reason_is_a_word():
    """A reason that is no text is written out as one, as the value is."""

    async def drop(row, generate):
        raise Drop(3, "a\ud83d")

    result = run("rows", [RowStage(name="drop", run=drop)], table(["good"]))
    assert [result.table[name].to_pylist() for name in ("_reason", "_value")] == [["3"], ["a\\ud83d"]]


def test_a_forgotten_column_is_quarantined():
    """A row stage that does not set a column it declares loses the row to quarantine, not to a null."""

    async def forget(row, generate):
        return row

    result = run("rows", [RowStage(name="forget", run=forget, adds={"score": "double"})], table(["a"]))
    assert result.table["_value"].to_pylist() == ["column `score` was not set"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda table: table.append_column("extra", pa.array(["x"] * len(table))),
            "returned other columns than it declares: extra",
        ),
        (lambda table: table.drop_columns(["text"]), "returned other columns than it declares: text"),
        (lambda table: table.slice(1), "removed 1 rows"),
        (lambda table: None, "returned NoneType"),
    ],
)
def test_a_batch_stage_that_breaks_its_word_is_named(broken, message):
    """A batch stage that returns other columns, fewer rows or no table stops the run with its name and package."""
    with pytest.raises(PluginError, match=rf"stage `broken` of plugin `test` \(test-package\) {message}"):
        run("batches", [BatchStage(name="broken", run=broken)], table(["a", "b"]))


def test_rows_that_end_with_the_run_are_no_result():
    """What a stage meets after the run was stopped (a closed connection) is not written down as the row's fault."""

    async def closed(row, generate):
        runner.stopped = True
        raise RuntimeError("Session is closed")

    runner = RowRunner(Idle(), Status())
    steps = segment("rows", RowStage(name="closed", run=closed)).steps
    with pytest.raises((RuntimeError, asyncio.CancelledError)):
        asyncio.run(runner.run(0, table(["a", "b"]).to_pylist(), steps))


def test_rows_overtake_each_other_and_come_out_in_input_order():
    """No stage waits for the slowest row of the one before, and the order of the result is that of the input."""
    ended = []

    async def first(row, generate):
        if row["text"] == "slow":
            await others.wait()
        return {**row, "one": row["text"]}

    async def second(row, generate):
        ended.append(row["id"])
        if len(ended) == 99:
            others.set()
        return {**row, "two": row["text"]}

    others = asyncio.Event()
    rows = table(["slow", *(f"fast {number}" for number in range(99))])
    functions = {"one": first, "two": second}
    stages = [RowStage(name=name, run=function, adds={name: "string"}) for name, function in functions.items()]
    result = run("rows", stages, rows)
    assert ended[-1] == rows["id"][0].as_py()
    assert result.alive == 100
    assert result.table["id"].to_pylist() == rows["id"].to_pylist()
    assert result.table["two"].to_pylist() == rows["text"].to_pylist()


def test_a_row_keeps_its_first_verdict():
    """What drops a row that is dropped already changes nothing of it; an unknown in the mask drops nothing."""
    rows = pa.concat_tables([table(["a"]), table(["b", "c"])])  # columns in two chunks
    rows = drop_rows(rows, [True, False, False], "short", [1, 2, 3])
    rows = drop_rows(rows, pa.array([True, True, None]), "long", [4, 5, 6])
    assert rows["_outcome"].to_pylist() == ["dropped", "dropped", None]
    assert rows["_reason"].to_pylist() == ["short", "long", None]
    assert rows["_value"].to_pylist() == ["1", "5", None]
