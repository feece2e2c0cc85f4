"""Words that show that a question or an answer was written for a place that its reader does not see."""

from __future__ import annotations

import pytest
from kun_method.context import no_question, question_needs_text, speaks_as_author
from kun_method.verify import about_answer


@pytest.mark.parametrize(
    ("output", "word"),
    [
        ("志工队现已独立运作，是本校在学生参与公众事务上的一大特色。", "本校"),
        ("志工隊現已獨立運作，是本校在學生參與公眾事務上的一大特色。", "本校"),
        ("两类产品的重心差别很大。本文主要讨论后者。", "本文"),
        ("笔者认为，先学会走路再学跑步。", "笔者"),
        ("我公司的产品都有三年保修。", "我公司"),
        ("分片键要选得均匀。更多内容请关注文末公众号。", "关注文末公众号"),
    ],
)
def test_an_answer_does_not_speak_as_the_author_of_its_text(output, word):
    """Who 本校 is, no reader of the pair knows; where the question speaks of it too, he does."""
    assert speaks_as_author(output, "学生会有哪些职责？") == word
    assert about_answer("学生会有哪些职责？", output, output) == ("needs_context", word)
    assert not speaks_as_author(output, f"请以{word}的口吻写一段话。")


@pytest.mark.parametrize(
    "output",
    [
        "日本文化影响很大。",
        "进程是系统分配资源的基本单位。",
        "输入文本文件和脚本文件。",
        "资本公司的版本校验失败。",
        "他写了三本校园小说。",
        "网关收到请求，转发给后端服务。",
    ],
)
def test_words_that_only_contain_such_a_word_pass(output):
    """日本文化 and 版本校验 are no speech of an author."""
    assert not speaks_as_author(output, "有什么特点？")


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        ("请介绍金氏的生平和家庭。", "金氏"),
        ("金氏是谁？", "金氏"),
        ("明圣王后金氏的生平如何？", ""),
        ("陈氏太极拳有什么特点？", ""),
        ("摄氏是什么单位？", ""),
    ],
)
def test_a_surname_alone_names_nobody(instruction, words):
    """Whose biography is asked for must be said; a school of boxing and a scale have such names."""
    assert question_needs_text(instruction) == words


def test_a_statement_is_no_second_question():
    """它有多项公开赛？ asks nothing; a second question that asks passes."""
    assert no_question("網球是什麼？它有多項世界著名的公開賽？") == "它有多项世界著名的公开赛？"
    assert not no_question("網球是什麼？它有什麼著名的比賽？")
    assert not no_question("什么是网球？它的规则是否复杂？")
    assert not no_question("猴面包树是什么植物？它在非洲分布广泛，有哪些特点？")
