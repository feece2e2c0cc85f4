"""Pictures and the figures behind them."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_runs import make_run
from hypothesis import given
from hypothesis import strategies as st

from kun_builder.errors import RunError
from kun_builder.report import StepFacts
from kun_builder.result import plots
from kun_builder.result.finished import open_run
from kun_builder.result.measures import SHARE_EDGES
from kun_builder.result.plots import (
    CUT,
    DARK_PAGE,
    ELSEWHERE,
    LIGHT_PAGE,
    PALETTE,
    REJECTED,
    TEXT,
    pictures,
    to_png,
    to_svg,
)
from kun_builder.result.stats import SplitStats, owners, rows_at, split_stats, spread


@pytest.fixture(scope="module")
def charts(tmp_path_factory):
    run = open_run(make_run(tmp_path_factory.mktemp("run"), {"wudao": 60, "skypile": 40}))
    return pictures({name: (run.report.splits[name], run.stats[name]) for name in run.stats})


@pytest.mark.parametrize("name", ["funnel", "lengths", "measure-score", "measure-perplexity", "asks"])
def test_drawn(charts, name):
    """Each picture is drawn as SVG and PNG, with its words, and the same figures give the same PNG."""
    svg = to_svg(charts[name])
    assert charts[name]["title"] in svg
    png = to_png(svg)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") >= 2 * plots.WIDTH
    plots._svg.cache_clear()
    assert to_png(to_svg(charts[name])) == png


def test_too_few_addresses_are_told_before_they_end_the_process(charts, monkeypatch):
    """What draws sets 64 GiB aside, and takes the process with it where `ulimit -v` gives less."""
    monkeypatch.setattr(plots.resource, "getrlimit", lambda which: (32 << 30, -1))
    with pytest.raises(RunError, match=r"32,768 MiB of addresses \(`ulimit -v`\)"):
        to_svg({**charts["funnel"], "title": "not drawn before"})
    monkeypatch.setattr(plots.resource, "getrlimit", lambda which: (-1, -1))
    assert "<svg" in to_svg({**charts["funnel"], "title": "not drawn before"})


def test_funnel_shows_counts(charts):
    """The funnel's numbers are those of the report."""
    assert {"records", "perplexity", "label", "score", "90", "60", "40"} <= set(
        re.findall(r">([^<>]+)</text>", to_svg(charts["funnel"]))
    )


def test_score_picture_has_the_threshold(charts):
    """The threshold is written beside its line."""
    assert "least 0.5" in to_svg(charts["measure-score"])


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("page", [LIGHT_PAGE, DARK_PAGE])
def test_readable_on_light_and_dark(charts, page):
    """Text and marks stand out on a white page and on a dark one (WCAG 2: 3 for graphics and large text), and the
    pictures have no ground of their own."""
    assert contrast(TEXT, page) >= 3.8
    assert all(contrast(colour, page) >= 3 for colour in (*PALETTE, REJECTED, ELSEWHERE, CUT))
    assert all(chart["config"]["background"] == "transparent" for chart in charts.values())


@given(st.integers(0, 5000), st.integers(1, 700))
def test_spread(rows, wanted):
    """A spread sample has as many rows as asked, or all; ascending, without repeats, from the whole range."""
    numbers = spread(rows, wanted)
    assert len(numbers) == min(rows, wanted)
    assert numbers == sorted(set(numbers))
    assert all(0 <= number < rows for number in numbers)


@given(st.data())
def test_rows_at(tmp_path_factory, data):
    """Rows are found by number over several files and row groups."""
    sizes = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=3))
    folder, start, paths = tmp_path_factory.mktemp("rows"), 0, []
    for number, size in enumerate(sizes):
        paths.append(folder / f"{number}.parquet")
        pq.write_table(pa.table({"n": pa.array(range(start, start + size), pa.int64())}), paths[-1], row_group_size=5)
        start += size
    wanted = sorted(data.draw(st.sets(st.integers(0, start - 1), max_size=8))) if start else []
    assert [row["n"] for row in rows_at(paths, wanted)] == wanted


def test_stats_count_every_row(tmp_path):
    """Histograms cover all rows, kept and rejected, whatever their values; and survive JSON."""
    rng = np.random.default_rng(0)
    kept = {
        "id": [f"x/{n}" for n in range(500)],
        "instruction": ["如何泡茶？", "翻译这句话", "写一首诗", "How does it work?", "嗯"] * 100,
        "output": ["长" * int(length) for length in rng.integers(0, 40_000, 500)],
        "score": [None, *rng.uniform(0, 1, 499)],
        "perplexity": rng.lognormal(5, 3, 500),
        "language": ["zh"] * 400 + ["en"] * 100,
    }
    pq.write_table(pa.table(kept), tmp_path / "kept.parquet")
    far = max(kept["perplexity"])
    dead = {
        "score": [0.1, None, 1.0, None],
        "perplexity": [50.0, far * 2, 60.0, far * 9],
        "_stage": ["score", "label", "refine", "perplexity"],
    }
    pq.write_table(pa.table(dead), tmp_path / "dead.parquet")
    options = {"score": {"threshold": 0.2}, "perplexity": {}}
    steps = [StepFacts(label=n, stage=n, adds={n: "double"}, options=given) for n, given in options.items()]
    forms = [("how", "如何|(?i:how)"), ("write", "写")]
    stats = split_stats([tmp_path / "kept.parquet"], [tmp_path / "dead.parquet"], owners(steps), forms)
    score, perplexity = stats.measures["score"], stats.measures["perplexity"]
    assert stats.rows == stats.instruction_length.total == stats.output_length.total == perplexity.kept.total == 500
    assert score.kept.total == 499
    assert score.kept.edges == SHARE_EDGES
    assert (score.rejected.total, score.elsewhere.total, score.least, score.beyond) == (1, 1, 0.2, 1)
    assert (perplexity.rejected.total, perplexity.elsewhere.total) == (1, 3)
    assert (perplexity.cut_below, perplexity.cut_above) == (None, far * 9), "a later step's rows had been let pass"
    assert perplexity.spread.median == np.median(kept["perplexity"])
    assert stats.texts["instruction"].different == 5
    assert stats.forms == {"how": 200, "other": 200, "write": 100}
    assert stats.languages == {"zh": 400, "en": 100}
    assert SplitStats.from_json(stats.to_json()) == stats


def test_empty_split(tmp_path):
    """A split without any row has a card and pictures, too."""
    run = open_run(make_run(tmp_path / "run", {"wudao": 12, "empty": 0}))
    charts = pictures({name: (run.report.splits[name], run.stats[name]) for name in run.stats})
    assert all(to_svg(chart) for chart in charts.values())
