"""What is missing from a text whose templates, lists or links were cut out."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_method import refine, verify
from kun_method.gaps import closed_gaps, gap, torn_item
from kun_method.raw import as_answer, finished
from scripted import Scripted, row

from kun_builder import Drop

SEEDS = sorted((Path(__file__).parents[3] / "shared" / "data" / "seeds").glob("*.jsonl"))
MUSEUM = "白河博物馆建于1962年，下设五个部门，分别为：多年来馆里的工作成果很丰硕。"


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (MUSEUM, "分别为：多年来馆里的工作成果很丰硕。"),
        ("白河博物館下設五個部門，分別為：多年來館裡的工作成果很豐碩。", "分别为：多年来馆里的工作成果很丰硕。"),
        ("馆里出版的专著主要有：此外，还发表论文千余篇。", "主要有：此外"),
        ("下面的图显示该科的演化位置：以下演化树出自同一本书。", "显示该科的演化位置：以下"),
        ("这家公司代理的品牌很多，包括：", "包括："),
        ("白河镇位于，人口三万。", "位于"),
        ("松鸦又称，是一种中型鸟类。", "又称"),
        ("她主演的电视剧《》收视很高。", "《》"),
        ("这座庙供奉天后。参见：天后天后本名林默，福建人。", "参见："),
        ("參見：天后。天后本名林默，福建人。", "参见："),
        ("The village is located in , north of the river.", "located in ,"),
    ],
)
def test_what_was_announced_is_not_there(text, missing):
    """A list, a name, an object of a verb; in both scripts and in English."""
    assert gap(text) == missing
    assert not as_answer(text)


@pytest.mark.parametrize(
    "text",
    [
        "馆下设三个部门，分别为：陈列部、保管部、群工部。",
        "参赛的有两队，分别是：红队和蓝队。",
        "所需材料如下：\n\n- 面粉\n- 水",
        "这是各种文字的统称，包括汉字。他一生多次获奖，其中包括，1949年的评论奖。",
        "两县毗邻，互不隶属。",
        '调用 `get()` 会返回 `""`。',
        "He likes fruit, such as pears.",
    ],
)
def test_a_text_with_nothing_missing_is_left_alone(text):
    """A list that follows its colon, and verbs that need no object."""
    assert gap(text) == ""


def test_a_pair_with_a_gap_is_dropped_before_a_model_is_asked():
    """By `refine` and by `verify`, each with the words."""
    pair = row(MUSEUM, instruction="请介绍白河博物馆的历史和部门。", output=MUSEUM)
    for stage in (refine, verify):
        generate = Scripted([])
        with pytest.raises(Drop) as caught:
            asyncio.run(stage.run(pair, generate))
        assert caught.value.reason == "has_gaps"
        assert not generate.asked


def test_an_item_is_no_half_of_a_sentence():
    """比坐着更有效 is what something else is: with its beginning, or as an item of the text itself, it passes."""
    text = "久坐伤腰。每小时起来走一走，比一直坐得笔直更有效。比如接水、开窗，都算走动。"
    torn = "护腰的办法：\n- 每小时起来走一走\n- 比一直坐得笔直更有效\n- 接水、开窗"
    assert torn_item(torn, text) == "比一直坐得笔直更有效"
    assert verify.about_answer("久坐的人如何护腰？", torn, text) == ("has_gaps", "比一直坐得笔直更有效")
    assert not torn_item("护腰的办法：\n- 每小时起来走一走，比一直坐得笔直更有效\n- 比如接水、开窗", text)
    assert not torn_item(torn, torn)


@given(st.text(alphabet="（）()，、。；茶水a 《》", max_size=40))
def test_closing_gaps_takes_no_word_away(text):
    """Only marks go, and what has been closed stays as it is."""
    closed = closed_gaps(text)
    assert [c for c in closed if c.isalnum()] == [c for c in text if c.isalnum()]


@pytest.mark.skipif(not SEEDS, reason="the seed pairs are not part of a clone")
def test_pairs_of_people_are_spared():
    """At most one in five hundred."""
    outputs = [json.loads(line)["output"] for path in SEEDS for line in path.read_text("utf-8").splitlines()]
    assert outputs
    assert sum(bool(gap(output)) for output in outputs) <= len(outputs) / 500


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (
            "灯塔建于一八八〇年。塔高二十米。每晚都亮灯，船只由此辨认港口。它在一九五〇年改用电灯，守塔人一家住在塔下。2013年首次举办灯光节」港口",
            "灯塔建于一八八〇年。塔高二十米。每晚都亮灯，船只由此辨认港口。它在一九五〇年改用电灯，守塔人一家住在塔下。",
        ),
        ("灯塔建于一八八〇年，塔高二十米，每晚都亮灯。</div>", "灯塔建于一八八〇年，塔高二十米，每晚都亮灯。"),
        (
            "The lighthouse is twenty metres high. It was built in 1880. Ships still",
            "The lighthouse is twenty metres high. It was built in 1880.",
        ),
        ("灯塔很高。每晚都亮灯，船只由此辨认港口的方向", "灯塔很高。每晚都亮灯，船只由此辨认港口的方向"),
        (
            "要带的东西有：\n- 灯。越亮越好\n- 绳子。结实的，长的，最好有十米以上",
            "要带的东西有：\n- 灯。越亮越好\n- 绳子。结实的，长的，最好有十米以上",
        ),
        ("床前明月光，\n疑是地上霜", "床前明月光，\n疑是地上霜"),
        ("The lamp is lit every night. Ships see it.", "The lamp is lit every night. Ships see it."),
        ("他说：「灯亮了。」", "他说：「灯亮了。」"),
    ],
)
def test_a_sentence_that_breaks_off_at_the_end_is_left_out(text, rest):
    """Only a small one, behind a whole one, in prose: items, verses and what is most of the text stay."""
    assert finished(text) == rest


@given(st.text("灯塔亮。，\n- a.」", max_size=60))
def test_what_is_finished_is_a_beginning_and_stays_so(text):
    """It loses at most a quarter, at its end, and nothing the second time."""
    once = finished(text)
    assert text.startswith(once)
    assert len(once) >= 0.75 * len(text.rstrip()) - 1
    assert finished(once) == once
