"""What is counted in passing, over whole texts, is what the plain definitions count, character by character."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest
from kun_method.form import leak
from kun_method.languages import EN, ZH, Language, add, language_of
from kun_method.pairs import grams, turned_negation, weakest_clause
from kun_method.scripts import _counts, _script
from kun_method.texts import HAN, han_share, letters, loop, said_twice, shared_run, units

from kun_builder import Prompt

PIECES = [
    *("中文", "體系", "计算机", "𠀀", "后", "乾坤", "不", "没有", "。", "，", "\n", " ", "_", "1,234", "１２", "第3章"),
    *(
        "the",
        "and",
        " of ",
        "Is it",
        "not",
        "n’t",
        "cannot",
        "İx",
        "ſo",
        "Σας",
        "é",
        "カナ",
        "x中y",
        "\u200b",
        "😀",
        "`a`",
    ),
]
_UNIT = re.compile(rf"[{HAN}]|[^\W\d_{HAN}]+")


def _texts() -> list[str]:
    luck = random.Random(13)
    return ["", *("".join(luck.choices(PIECES, k=luck.randint(1, 40))) for _ in range(400))]


@pytest.mark.parametrize("script", ["a-z", "ぁ-ヿ", "\u0400-\u04ff", "\u4e00-\u4fff"])
def test_the_words_of_a_script_are_those_that_begin_with_one_of_its_letters(script: str) -> None:
    for text in _texts():
        found = _UNIT.findall(text.lower())
        share = sum(re.match(f"[{script}]", unit) is not None for unit in found) / len(found) if found else 0.0
        assert letters(text, script) == share


def test_han_characters_count_one_by_one_and_others_word_by_word() -> None:
    for text in _texts():
        found = _UNIT.findall(text)
        assert units(text) == len(found)
        assert han_share(text) == (len(re.findall(f"[{HAN}]", text)) / len(found) if found else 0.0)


def test_characters_of_either_script_are_counted_as_each_by_itself_is() -> None:
    for text in _texts():
        scripts = [_script(character) for character in text if character >= "\u3400"]
        assert _counts(text) == (scripts.count("t"), scripts.count("s"))


def test_grams_are_pairs_of_neighbours_and_whole_words() -> None:
    for text in _texts():
        kept = re.sub(r"(?<![^\W\d_])[a-zß-öø-ÿ]{1,3}(?![^\W\d_])", " ", text).lower()
        pieces = re.findall(rf"[{HAN}]+|[^\W_{HAN}]+", kept)
        han = [len(piece) > 1 and re.match(f"[{HAN}]", piece) for piece in pieces]
        expected = {piece for piece, pairs in zip(pieces, han, strict=True) if not pairs}
        expected |= {a + b for piece, pairs in zip(pieces, han, strict=True) if pairs for a, b in pairwise(piece)}
        assert grams(text) == expected


def test_a_piece_of_twelve_characters_of_the_prompt_leaks_wherever_it_stands() -> None:
    prompt = Prompt("[user]\n一二三四五六七八九十甲乙丙丁戊己庚辛壬癸子丑寅卯\n{text}\n")
    for before in range(12):
        for start in range(8, 20):
            for long, leaks in ((11, False), (12, True), (15, True)):
                piece = prompt.text[start : start + long]
                answer = "中" * before + piece + "文" * 5
                assert leak(answer, prompt) == (shared_run(answer, prompt.text) if leaks else "")


def test_a_language_that_comes_later_is_heard_at_once() -> None:
    text = "Ĉu la suno brilas hodiaŭ super la maro kaj la montoj"
    known = language_of(text)
    esperanto = Language("eo", ZH.prompts, "bone", "fuŝe", lambda said: "?" in said, lambda said: 1.0)
    add(esperanto)
    try:
        assert language_of(text) is esperanto
    finally:
        from kun_method import languages

        del languages._KNOWN["eo"]
        add(EN)
    assert language_of(text) is known


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("每天都要吃三次药。", "每天都不要吃三次药"),
        ("You should not touch the hot stove", "You should touch the hot stove"),
        ("They don’t eat meat on working days", "They do eat meat on working days"),
        ("They cannot swim in the cold river", "They swim in the cold river"),
    ],
)
def test_a_negation_is_seen_in_both_languages(text: str, output: str) -> None:
    assert turned_negation(output, text) == output


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("The note was nice and the cannots too", "The te was nice and the cannots too"),
        ("Wir kennen den Notar noch", "Wir kennen de Notar noch"),
    ],
)
def test_a_word_that_only_begins_like_a_negation_is_none(text: str, output: str) -> None:
    assert turned_negation(output, text) == ""


def test_of_clauses_that_are_as_weak_the_first_in_order_is_told() -> None:
    share, clause = weakest_clause("乙句说的是别的事情。甲句说的是别的事情。", "这里的话都不一样呢呀")
    assert (share, clause) == (0.0, "乙句说的是别的事情")


def test_what_never_comes_again_is_neither_a_loop_nor_said_twice() -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 400)))
    assert (loop(text), said_twice(text, "")) == ("", "")
    assert loop(text + "转圈圈" * 6) != ""
    assert said_twice(text + text[50:66], "") == text[50:66]
