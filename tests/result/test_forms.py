"""Forms and patterns of instructions."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_method.label import stage

from kun_builder.report import StepFacts
from kun_builder.result import forms
from kun_builder.result.clusters import cluster_sizes, largest_clusters
from kun_builder.result.forms import FormCounts, forms_of, pattern


def counted(*instructions):
    """Counts of these, by the forms that `label` declares."""
    counts = FormCounts(
        forms_of([StepFacts(label="score", stage="score"), StepFacts(label="l", stage="l", forms=stage.forms)])
    )
    counts.add(pa.array(instructions, pa.string()))
    return counts


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("三角洲是如何形成的？", "question: how"),
        ("月食为什么发红？", "question: why"),
        ("瞿希贤的主要作品有哪些？", "question: which"),
        ("什么是十进制浮点计算？", "question: what"),
        ("长城有多少个关口？", "question: how many"),
        ("蝙蝠靠视觉飞行吗？", "question: yes or no"),
        ("请介绍绿茶的来历。", "command: introduce"),
        ("请解释为什么月食发红。", "command: explain"),
        ("你能解释月食为什么发红吗？", "question: why"),
        ("Explain how tides work.", "command: explain"),
        ("How do tides work?", "question: how"),
        ("How many moons does Mars have?", "question: how many"),
        ("Is the whale a fish?", "question: yes or no"),
        ("绿茶", "other"),
        ("", "other"),
    ],
)
def test_forms(instruction, expected):
    """A question is known by its question word, a command by its verb; the mark at the end decides between both."""
    assert counted(instruction).forms == {expected: 1}


def test_patterns():
    """Questions that differ in their subject only end alike; commands and English instructions begin alike."""
    assert pattern("三角洲是如何形成的？") == pattern("彩虹是如何形成的？") == "…如何形成的"
    assert pattern("请介绍绿茶的来历。") == pattern("请介绍三角洲。") == "请介绍…"
    assert pattern("What is the capital of Chad?") == pattern("What is the  speed of light?") == "what is the …"
    assert pattern("？！") == ""


def test_counts():
    """Every instruction has one form; patterns are those that at least two share, the most frequent first."""
    questions = ["三角洲是如何形成的？", "彩虹是如何形成的？", "雾是如何形成的？", "何谓茶道？"]
    counts = counted(*questions, "请介绍绿茶。", "请介绍红茶。", None)
    assert counts.forms == {"question: how": 3, "command: introduce": 2, "question: what": 1}
    assert list(counts.largest().items()) == [("…如何形成的", 3), ("请介绍…", 2)]
    assert counts.largest(1) == {"…如何形成的": 3}


def test_memory_is_bounded(monkeypatch):
    """Of more patterns than are remembered, those seen once are forgotten; the frequent ones keep their counts."""
    monkeypatch.setattr(forms, "_MOST_PATTERNS", 100)
    counts = counted(*["三角洲是如何形成的？"] * 5)
    letters = "abcdefghij"
    counts.add(pa.array([f"word{letters[n % 10]}{letters[n // 10 % 10]}{'xyz'[n // 100]} one two" for n in range(300)]))
    assert counts.largest() == {"…如何形成的": 5}
    assert counts.forms.total() == 305


@given(st.text(max_size=60))
def test_any_text_has_a_form(text):
    """No text is beyond it, and a pattern is never longer than a line."""
    assert counted(text).forms.total() == 1
    assert "\n" not in pattern(text)
    assert len(pattern(text * 20)) <= 62


def test_a_run_that_declares_no_forms_has_none():
    """Reports of earlier versions say nothing of forms: patterns are counted all the same."""
    counts = FormCounts(forms_of([StepFacts(label="label", stage="label")]))
    counts.add(pa.array(["三角洲是如何形成的？", "彩虹是如何形成的？"]))
    assert counts.forms == {}
    assert counts.largest() == {"…如何形成的": 2}


def test_clusters_are_rows_in_whose_favour_others_were_dropped():
    """Of all splits; values that are no id, quarantined rows and heads that were dropped later count for none."""
    dead = {
        "_outcome": ["dropped"] * 5 + ["quarantined"],
        "_value": ["a/x:1", "a/x:1", "b/y:2", "0.3", "b/z:9", "a/x:1"],
    }
    sizes = cluster_sizes([pa.table(dead), pa.table({"id": ["old"]})])
    assert sizes == {"a/x:1": 2, "b/y:2": 1, "b/z:9": 1}
    kept = pa.table({"id": ["b/y:2", "a/x:1", "a/x:5"], "instruction": ["雾？", "虹？", "雨？"]})
    assert list(largest_clusters([kept], sizes).items()) == [("虹？", 2), ("雾？", 1)]
    assert largest_clusters([kept], sizes, 1) == {"虹？": 2}
    assert largest_clusters([pa.table({"id": ["a/x:1"], "text": ["虹"]})], sizes) == {}
