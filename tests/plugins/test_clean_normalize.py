"""Stage `normalize`."""

from __future__ import annotations

import time
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kun_clean.normalize import normalize_text, run

_ALPHABET = (
    "中文aE1。,  \u3000\u3000\t\n\n\r\x0b\x00\x1b\x85\u00a0\u00ad\u200b\u200c\u200d\u202e\u2028\ufeff\ufe0f"
    "👩💻नक्\u0301e\u0308\u2000\u2329\uf900\u1680"
)
NASTY = st.text(st.sampled_from(_ALPHABET)) | st.text()


def one(text, **options):
    table = run(pa.table({"id": ["a"], "text": [text]}), **options)
    return table["text"][0].as_py(), table["_reason"][0].as_py()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("e\u0301tude", "\u00e9tude"),
        ("甲\r\n乙\r丙\u2028丁\x0b戊", "甲\n乙\n丙\n丁\n戊"),
        ("一\x00二\x1b三\u200b四\ufeff五\u202e六", "一二三四五六"),
        ("\u3000\u3000段首缩进。\n\u3000\u3000第二段。\u3000\u3000", "段首缩进。\n第二段。"),
        ("行末空格  \t\n下一行", "行末空格\n下一行"),
        ("甲   乙\u00a0丙\t\t丁", "甲 乙 丙\t丁"),
        ("段一\n\n\n \n\n段二", "段一\n\n段二"),
        ("列表：\n    缩进的代码\n\t制表符", "列表：\n    缩进的代码\n\t制表符"),
        ("春眠不觉晓\u3000处处闻啼鸟", "春眠不觉晓\u3000处处闻啼鸟"),
        ("隐\u200d藏 👩\u200d💻", "隐藏 👩\u200d💻"),
        ("看不见\U000e0041\U000e0042的字", "看不见的字"),
        ("ＡＢＣ，１２３", "ＡＢＣ，１２３"),
        ("ä½\xa0å¥½", "ä½ å¥½"),
    ],
)
def test_one_way_to_write_a_text(raw, expected):
    """Each kind of noise goes, and typography and indentation stay."""
    assert one(raw) == (expected, None)


def by_hand(line):
    """What becomes of the blanks of one line that has no other noise, said without a pattern."""
    body = line.strip()
    if not body:
        return ""
    head = line[: len(line) - len(line.lstrip())]
    out, run = [], ""
    for char in body:
        if char.isspace():
            run += char
            continue
        if run:
            out.append(run[0] if run[0] in "\t\u3000" else " ")
        out.append(char)
        run = ""
    return (head if not head.strip(" \t") else "") + "".join(out)


@given(st.text(st.sampled_from("中a \t\n\u3000\u00a0\u2003\u1680")))
@example("a\n\u3000中\n \u3000中\n  中")
@example("a\u00a0中\u3000\u3000a\t \n\ta\t\ta")
def test_blanks_are_what_they_are_by_hand(text):
    """Line by line: none at the end, at the beginning indentation alone, one in place of a run."""
    lines = "\n".join(map(by_hand, text.strip("\n \t\u3000").split("\n")))
    while "\n\n\n" in lines:
        lines = lines.replace("\n\n\n", "\n\n")
    assert normalize_text(text) == lines.strip("\n \t\u3000")


@given(NASTY)
@example("👩\u200d\u200c中")
@example("a\u200b\u0301")
@example("\u0301\u094d\u200c")
@example("\u0301\u200b\u094d\u200c")
def test_normalizing_again_changes_nothing(text):
    """The stage is idempotent, whatever the text."""
    once, _ = one(text)
    assert one(once)[0] == once


@given(NASTY)
def test_fast_path_says_the_same(text):
    """The vectorised search for untidy texts misses none: the slow path would not change what it passes by."""
    assert one(text)[0] == normalize_text(text)


@given(NASTY)
def test_nothing_invisible_is_left(text):
    """The result is NFC, has no control characters but newline and tab, and no white space at its ends."""
    result, _ = one(text)
    assert unicodedata.is_normalized("NFC", result)
    assert {c for c in result if unicodedata.category(c) == "Cc"} <= {"\n", "\t"}
    assert result.strip() == result
    assert "\n\n\n" not in result


@given(st.text(st.sampled_from("\u200b\x00 \u3000\n\t\ufeff\u2028")))
def test_text_of_nothing_is_dropped_as_empty(text):
    """A text of which nothing is left is dropped, not kept as an empty row."""
    assert one(text) == ("", "empty")


def test_simplify_converts_by_phrase():
    """Traditional text becomes simplified on request, by phrase: 乾坤 keeps the character that 乾燥 changes."""
    assert one("乾坤乾燥，頭髮發財", simplify=True)[0] == "乾坤干燥，头发发财"
    assert one("頭髮")[0] == "頭髮"


def test_long_runs_of_space_take_linear_time():
    """A page of white space cannot hold the stage up."""
    start = time.process_time()
    for text in (
        " " * 300_000 + "字",
        "字" + " " * 300_000 + "字",
        "字\n" + " \u3000" * 100_000 + "字",
        "\u200d" * 300_000,
    ):
        run(pa.table({"id": ["a"], "text": [text]}))
    assert time.process_time() - start < 5
