"""How many rows are under way, which go first, and who else gets a turn meanwhile."""

import asyncio
import signal
import threading
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from kun_builder import Completion, Drop, RowStage
from kun_builder.errors import RunError
from kun_builder.recipe.registry import Plugin
from kun_builder.run.executors.rows import RowSettings, open_rows
from kun_builder.run.plan import Step
from kun_builder.run.rows import RowRunner
from kun_builder.status import Status


class Capacity:
    """A generator that nobody asks, with room for so many rows."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.on_growth = lambda: None

    def grow(self, capacity):
        self.capacity = capacity
        self.on_growth()


def steps(run):
    return [Step("stage", RowStage(name="stage", run=run), {}, Plugin("test", "test-package", "1"))]


def rows(shard, count):
    return [{"id": f"{shard}:{number}"} for number in range(count)]


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


def test_no_more_rows_are_under_way_than_there_is_room_for():
    """Rows of two shards together keep to the capacity; when it grows, more are let in at once."""

    async def main():
        async def stage(row, generate):
            under_way.add(row["id"])
            await ready.wait()
            under_way.remove(row["id"])
            return row

        under_way, ready, generator = set(), asyncio.Event(), Capacity(3)
        runner = RowRunner(generator, Status())
        work = asyncio.gather(*(runner.run(shard, rows(shard, 6), steps(stage)) for shard in (0, 1)))
        seen = []
        for capacity in (3, 5, 4, 7):
            generator.grow(capacity)
            await turns()
            seen.append(len(under_way))
        ready.set()
        return seen, [[outcome.row["id"] for outcome in outcomes] for outcomes, _ in await work]

    seen, ended = asyncio.run(main())
    assert seen == [3, 5, 5, 7]  # where there is less room than before, nobody is sent away
    assert ended == [[row["id"] for row in rows(shard, 6)] for shard in (0, 1)]


def test_rows_of_earlier_shards_go_first():
    """A shard that waits lets the rows of an earlier one pass, and fills the places that these leave empty."""

    async def main():
        async def stage(row, generate):
            order.append(row["id"])
            await asyncio.sleep(0)
            return row

        order, runner = [], RowRunner(Capacity(1), Status())
        later = asyncio.create_task(runner.run(7, rows(7, 3), steps(stage)))
        await asyncio.sleep(0)
        await asyncio.gather(later, *(runner.run(shard, rows(shard, 3), steps(stage)) for shard in (5, 4)))
        return order

    order = asyncio.run(main())
    assert order[0] == "7:0"  # nobody else was there
    assert order[-2:] == ["7:1", "7:2"]
    assert [name for name in order if name.startswith("4")] == [row["id"] for row in rows(4, 3)]
    assert order.index("4:2") < order.index("5:2") < order.index("7:1")


@pytest.mark.parametrize("count", [100, 1000])
def test_rows_that_wait_for_nothing_leave_a_turn_to_others(count):
    """Where all answers are known, rows run through at once; whatever else is ready goes on after every eight."""

    async def main():
        async def stage(row, generate):
            ended.append(row["id"])
            return row

        ended, seen, runner = [], [0], RowRunner(Capacity(10 * count), Status())
        work = asyncio.create_task(runner.run(0, rows(0, count), steps(stage)))
        while not work.done():
            await asyncio.sleep(0)
            seen.append(len(ended))
        return seen

    seen = asyncio.run(main())
    assert seen[-1] == count
    assert max(after - before for before, after in pairwise(seen)) <= 8


def test_only_failures_one_after_the_other_end_a_run():
    """Rows that are dropped alike end no run, and each row that is kept or dropped begins the count anew."""

    async def stage(row, generate):
        await asyncio.sleep(0)
        if row["fate"] == "d":
            raise Drop("unwanted")
        if row["fate"] == "f":
            raise ValueError("broken")
        return row

    def ends(fates):
        given = [{"id": f"0:{number}", "fate": fate} for number, fate in enumerate(fates)]
        try:
            asyncio.run(RowRunner(Capacity(1), Status(), stop_after=3).run(0, given, steps(stage)))
        except RunError as error:
            return error.message
        return ""

    assert "the last 3 rows all failed at stage `stage` as `ValueError`" in ends("kfff")
    assert not any(map(ends, ("dddddd", "ffdffdff", "ffkffkff")))


def test_a_row_whose_answers_come_at_once_is_not_hung():
    """A stage that is between two questions whenever somebody looks has moved all the same; one that waits has not."""

    class Known(Capacity):
        async def ask(self, model, request, asker):
            return Completion("答")

    async def stage(row, generate):
        for _ in range(10):
            await generate("chat", "问")
            await asyncio.sleep(0.001)
            runner.look(2)
        if row["id"] == "0:1":
            await asyncio.sleep(60)
        return row

    async def main():
        work = asyncio.create_task(runner.run(0, rows(0, 2), steps(stage)))
        while not work.done():
            await asyncio.sleep(0.05)
            runner.look(2)
        return [outcome.reason for outcome in (await work)[0]]

    runner = RowRunner(Known(10), Status())
    assert asyncio.run(main()) == [None, "hung"]


def test_what_opens_models_is_ended_and_closed_when_it_is_interrupted(tmp_path, monkeypatch):
    """Ctrl-C or a limit while servers are asked who they are: their connections are closed, and no task is left."""
    opening, closed = threading.Event(), []

    @asynccontextmanager
    async def open_models(*args):
        try:
            opening.set()
            await asyncio.sleep(600)
            yield
        finally:
            await asyncio.sleep(0.01)
            closed.append("connections")

    def interrupt():
        opening.wait(60)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    monkeypatch.setattr("kun_builder.models.generator.open_models", open_models)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), open_rows(RowSettings({}, tmp_path, 0.0, 0), {}, Status()):
        pass
    thread.join()
    assert closed == ["connections"]
