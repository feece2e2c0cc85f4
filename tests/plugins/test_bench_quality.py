"""`benchmarks/quality.py`: the figures of judged pairs through the real stage and a server."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.agreeable import agreeable

from kun_builder import ModelSpec

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
quality = import_module("quality")

TEXT = "蝙蝠飞行时从喉部发出声波，声波碰到昆虫会反射回来，蝙蝠根据回声判断方向。这种本领叫回声定位。"
ASKED = "蝙蝠在黑暗里怎样辨别方向？"
GOOD = {"text": TEXT, "instruction": ASKED, "output": TEXT, "good": True, "kinds": []}
EMPTY = {**GOOD, "instruction": "蝙蝠怎样用回声判断方向？", "output": "蝙蝠用回声判断方向。", "good": False}
WRONG = {**GOOD, "output": "蝙蝠的眼睛能在夜里看见 300 米外的昆虫，所以不会迷路。", "good": False}


def test_kept_and_dropped_pairs_add_up(tmp_path, monkeypatch, capsys):
    """A pair that the stage keeps counts for precision, one that it drops for its reason; the ranks tell them apart."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path))
    pairs = [GOOD, EMPTY, WRONG]
    with agreeable() as url:
        spec = ModelSpec(name="chat", engine="openai", endpoints=(url,), tokenizer="characters")
        verdicts = asyncio.run(quality.judge(pairs, spec, 0.9))
    assert [verdict.reason for verdict in verdicts] == ["", "says_nothing", "invented"]
    assert capsys.readouterr().err.splitlines()[-1] == "3 of 3 pairs judged"
    printed = quality.table(pairs, verdicts)
    assert "| precision before and after | 0.33, 1.00 |" in printed
    assert "| recall of the good ones | 1.00 |" in printed
    assert "| ROC-AUC of all checks together | 1.00 |" in printed
    assert "| says_nothing | 0 | 1 |" in printed


@given(st.lists(st.floats(0, 1), min_size=1), st.lists(st.floats(0, 1), min_size=1))
def test_the_area_is_symmetrical(good, bad):
    """Exchanging good and bad mirrors the area at one half."""
    assert quality.auc(good, bad) + quality.auc(bad, good) == pytest.approx(1)
    assert quality.auc(good, good) == pytest.approx(0.5)
