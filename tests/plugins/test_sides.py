"""An instruction loses the sides that its text says nothing of, and nothing else."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_method import label
from kun_method.aspects import asks_beyond
from kun_method.sides import answerable
from scripted import Scripted, row

TEXT = "凉拌黄瓜用两根黄瓜、蒜末、醋和香油。黄瓜拍碎切段，撒盐腌十分钟，倒掉水，拌入蒜末、醋和香油。"


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ("凉拌黄瓜怎么做？请写出材料、步骤和营养价值。", "凉拌黄瓜怎么做？请写出材料和步骤。"),
        ("请写出凉拌黄瓜的材料、营养价值和步骤。", "请写出凉拌黄瓜的材料和步骤。"),
        ("请介绍凉拌黄瓜的营养价值、材料和步骤。", "请介绍凉拌黄瓜的材料和步骤。"),
        ("凉拌黄瓜的材料、步骤以及营养价值是什么？", "凉拌黄瓜的材料以及步骤是什么？"),
        ("凉拌黄瓜的步骤和营养价值如何？", "凉拌黄瓜的步骤如何？"),
        ("凉拌黄瓜的做法、材料和步骤，以及营养价值。", "凉拌黄瓜的做法、材料和步骤。"),
        ("凉拌黄瓜怎么做？它的营养价值是什么？", "凉拌黄瓜怎么做？"),
        ("凉拌黄瓜怎么做，有哪些营养价值？", "凉拌黄瓜怎么做？"),
        ("凉拌黄瓜的材料、营养价值、历史背景和步骤。", "凉拌黄瓜的材料和步骤。"),
        ("涼拌黃瓜怎麼做？請寫出材料、歷史背景和步驟。", "涼拌黃瓜怎麼做？請寫出材料和步驟。"),
    ],
)
def test_a_side_that_the_text_says_nothing_of_is_taken_out(asked, left):
    """Items of lists, clauses and questions by themselves; the sentence stays one."""
    assert answerable(asked, TEXT) == left


@pytest.mark.parametrize(
    "asked",
    [
        "凉拌黄瓜怎么做？请写出材料和步骤。",
        "凉拌黄瓜的营养价值是什么？",
        "凉拌黄瓜的营养价值从何而来？",
        "黄瓜的营养价值表里有哪些食材和步骤？",
        "请写出凉拌黄瓜的材料、营养价值如何、步骤。",
        "凉拌黄瓜怎么做，黄瓜的营养价值是什么？",
        "凉拌黄瓜的步骤和营养价值高低。",
        "请介绍王二!黄瓜的经历。",
    ],
)
def test_what_does_not_stand_by_itself_stays(asked):
    """Then the instruction is dropped for it, as it stands."""
    assert answerable(asked, TEXT) == asked


CRABS = "Hermit crabs live in empty shells and eat algae. They move into larger shells as they grow."


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ("Describe the habitat, diet and death of hermit crabs.", "Describe the habitat and diet of hermit crabs."),
        ("Describe the habitat, legacy, diet and growth of crabs.", "Describe the habitat, diet and growth of crabs."),
        ("Describe the legacy, habitat and diet of hermit crabs.", "Describe the habitat and diet of hermit crabs."),
        ("Describe hermit crabs' habitat, diet, and legacy.", "Describe hermit crabs' habitat and diet."),
        ("Describe crabs: their growth, home, diet, and legacy.", "Describe crabs: their growth, home, and diet."),
        ("Where do they live, how do they reproduce and how do they grow?", "Where do they live and how do they grow?"),
        ("Where do crabs live and reproduce, and what do they eat?", "Where do crabs live, and what do they eat?"),
        ("Where do crabs live, and how do they reproduce?", "Where do crabs live?"),
        ("Describe the growth of crabs and some of their most famous works.", "Describe the growth of crabs."),
        ("Where do hermit crabs live? How do they reproduce?", "Where do hermit crabs live?"),
    ],
)  # fmt: skip
def test_a_side_is_taken_out_of_an_english_instruction(asked, left):
    """Items, clauses with a question word of their own, further questions; what all sides have in common stays."""
    assert answerable(asked, CRABS) == left


@pytest.mark.parametrize(
    "asked",
    [
        "Where do hermit crabs live and what do they eat?",
        "How do hermit crabs reproduce?",
        "How do hermit crabs reproduce, and where do they live?",
        "Where do crabs live, how do they reproduce in winter, grow and eat?",
        "Describe the homes of crabs, their growth and the death of the crab in the story.",
        "What is the legacy of the crabs? Where do they live?",
    ],
)
def test_what_does_not_stand_by_itself_stays_in_english_too(asked):
    """A first question names the topic; an item with more words than its name is more than a side."""
    assert answerable(asked, CRABS) == asked


NESTS = "For example, otters dig under tree roots and line it with moss. Males mature at three years, females at two."


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        (
            "Where do otters dig, how long do they nurse their babies, and at what age do they mature?",
            "Where do otters dig, and at what age do they mature?",
        ),
        ("Where do otters dig, and how do zoos feed their cubs?", "Where do otters dig?"),
        ("Describe how otters dig, their growth and the awards they won.", "Describe how otters dig and their growth."),
        (
            "Describe how otters dig, their growth, their book and their prey.",
            "Describe how otters dig, their growth and their prey.",
        ),
        ("How do they dig and line it, and how do zoos feed their cubs?", "How do they dig and line it?"),
        (
            "How do they dig, how do they line it, and how do zoos feed cubs?",
            "How do they dig and how do they line it?",
        ),
        ("Where do otters dig, and why do zoos live with their important example?", ""),
        ("Where do otters dig, and how do they protect it?", ""),
        ("Where do otters dig, and how do they line a burrow?", ""),
        ("How do zoos feed their cubs, and where do otters dig?", ""),
        ("Where do otters dig, how do zoos feed cubs, pups and kits?", ""),
    ],
)
def test_a_further_clause_without_one_word_of_the_text_is_taken_out(asked, left):
    """One word of its own may be another name of what the text tells; the first clause names the topic."""
    assert answerable(asked, NESTS) == (left or asked)


SIDES = ["材料", "步骤", "刀工", "口味", "调料", "腌制"]
BEYOND = ["营养价值", "历史背景", "婚姻", "气候", "票房", "研究成果", "获奖"]


@given(
    st.lists(st.sampled_from(SIDES + BEYOND), min_size=2, max_size=7, unique=True).filter(set(SIDES).intersection),
    st.sampled_from(["和", "、", "以及", "，以及"]),
    st.sampled_from(["。", "是什么？", "情况如何？"]),
)
def test_of_any_list_the_sides_of_the_text_remain_in_their_order(sides, last, end):
    """Nothing is lost but what the text does not have, and the instruction is one that it answers."""
    said = [side for side in sides if side not in BEYOND]
    left = answerable(f"请写出凉拌黄瓜的{'、'.join(sides[:-1])}{last}{sides[-1]}{end}", TEXT)
    joined = left.removeprefix("请写出凉拌黄瓜的").removesuffix(end)
    assert joined.replace("，以及", "、").replace("以及", "、").replace("和", "、").split("、") == said
    assert asks_beyond(left, TEXT) == ""


PIECES = [
    *SIDES,
    *BEYOND,
    "、",
    "，",
    ",",
    "和",
    "以及",
    "。",
    "？",
    "!",
    "\n",
    " ",
    "的",
    "请介绍",
    "经历",
    "是什么",
    "荣誉",
    "(",
    "*",
    ", ",
    " and ",
    "how do they reproduce",
    "What is its legacy?",
    "the awards",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_whatever_is_asked_what_is_left_is_part_of_it(asked):
    """Instructions are a model's words: none of them is an error, and none gets any longer."""
    left = answerable(asked, TEXT)
    assert left == asked or len(left) < len(asked)


def test_the_label_is_the_instruction_that_is_left():
    """No further answer of the model is asked for, for a side that can be taken out."""
    generate = Scripted(
        ["话题：凉拌黄瓜\n方面：材料，步骤，营养价值\n问题：凉拌黄瓜怎么做？请写出材料、步骤和营养价值。"]
    )
    kept = asyncio.run(label.run(row(TEXT), generate))
    assert kept["instruction"] == "凉拌黄瓜怎么做？请写出材料和步骤。"
    assert len(generate.asked) == 1
