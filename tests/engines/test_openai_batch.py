"""Requests by a batch API: collected, brought back, repeated where they were not answered, and never paid twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from servers.batches import batch_api

from kun_builder import ModelSpec, Request
from kun_builder.engines.openai_batch import kun_engines
from kun_builder.errors import FatalError, RejectedError
from kun_builder.models.generator import Asker, open_models
from kun_builder.models.journal.journal import Journal
from kun_builder.status import Status

ENGINES = {engine.name: SimpleNamespace(value=engine) for engine in kun_engines()}
FAST = {"linger": 0.1, "poll": 0.05}


def plain(body):
    """The question, answered by itself."""
    text = body["messages"][-1]["content"]
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return 200, {"choices": [{"message": {"content": f"答{text}"}, "finish_reason": "stop"}], "usage": usage}


def ask_for(number):
    return Request(({"role": "user", "content": f"第{number}篇"},))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path))
    return tmp_path


def asked(api, folder, requests, **settings):
    """What becomes of requests that are made at once, by the whole serving layer."""

    async def main():
        spec = ModelSpec(name="m", engine="openai-batch", endpoints=(api.url,), options=FAST, **{"wait": 5, **settings})
        async with open_models({"m": spec}, ENGINES, Journal.open(folder), Status()) as generator:
            rows = [asyncio.create_task(generator.ask("m", request, Asker("s"))) for request in requests]
            return await asyncio.gather(*rows, return_exceptions=True)

    return asyncio.run(main())


def texts(answers):
    return [answer.text for answer in answers]


def test_what_is_asked_together_is_one_batch(tmp_path):
    """Forty requests are one file and one batch, whatever the order of its results; nothing of it stays on disk."""
    with batch_api(plain) as api:
        answers = asked(api, tmp_path / "j", [ask_for(n) for n in range(40)])
        assert texts(answers) == [f"答第{n}篇" for n in range(40)]
        assert (len(api.batches), len(api.lines)) == (1, 40)
        assert {answer.prompt_tokens for answer in answers} == {7}
        assert not list(tmp_path.glob("batches/*/*"))
        again = asked(api, tmp_path / "j", [ask_for(n) for n in range(40)])
        assert (texts(again), len(api.lines)) == (texts(answers), 40)


def test_a_batch_has_so_many_requests_at_most(tmp_path):
    """`concurrency` is how many wait at once, and how many a file has."""
    with batch_api(plain) as api:
        answers = asked(api, tmp_path / "j", [ask_for(n) for n in range(25)], concurrency=10)
        assert texts(answers) == [f"答第{n}篇" for n in range(25)]
        assert [len(api.files[batch["input_file_id"]].splitlines()) for batch in api.batches.values()] == [10, 10, 5]


def test_what_an_expired_batch_has_not_answered_is_asked_again(tmp_path):
    """The answers of its output file count; the others go into the next batch."""
    with batch_api(plain, ["expired"]) as api:
        answers = asked(api, tmp_path / "j", [ask_for(n) for n in range(9)])
        assert texts(answers) == [f"答第{n}篇" for n in range(9)]
        assert len(api.lines) == 9 + 4


def test_a_refused_request_costs_its_row_alone(tmp_path):
    """A line of the error file is the error that a single request would be, with the server's words."""

    def picky(body):
        if "第3篇" in body["messages"][-1]["content"]:
            return 400, {"error": {"message": "too long for me"}}
        return plain(body)

    with batch_api(picky) as api:
        answers = asked(api, tmp_path / "j", [ask_for(n) for n in range(6)])
    assert isinstance(answers[3], RejectedError)
    assert "400: too long for me" in answers[3].message
    assert len(texts(answers[:3] + answers[4:])) == 5


def test_a_batch_survives_an_api_that_is_out_of_reach(tmp_path):
    """After `wait` seconds the run ends; the same command goes on with the batch, which is not made again."""
    with batch_api(plain) as api:
        api.down = True
        for answer in asked(api, tmp_path / "j", [ask_for(n) for n in range(3)], wait=0.2):
            assert isinstance(answer, FatalError)
            assert "out of reach" in answer.message
        api.down = False
        assert texts(asked(api, tmp_path / "j", [ask_for(n) for n in range(3)])) == [f"答第{n}篇" for n in range(3)]
        assert (len(api.batches), len(api.lines)) == (1, 3)


