"""What a question asks for although the text says nothing of it."""

import asyncio
import json
from pathlib import Path

import pytest
from kun_method import label, verify
from kun_method.aspects import asks_beyond
from scripted import Scripted, row

from kun_builder import Drop

SEEDS = sorted((Path(__file__).parents[3] / "shared" / "data" / "seeds").glob("*.jsonl"))
RECIPE = "# 糖醋汁的做法\n\n材料：醋两勺，糖两勺，番茄酱一勺。\n\n1. 醋和糖放入碗里。\n2. 加番茄酱搅匀，上锅煮开。"
GREENS = "How do you boil greens, and what should you watch out for?"
CRABS = "Hermit crabs hide their soft abdomen in the empty shells of sea snails, and move into larger ones in line."
SINGER = "林小月，台湾歌仔戏乐师，高雄市人，当兵时在艺工队演奏扬琴，退伍后与多个歌仔戏团合作，录有《月夜愁》等曲。"


@pytest.mark.parametrize(
    ("instruction", "text", "aspect"),
    [
        ("糖醋汁怎么做？请写出材料、步骤和注意事项。", RECIPE, "注意事项"),
        ("糖醋汁怎么做？请写出材料、步骤和注意事项。", RECIPE + "火不要大，否则会糊。", ""),
        ("糖醋汁怎么做？请写出材料、步骤和附加内容。", RECIPE, "附加内容"),
        ("请介绍林小月的生平、作品和获奖情况。", SINGER, "获奖"),
        ("请介绍林小月的生平、作品和荣誉。", SINGER, "荣誉。"),
        ("请介绍林小月的生平、作品和获奖情况。", SINGER + "曾獲金曲獎。", ""),
        ("请介绍林小月的生平和作品。", SINGER, ""),
        ("海湾国的移民历史和现状如何？", "海湾国有大量外籍劳工。2013年建成了太阳能发电站，识字的人占八成。", "历史"),
        ("海湾國的移民歷史和現狀如何？", "海湾國在1950年代招來第一批外籍勞工，2013年外籍人口超過本國人。", ""),
        ("請介紹明先生的出生、教育和退役。", "明先生生於1933年，十歲時該任少尉，但並沒有去任職。", "退役"),
        ("请介绍这场海战的时间、地点和伤亡。", "1904年，两支舰队在黄海交火，半日后各自返航。", "伤亡"),
        ("请介绍林小月的生平和去世原因。", SINGER + "1990年去世。", "去世原因"),
        ("请介绍林小月的生平和去世原因。", SINGER + "1990年因病去世。", ""),
        ("请介绍林小月的历史贡献。", SINGER, ""),
        ("请介绍灯塔的历史沿革。", "灯塔的前身是一座瞭望台，后来改建。", ""),
        ("请介绍林小月的生平和作品。", "1998年，林小月随团赴日本演出，回台后开班授徒，并录制《月夜愁》。", "生平"),
        ("这座庙建于何时，是什么风格的建筑？", "天后庙建于1880年，供奉天后，每年三月举行仪式。", "风格"),
        ("这座庙建于何时，是什么风格的建筑？", "天后庙建于1880年，为岭南式庙宇，供奉天后。", ""),
        ("请介绍林小月的经历和成就。", "1998年，林小月随团赴日本演出，回台后开班授徒。", "介绍林小月的经历"),
        ("糖醋汁怎么做？请写出步骤和附带内容。", RECIPE + "\n\n## 附加内容\n\n可以放冰箱。", "附带内容"),
        ("请介绍林小月的生平和研究成果。", SINGER, "研究成果"),
        ("请介绍陈大年的生平、研究成果和著作。", "陈大年，福州人，著名商人，1957年起经营食肆和油漆店。", "研究成果"),
        ("请介绍陈大年的生平和著作。", "陈大年，福州人，著名商人，1957年起经营食肆和油漆店。", "著作"),
        ("请介绍陈大年的生平和著作。", "陈大年，福州人，商人，1957年起经营食肆，著有《食肆旧事》。", ""),
        ("猫头鹰是如何工作的？", "猫头鹰夜里捕食，脸盘把声音聚到耳边，翅膀的羽毛柔软。", "如何工作"),
        ("水泵是如何工作的？", "叶轮转起来把水甩向出口，入口处压力便降低。", ""),
        ("该机场的未来规划是什么？", "机场建于1955年，距市区三公里。", "未来规划"),
        (GREENS, "Wash them and boil them for a minute.", "watch out for"),
        (GREENS, "Do not boil them for long.", ""),
        ("Describe the appearance, behavior and reproduction of hermit crabs.", CRABS, "reproduction"),
        ("Describe the appearance and reproduction of hermit crabs.", CRABS + " Females carry the eggs.", ""),
        ("Describe the appearance, habitat and diet of hermit crabs.", CRABS, "diet"),
        ("Describe the early life and legacy of the singer.", "She sang at fairs and drew large crowds.", "early life"),
        ("Describe the early life of the singer.", "The daughter of a miner, she sang at fairs.", ""),
        ("Kubernetes 里 Pod 的 death 状态是什么？", "容器退出以后，平台会重启它。", ""),
        ("Describe the singer's life and awards.", "She lived in Leeds and sang at fairs.", "awards"),
    ],
)  # fmt: skip
def test_an_aspect_is_missed_where_no_word_of_the_text_speaks_of_it(instruction, text, aspect):
    """In simplified and traditional characters and in English."""
    assert asks_beyond(instruction, text) == aspect


