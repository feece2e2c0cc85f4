"""Instructions and answers in the script of their text, and answers that say a thing twice."""

import asyncio

import pytest
from kun_method import label, polish, verify
from kun_method.context import about_question
from kun_method.form import is_request
from kun_method.scripts import in_script_of
from kun_method.texts import said_twice
from scripted import Scripted, row

from kun_builder import Drop

BURYATS = "布里亞特人信仰藏傳佛教，首領由沙皇任命。居住在中國的布里亞特人是後來從俄羅斯移民過來的，村子裡有許多巫師。"
OUTLINE = "话题：布里亚特人\n方面：信仰，迁徙，首领\n问题：布里亚特人信仰什么，从哪里迁来，首领由谁任命？"
TEA = "泡绿茶的水不要太烫，八十度左右最好。先用热水温杯，再放三克茶叶，冲水后等两分钟，就可以倒出来喝。"


@pytest.mark.parametrize(
    ("text", "words", "put"),
    [
        (BURYATS, "布里亚特人信仰什么宗教？后来从哪里迁来？", "布里亞特人信仰什麼宗教？後來從哪裡遷來？"),
        (BURYATS, "布里亞特人信仰藏传佛教。", "布里亞特人信仰藏傳佛教。"),
        (
            BURYATS,
            "居住在這個體系裡的布里亞特人走了三公里，后來從俄罗斯移民過來。",
            "居住在這個體系裡的布里亞特人走了三公里，后來從俄羅斯移民過來。",
        ),
        (BURYATS + "沙皇南征北討。", "沙皇南征三次，后来征税。", "沙皇南征三次，後來徵稅。"),
        (BURYATS, "皇后住在里程碑旁。" * 2, "皇后住在里程碑旁。" * 2),
        (TEA, "泡綠茶的水要多熱？", "泡绿茶的水要多热？"),
        (TEA, "泡绿茶的水要多热？", "泡绿茶的水要多热？"),
        (BURYATS + TEA, "藏传佛教", "藏传佛教"),
        ("How do bats find their way?", "蝙蝠怎樣辨别方向？", "蝙蝠怎樣辨别方向？"),
    ],
)
def test_words_take_the_script_of_a_text_that_has_one(text, words, put):
    """Characters that both scripts have are left alone, and so is everything where the text itself is mixed."""
    assert in_script_of(text, words) == put


def test_label_and_polish_write_in_the_script_of_the_text():
    """A model that answers a traditional text in simplified characters does not show in the dataset."""
    asked = asyncio.run(label.run(row(BURYATS), Scripted(["布里亚特人信仰什么，从哪里迁来？"])))
    assert asked["instruction"] == "布里亞特人信仰什麼，從哪裡遷來？"
    told = asyncio.run(polish.run(asked, Scripted(["布里亚特人信仰藏传佛教，后来从俄罗斯迁来。"])))
    assert told["output"] == "布里亞特人信仰藏傳佛教，後來從俄羅斯遷來。"


@pytest.mark.parametrize("answer", [OUTLINE, in_script_of(BURYATS, OUTLINE)])
def test_an_outline_is_told_from_its_instruction_in_either_script(answer):
    """Only the question goes on, whichever script the words before it are written in."""
    asked = asyncio.run(label.run(row(BURYATS), Scripted([answer])))
    assert asked["instruction"] == "布里亞特人信仰什麼，從哪裡遷來，首領由誰任命？"


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("請問該公司的創辦人是誰？", "needs_context"),
        ("這座城市有哪些特點？", "needs_context"),
        ("布里亞特人信仰藏傳佛教。", None),
    ],
)
def test_forms_of_speech_are_known_in_either_script(question, reason):
    """該公司 leans on its text as 该公司 does; what asks for nothing is no request."""
    found = about_question(question)
    assert (found[0] if found else None) == reason
    assert is_request(question) is bool(reason)
    assert is_request("請介紹布里亞特人的信仰。")


@pytest.mark.parametrize(
    ("answer", "text", "found"),
    [
        (TEA + "先用热水温杯，再放三克茶叶，冲水后等两分钟。", TEA, "先用热水温杯再放三克茶叶冲水后等"),
        (TEA + "先用热水温杯，再放三克茶叶，冲水后等两分钟。", TEA * 2, ""),
        (TEA, TEA, ""),
        ("", TEA, ""),
        ("It is the largest of the great apes of the east. " * 2, "It is large.", ""),
    ],
)
def test_a_run_that_only_the_answer_has_twice_is_found(answer, text, found):
    """Sixteen Han characters are no coincidence; what the text repeats may be repeated, and short English runs too."""
    assert said_twice(answer, text) == found


def test_an_answer_that_repeats_itself_is_dropped():
    """It has a reason of its own, with the run."""
    answer = TEA + "先用热水温杯，再放三克茶叶，冲水后等两分钟。"
    with pytest.raises(Drop) as caught:
        asyncio.run(verify.run(row(TEA, instruction="怎样泡绿茶？", output=answer), Scripted([]), model=None))
    assert caught.value.reason == "repeats"