def test_a_file_that_the_api_refuses_costs_no_row(tmp_path):
    """A refusal of the file, 413 as for a single row, ends the run; later the same file is taken."""
    with batch_api(plain) as api:
        api.refuses = True
        for answer in asked(api, tmp_path / "j", [ask_for(n) for n in range(3)]):
            assert isinstance(answer, FatalError)
            assert "no files today" in answer.message
        api.refuses = False
        assert texts(asked(api, tmp_path / "j", [ask_for(n) for n in range(3)])) == [f"答第{n}篇" for n in range(3)]
        assert (len(api.batches), len(api.lines)) == (1, 3)


@pytest.mark.parametrize("plan", ["failed:invalid_model", "cancelled"])
def test_a_batch_that_failed_or_was_cancelled_ends_the_run_and_is_not_taken_up_again(plan, tmp_path):
    """What was answered is kept; the same run again asks the rest in a new batch."""
    with batch_api(plain, [plan]) as api:
        answers = asked(api, tmp_path / "j", [ask_for(n) for n in range(4)])
        errors = [answer for answer in answers if isinstance(answer, FatalError)]
        assert len(errors) == (4 if plan.startswith("failed") else 2)
        assert plan.partition(":")[0] in errors[0].message
        assert texts(asked(api, tmp_path / "j", [ask_for(n) for n in range(4)])) == [f"答第{n}篇" for n in range(4)]
        assert len(api.batches) == 2


def test_a_batch_for_which_there_is_no_room_yet_is_made_again(tmp_path):
    """An API that has too many tokens queued is asked again, with the same file."""
    with batch_api(plain, ["failed:token_limit_exceeded"]) as api:
        assert texts(asked(api, tmp_path / "j", [ask_for(1)])) == ["答第1篇"]
        assert (len(api.batches), len(api.lines)) == (2, 1)


def test_the_questions_of_the_start_are_asked_singly(tmp_path):
    """Who answers, and how it wants to be asked, cannot wait for a day."""
    with batch_api(plain) as api:
        asked(api, tmp_path / "j", [])
        assert api.singles
        assert not api.batches


def started(api, folder):
    """A process that asks forty questions."""
    code = (
        "import sys, asyncio, pathlib\n"
        "from types import SimpleNamespace\n"
        "from kun_builder import ModelSpec, Request\n"
        "from kun_builder.engines.openai_batch import kun_engines\n"
        "from kun_builder.models.generator import Asker, open_models\n"
        "from kun_builder.models.journal.journal import Journal\n"
        "from kun_builder.status import Status\n"
        "async def main():\n"
        f"    spec = ModelSpec(name='m', engine='openai-batch', endpoints=({api.url!r},), options={FAST!r})\n"
        "    engines = {'openai-batch': SimpleNamespace(value=kun_engines()[0])}\n"
        f"    journal = Journal.open(pathlib.Path({str(folder)!r}))\n"
        "    async with open_models({'m': spec}, engines, journal, Status()) as generator:\n"
        "        rows = [Request(({'role': 'user', 'content': f'第{n}篇'},)) for n in range(40)]\n"
        "        await asyncio.gather(*(generator.ask('m', row, Asker('s')) for row in rows))\n"
        "asyncio.run(main())\n"
    )
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.mark.parametrize("when", ["before the id is noted", "while it waits"])
def test_a_killed_run_pays_for_nothing_twice(when, tmp_path):
    """After `kill -9` the next run goes on with the batch: its id is on disk, or else its metadata finds it."""
    with batch_api(plain, ["never"]) as api:
        process = started(api, tmp_path / "j")
        if when == "before the id is noted":
            while not api.singles:
                time.sleep(0.01)
            api.kill = process.pid
            process.wait(60)
        else:
            while not api.polls:
                time.sleep(0.01)
            process.kill()
            process.wait()
        (batch,) = api.batches.values()
        assert process.returncode == -9
        noted = [json.loads(path.read_bytes())["batch"] for path in tmp_path.glob("batches/*/*.json")]
        assert noted == (["batch-0"] if when == "while it waits" else [""])
        for number in range(1, 6):  # of somebody else
            api.batches[f"other-{number}"] = {"id": f"other-{number}", "created_at": 4_000_000_001 + number}
        batch["plan"] = "completed"
        answers = asked(api, tmp_path / "j", [ask_for(n) for n in range(40)])
        assert texts(answers) == [f"答第{n}篇" for n in range(40)]
        assert (len(api.lines), len(api.files)) == (40, 2)
        assert not list(tmp_path.glob("batches/*/*"))
