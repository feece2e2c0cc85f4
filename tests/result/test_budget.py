"""A budget ends a run in order: what was paid for is kept, and nothing is asked twice when it goes on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from places import STAGES
from servers.llm_simulator import simulator
from small_corpus import corpus

from kun_builder.cli.sample import beyond
from kun_builder.errors import RecipeError, RunError
from kun_builder.models.budget import Budget
from kun_builder.recipe.recipe import load_recipe
from kun_builder.result.estimate import Estimate, Interval, _hours
from kun_builder.run.runner import build
from kun_builder.types import Completion, ModelSpec

pytestmark = pytest.mark.usefixtures("own_cache")


def run(folder, registry, url, budget="", cost="cost: {input: 1000, output: 2000}", **options):
    """Build in `folder`, with a journal of its own; 120 rows in small shards, eight requests at once."""
    if not folder.joinpath("data").exists():
        corpus(folder / "data", 120)
    (folder / "recipe.yaml").write_text(
        f"name: three\nshard_rows: 16\njournal: journal\n{budget}\n"
        f"models: {{chat: {{engine: openai, endpoints: ['{url}'], revision: r1, concurrency: 8, {cost}}}}}\n"
        "splits: {web: {source: lines, path: data/a.jsonl}}\n"
        f"plugins: {{dirs: ['{STAGES}']}}\n"
        "stages: [clean, same, ask, {judge: {threshold: 0.2}}, rewrite]\n",
        "utf-8",
    )
    return build(load_recipe(folder / "recipe.yaml", registry, output=folder / "run"), registry, **options)


def rows(folder):
    return pq.read_table(folder / "run/dataset/data/web-00000-of-00001.parquet").to_pylist()


@pytest.mark.parametrize("budget", ["tokens: 4e3", "money: 5", "{tokens: 1e9, money: 5}"])
def test_a_budget_ends_the_run_and_a_larger_one_goes_on(tmp_path, registry, budget):
    """It ends soon after the limit with all answers kept; the same again asks nothing; more of it asks for the rest."""
    budget = budget if budget.startswith("{") else f"{{{budget}}}"
    with simulator(speed=50.0) as server:
        run(tmp_path / "whole", registry, server.url)
        whole = server.stats()["answered"]
    with simulator(speed=50.0) as server:
        with pytest.raises(RunError, match="the budget of the run is used up: ") as ended:
            run(tmp_path / "part", registry, server.url, f"budget: {budget}")
        assert "raise `budget`" in ended.value.hint
        part = server.stats()["answered"]
        assert 0 < part < whole - 20
        with pytest.raises(RunError, match="used up"):
            run(tmp_path / "part", registry, server.url, f"budget: {budget}")
        assert server.stats()["answered"] == part
        run(tmp_path / "part", registry, server.url, "budget: {tokens: 1e9, money: 1e6}")
        assert server.stats()["answered"] == whole
    assert rows(tmp_path / "part") == rows(tmp_path / "whole")


def test_no_more_is_spent_than_what_was_under_way(tmp_path, registry):
    """The tokens beyond the limit are those of requests that were at the server when it was reached."""
    with simulator(speed=50.0) as server:
        with pytest.raises(RunError, match="tokens"):
            run(tmp_path, registry, server.url, "budget: {tokens: 3000}")
        spent = json.loads((tmp_path / "run/.spent.json").read_bytes())["tokens"]
        assert 3000 <= spent <= 3000 + 8 * 280  # a request of this recipe has at most 200 and its prompt


def test_time_ends_a_run(tmp_path, registry):
    """Hours that are over when models would be asked end the run before the first request."""
    with simulator(speed=50.0) as server:
        with pytest.raises(RunError, match="used up: hours"):
            run(tmp_path, registry, server.url, "budget: {hours: 1e-9}")
        assert server.stats()["answered"] == 0


def test_a_run_within_its_budget_is_any_run(tmp_path, registry):
    """A budget that is not reached changes nothing; raising it later runs nothing again."""
    with simulator(speed=50.0) as server:
        report = run(tmp_path, registry, server.url, "budget: {tokens: 1e9}")
    assert run(tmp_path, registry, server.url, "budget: {tokens: 2e9}") == report


@pytest.mark.parametrize(
    ("budget", "cost", "message"),
    [
        ("{money: 5}", "wait: 5", "recipe.yaml:4: `budget`: `money` needs the price of a model"),
        ("{tokens: 0}", "wait: 5", "recipe.yaml:4: `tokens` must be"),
        ("{token: 5}", "wait: 5", "unknown key `token`; did you mean `tokens`?"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(tmp_path, registry, budget, cost, message):
    """A limit that means nothing is an error of the recipe, with its line."""
    with pytest.raises(RecipeError) as refused:
        run(tmp_path, registry, "http://127.0.0.1:9", f"budget: {budget}", cost)
    assert message in str(refused.value)


def test_a_sample_says_that_the_budget_will_not_do():
    """What the run takes is held against each limit; what is enough, or cannot be reckoned, is not mentioned."""
    figure = Interval(80.0, 60.0, 100.0)
    model = {"requests": figure, "prompt_tokens": figure, "completion_tokens": figure, "cost": figure}
    found = Estimate(1000, 50, figure, {"chat": model, "judge": model}, None)
    assert list(beyond({"money": 160.0, "tokens": 300.0, "hours": 1.0}, found)) == [
        "the budget will not do: tokens 300, and the run takes 320 (240 to 400)"
    ]
    assert not list(beyond({"money": 160.0, "tokens": 300.0}, found, 0.9))


@pytest.mark.parametrize(
    ("limits", "hours"),
    [({}, 1.0), ({"requests_per_minute": 10.0}, 3.0), ({"tokens_per_minute": 1000.0}, 6.0)],
)
def test_a_sample_does_not_promise_more_than_the_limits_allow(limits, hours):
    """3,600 requests at the pace of one a second take an hour; at two endpoints with limits, what these allow."""
    figures = {"requests": Interval(3600, 1800, 7200), "prompt_tokens": Interval(500_000, 0, 0)}
    figures["completion_tokens"] = Interval(220_000, 0, 0)
    spec = ModelSpec(name="chat", endpoints=("http://a:1", "http://b:1"), limits=limits)
    report = SimpleNamespace(usage=[SimpleNamespace(stage="label", requests=10, reused=0)], phases={"label": 10.0})
    found = _hours(report, {"chat": figures}, {"chat": spec})
    assert found.value == pytest.approx(hours)
    assert found.low <= found.value


def test_the_count_goes_on_and_survives_a_broken_file(tmp_path):
    """What was spent in an earlier start counts; a fresh run, or a file that is none of ours, begins with nothing."""
    models = {"chat": ModelSpec(name="chat", cost_in=10.0, cost_out=20.0)}
    path = tmp_path / "spent.json"
    first = Budget(path, {"tokens": 300}, models)
    first.add("chat", Completion("x", prompt_tokens=100, completion_tokens=50))
    first.write()
    second = Budget(path, {"tokens": 300, "money": None}, models)
    assert not second.used_up()
    second.add("chat", Completion("x", prompt_tokens=100, completion_tokens=50))
    with pytest.raises(RunError, match=r"tokens 300 of 300"):
        second.check()
    assert json.loads(path.read_bytes())["money"] == pytest.approx(2 * (100 * 10 + 50 * 20) / 1e6)
    assert not Budget(path, {"tokens": 300}, models, fresh=True).used_up()
    path.write_text("[1")
    assert not Budget(path, {"tokens": 300}, models).used_up()
