"""`endpoints_file`: servers that come and go while rows are under way."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from served_models import ask_for, models, until
from servers.llm_simulator import simulator

from kun_builder.errors import ModelError, RecipeError
from kun_builder.models import roster
from kun_builder.models.generator import Asker
from kun_builder.recipe.lock import lock
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.status import Status


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(roster, "LOOK", 0.1)


def listing(folder, *lines):
    """The file with these lines."""
    path = folder / "endpoints.txt"
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return str(path)


def opened(folder, said, **settings):
    """A generator over what the file lists."""
    path = str(folder / "endpoints.txt")
    return models(folder / "journal", status=Status(say=said.append), endpoints_file=path, **settings)


async def rows(generator, numbers):
    """One request each, all at once."""
    return await asyncio.gather(
        *(generator.ask("chat", ask_for(number, max_new_tokens=60), Asker(order=number)) for number in numbers)
    )


def test_a_server_joins_and_another_leaves(tmp_path):
    """A line that is added brings requests to its server; one that is taken out brings no more to its own, which brings
    to an end what it has; nothing is asked twice, and the report has both."""
    said = []

    async def main(first, second):
        listing(tmp_path, first.url, "# second comes later")
        async with opened(tmp_path, said, concurrency=8) as generator:
            work = asyncio.create_task(rows(generator, range(400)))
            await until(lambda: first.counts()["answered"] >= 20)
            assert second.counts()["attempts"] == 0
            listing(tmp_path, f"{first.url}  # gpu1", second.url)
            await until(lambda: second.counts()["answered"] >= 20)
            listing(tmp_path, second.url)
            await until(
                lambda: len(generator.report()["endpoints"]["chat"]) == 2 and f"{first.url} leaves" in str(said)
            )
            await until(lambda: first.counts()["in_flight"] == 0)
            attempts = first.counts()["attempts"]
            await work
            assert first.counts()["attempts"] == attempts
            return generator.report()["endpoints"]["chat"]

    with simulator(slots=8, speed=4) as first, simulator(slots=8, speed=4) as second:
        reports = asyncio.run(main(first, second))
        counts = first.counts(), second.counts()
    assert sum(count["answered"] for count in counts) == sum(count["attempts"] for count in counts) == 400
    assert sorted(one["answered"] for one in reports) == sorted(count["answered"] for count in counts)
    assert [one["failed"] for one in reports] == [0, 0]
    assert [line.partition(";")[0] for line in said if "joins" in line or "leaves" in line] == [
        f"model `chat`: {second.url} joins",
        f"model `chat`: {first.url} leaves",
    ]


def test_a_run_waits_for_its_first_server_and_for_the_next(tmp_path):
    """The file may be missing at the start, and empty in between: what is to ask waits, and goes on."""
    said = []

    async def main(stack):
        async def come():
            await asyncio.sleep(0.5)
            server = stack.enter_context(simulator(speed=20))
            listing(tmp_path, server.url)
            return server

        coming = asyncio.create_task(come())
        async with opened(tmp_path, said) as generator:
            await rows(generator, range(5))
            first = await coming
            listing(tmp_path)
            await until(lambda: f"{first.url} leaves" in str(said))
            work = asyncio.create_task(rows(generator, range(5, 10)))
            await asyncio.sleep(0.5)
            assert not work.done()
            await come()
            await work

    with ExitStack() as stack:
        asyncio.run(main(stack))
    assert said[0] == f"model `chat`: waiting up to 600 s for a server in {tmp_path / 'endpoints.txt'}"


def test_a_file_that_is_just_being_written_sends_nobody_away(tmp_path, monkeypatch):
    """A line that is missing at one look only, or a file that is, leaves the server where it is."""
    said, looks, read = [], [], roster.Roster._read

    def now_and_then(self):
        looks.append(1)
        return read(self) if len(looks) % 2 else (None if len(looks) % 4 else [])

    monkeypatch.setattr(roster.Roster, "_read", now_and_then)

    async def main(server):
        listing(tmp_path, server.url)
        async with opened(tmp_path, said) as generator:
            await until(lambda: len(looks) > 10)
            await rows(generator, range(5))

    with simulator(speed=20) as server:
        asyncio.run(main(server))
    assert not [line for line in said if "leaves" in line]


def test_wrong_lines_and_other_models_do_not_join(tmp_path):
    """What is no address, and a server of another model, are said once; the others work."""
    said = []

    async def main(right, wrong):
        listing(tmp_path, right.url, "gpu7:8000", "http://user:secret@gpu8:8000")
        async with opened(tmp_path, said) as generator:
            listing(tmp_path, right.url, wrong.url, "gpu7:8000")
            await until(lambda: "not taken" in str(said))
            await rows(generator, range(20))
            return generator.report()["endpoints"]["chat"]

    with simulator(speed=20) as right, simulator(speed=20, model="other/model") as wrong:
        reports = asyncio.run(main(right, wrong))
        assert wrong.counts()["attempts"] == 0
    assert [one["url"] for one in reports] == [right.url]
    assert sum("gpu7" in line for line in said) == 1
    assert "secret" not in str(said)


@pytest.mark.parametrize("lines", [None, [], ["http://127.0.0.1:9"]])
def test_a_run_that_finds_nobody_says_where_it_looked(tmp_path, lines):
    """After `wait` seconds the run ends with the file's name and what to do."""
    if lines is not None:
        listing(tmp_path, *lines)

    async def main():
        async with opened(tmp_path, [], wait=0.3):
            pass

    with pytest.raises(ModelError, match=r"nobody answers of those in .*endpoints\.txt: ") as ended:
        asyncio.run(main())
    assert "one a line" in ended.value.hint


def test_in_a_recipe(tmp_path, monkeypatch):
    """The file is looked for from the recipe's folder, `--endpoint` takes its place, both at once are an error, and the
    lock file does not name it."""
    registry = load_plugins()
    path = tmp_path / "recipe.yaml"
    rest = "splits: {web: {source: generic, path: web.jsonl}}\nstages: [label]\n"
    path.write_text(f"models: {{chat: {{endpoints_file: endpoints.txt}}}}\n{rest}")
    recipe = load_recipe(path, registry)
    spec = recipe.models["chat"]
    assert (spec.endpoints_file, spec.engine) == (str(tmp_path / "endpoints.txt"), "openai")
    assert "endpoints" not in lock(recipe, registry, {})
    spec = load_recipe(path, registry, endpoints=("http://gpu1:8000",)).models["chat"]
    assert (spec.endpoints_file, spec.endpoints) == ("", ("http://gpu1:8000",))
    path.write_text(f"models: {{chat: {{endpoints_file: a.txt, endpoints: ['http://gpu1:8000']}}}}\n{rest}")
    with pytest.raises(RecipeError, match=r"recipe.yaml:1: .*say the same thing twice"):
        load_recipe(path, registry)