def test_a_long_instruction_brings_its_own_material():
    """The words of an exam question's material ask for nothing."""
    assert (
        asks_beyond("阅读下面的材料，回答问题。" + "养殖户在池塘里养鱼，" * 12 + "水为什么变绿？", "藻类太多。") == ""
    )


def test_an_english_instruction_is_long_at_three_times_the_characters():
    """Its letters are three times as many as the characters of the same question in Chinese."""
    english = (
        "Describe hermit crabs, the snails whose empty shells they live in, and the legacy of the crabs for the sea."
    )
    assert asks_beyond(english + " Go into some detail.", CRABS) == "legacy"
    assert asks_beyond(english * 4, CRABS) == ""


def test_label_asks_again_rather_than_beyond_the_text():
    """An instruction that asks for what the text lacks gives way to another; if none is better, the row is dropped."""
    beyond, within = "糖醋汁的注意事项是什么？", "糖醋汁怎么做？请写出材料和步骤。"
    kept = asyncio.run(label.run(row(RECIPE), Scripted([beyond, within])))
    assert kept["instruction"] == within
    with pytest.raises(Drop) as caught:
        asyncio.run(label.run(row(RECIPE), Scripted([beyond])))
    assert (caught.value.reason, caught.value.value) == ("off_text", "注意事项")


def test_an_answer_that_leaves_out_an_aspect_misses_the_question():
    """What the text says of it must be in the answer too."""
    text = RECIPE + "火不要大，否则会糊。"
    pair = row(text, instruction="糖醋汁怎么做？请写出材料、步骤和注意事项。", output=RECIPE.partition("\n\n")[2])
    with pytest.raises(Drop) as caught:
        asyncio.run(verify.run(pair, Scripted([]), model=None))
    assert (caught.value.reason, caught.value.value) == ("off_topic", "注意事项")


@pytest.mark.skipif(not SEEDS, reason="human pairs to measure with are not in a clone")
def test_pairs_of_people_are_spared():
    """At most one in two hundred of any file of human pairs would be dropped for an aspect."""
    for file in SEEDS:
        pairs = [json.loads(line) for line in file.read_bytes().splitlines()]
        missed = [pair for pair in pairs if asks_beyond(pair["instruction"], pair["output"])]
        assert pairs
        assert len(missed) <= len(pairs) / 200, missed[0]["instruction"]
