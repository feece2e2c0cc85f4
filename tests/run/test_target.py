"""`target: N` reads on until N rows are kept, and pays for few more."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import STAGES
from servers.llm_simulator import simulator

from kun_builder.errors import RunError
from kun_builder.recipe.recipe import load_recipe
from kun_builder.run.target import build_target, first_wave, next_wave
from kun_builder.status import Status

pytestmark = pytest.mark.usefixtures("own_cache")


def run(folder, registry, url, target, rows=4000, budget=""):
    """Build until so many rows are kept; the stage `judge` keeps four of five. Returns the report and what was said."""
    path = folder / "a.jsonl"
    if not path.exists():
        path.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(rows)))
    (folder / "recipe.yaml").write_text(
        f"name: three\ntarget: {target}\n{budget}\n"
        f"models: {{chat: {{engine: openai, endpoints: ['{url}'], revision: r1}}}}\n"
        "splits: {web: {source: lines, path: a.jsonl}}\n"
        f"plugins: {{dirs: ['{STAGES}']}}\n"
        "stages: [clean, same, ask, {judge: {threshold: 0.2}}, rewrite]\n"
    )
    said = []
    recipe = load_recipe(folder / "recipe.yaml", registry, output=folder / "run")
    return build_target(recipe, registry, status=Status(say=said.append)), said


def test_it_stops_when_enough_is_kept(tmp_path, registry):
    """So many rows are kept, and few more; only a sample was read, nothing was asked twice, and again does nothing."""
    with simulator(speed=200.0) as server:
        report, said = run(tmp_path, registry, server.url, 300)
        stats = server.stats()
    split = report.splits["web"]
    assert 300 <= split.kept <= 330
    assert split.records == 4000
    assert split.read == report.limit < 450
    assert stats["repeated"] == 0
    assert stats["answered"] < 3 * 450
    assert any("of 300 rows are kept; going on" in line for line in said)
    again, said = run(tmp_path, registry, server.url, 300)
    assert again == report
    assert "nothing to do" in said[0]


def test_a_stopped_run_goes_on(tmp_path, registry):
    """What a run that was ended in a later wave has got is not asked again."""
    with simulator(speed=200.0) as server:
        with pytest.raises(RunError, match="budget"):
            run(tmp_path, registry, server.url, 300, budget="budget: {tokens: 40000}")
        part = server.stats()["answered"]
        report, _ = run(tmp_path, registry, server.url, 300)
        assert server.stats()["repeated"] == 0
        assert server.stats()["answered"] > part > 3 * 100
    assert 300 <= report.splits["web"].kept <= 330


def test_an_input_that_is_too_small_is_used_up(tmp_path, registry):
    """Where the whole input gives fewer rows, all of them are kept, and that is said."""
    with simulator(speed=200.0) as server:
        report, said = run(tmp_path, registry, server.url, 300, rows=200)
    assert report.splits["web"].read == 200
    assert f"the input is used up: {report.splits['web'].kept} rows are kept, and the recipe's `target` is 300" in said


@given(st.integers(1, 10**7), st.integers(1, 5), st.floats(0.01, 3.0))
def test_waves_come_to_an_end(target, splits, rate):
    """Whatever share is kept, a few waves do, and the last is not much larger than it had to be."""
    limit, waves = first_wave(target, splits), 1
    while (kept := int(rate * limit * splits)) < target:
        limit, waves = next_wave(limit, kept, target), waves + 1
    assert waves <= 12
    assert kept <= max(1.1 * target, target + 5 * splits * max(1, rate) * 4) or waves == 1
