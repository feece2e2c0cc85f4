"""Forms and patterns of instructions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun_builder.result import forms
from kun_builder.result.forms import FormCounts, form, pattern


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
    assert form(instruction) == expected


def test_patterns():
    """Questions that differ in their subject only end alike; commands and English instructions begin alike."""
    assert pattern("三角洲是如何形成的？") == pattern("彩虹是如何形成的？") == "…如何形成的"
    assert pattern("请介绍绿茶的来历。") == pattern("请介绍三角洲。") == "请介绍…"
    assert pattern("What is the capital of Chad?") == pattern("What is the  speed of light?") == "what is the …"
    assert pattern("？！") == ""


def test_counts():
    """Every instruction has one form; patterns are those that at least two share, the most frequent first."""
    counts = FormCounts()
    counts.add(
        [
            "三角洲是如何形成的？",
            "彩虹是如何形成的？",
            "请介绍绿茶。",
            "请介绍红茶。",
            "雾是如何形成的？",
            "何谓茶道？",
            None,
        ]
    )
    assert counts.forms == {"question: how": 3, "command: introduce": 2, "question: what": 1}
    assert list(counts.largest().items()) == [("…如何形成的", 3), ("请介绍…", 2)]
    assert counts.largest(1) == {"…如何形成的": 3}


def test_memory_is_bounded(monkeypatch):
    """Of more patterns than are remembered, those seen once are forgotten; the frequent ones keep their counts."""
    monkeypatch.setattr(forms, "_MOST_PATTERNS", 100)
    counts = FormCounts()
    counts.add(["三角洲是如何形成的？"] * 5)
    counts.add(f"word{'abcdefghij'[n % 10]}{'abcdefghij'[n // 10 % 10]}{'xyz'[n // 100]} one two" for n in range(300))
    assert counts.largest() == {"…如何形成的": 5}
    assert counts.forms.total() == 305


@given(st.text(max_size=60))
def test_any_text_has_a_form(text):
    """No text is beyond it, and a pattern is never longer than a line."""
    assert isinstance(form(text), str)
    assert "\n" not in pattern(text)
    assert len(pattern(text * 20)) <= 62
