"""Stage `verify`: a pair is kept only where instruction, answer and text fit together, or the reason is told."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_method import verify
from kun_method.context import answer_needs_text, no_question, question_needs_text
from kun_method.pairs import (
    coverage,
    echo,
    explains,
    grams,
    invented,
    novelty,
    support,
    turned_negation,
    weakest_clause,
)
from kun_method.raw import as_answer, without_tail, without_title
from scripted import Scripted, judged, row

from kun_builder import Completion, Drop, KunError

TEXT = (
    "蝙蝠飞行时从喉部发出频率很高的声波，人耳听不见。声波碰到昆虫或树枝会反射回来，蝙蝠用耳朵接收回声，"
    "根据回声的快慢和强弱判断物体的远近、大小和方向。这种本领叫回声定位，精度可以达到 1 毫米。"
)
QUESTION = "蝙蝠在黑暗里怎样辨别方向？"
ANSWER = (
    "蝙蝠飞行时从喉部发出频率很高的声波，声波碰到昆虫或树枝会反射回来，蝙蝠用耳朵接收回声，"
    "根据回声的快慢和强弱判断物体的远近、大小和方向。"
)


def run(output=ANSWER, question=QUESTION, text=TEXT, judgement=0.99, **options):
    generate = Scripted([judged(judgement)] * 2)
    pair = row(text, instruction=question, output=output)
    return asyncio.run(verify.run(pair, generate, **options)), generate


def dropped(*args, **options):
    with pytest.raises(Drop) as caught:
        run(*args, **options)
    return caught.value


def test_a_good_pair_goes_on_with_its_measures():
    """The row gets the three shares and the model's judgement, for one request of one token."""
    kept, generate = run()
    assert kept["output"] == ANSWER
    assert kept["support"] == 1
    assert kept["novelty"] > 0.8
    assert 0.5 < kept["coverage"] < 1
    assert kept["pair_score"] == pytest.approx(0.99)
    assert len(generate.asked) == 1
    assert generate.asked[0][2]["max_new_tokens"] == 1


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("says_nothing", {"question": "蝙蝠怎样利用回声判断方向？", "output": "蝙蝠利用回声判断方向。"}),
        ("loses_text", {"output": "蝙蝠用耳朵接收回声。", "least_coverage": 0.2}),
        ("invented", {"output": ANSWER + "精度可以达到 5000 赫兹。"}),
        ("invented", {"output": ANSWER + "这种本领也叫“声呐导航”。"}),
        ("invented", {"output": ANSWER + "英文是 echolocation。"}),
        ("contradicts", {"output": ANSWER.replace("会反射回来", "不会反射回来")}),
        (
            "unsupported",
            {"output": "蝙蝠的祖先在黑夜里捕食，进化出灵敏的触觉，翅膀能感受气流的变化，所以不会撞上墙壁。"},
        ),
        (
            "off_topic",
            {
                "question": "蝙蝠为什么能辨别方向？",
                "output": "蝙蝠判断物体的远近、大小和方向。声波频率很高，人耳听不见。",
            },
        ),
        ("unsupported", {"output": ANSWER + "成年雄性每天要睡二十个小时。"}),
        ("needs_context", {"question": "图一中红色箭头指的是什么？"}),
        ("needs_context", {"question": "第三十八条规定了什么？"}),
        ("needs_context", {"question": "本条例从什么时候起施行？"}),
        ("bad_question", {"question": "修改后的宪法第一百零三条第三款为什么？"}),
        ("bad_question", {"question": "什么动物将用回声辨别方向？"}),
        ("off_topic", {"question": "蝙蝠的回声定位有哪些优点和缺点？"}),
        ("low_pair_score", {"judgement": 0.8}),
    ],
)
def test_each_defect_has_its_own_reason(reason, changes):
    """A pair with one thing wrong is dropped for that, with what was seen and the measures."""
    drop = dropped(**changes)
    assert drop.reason == reason
    assert drop.value


def test_no_model_is_asked_about_a_pair_that_is_dropped_anyway():
    """The cheap checks come first; without a model they are all."""
    generate = Scripted([])
    with pytest.raises(Drop):
        asyncio.run(verify.run(row(TEXT, instruction=QUESTION, output="用回声。" * 3), generate, least_coverage=0.2))
    kept = asyncio.run(verify.run(row(TEXT, instruction=QUESTION, output=ANSWER), generate, model=None))
    assert generate.asked == []
    assert kept["pair_score"] is None


def test_the_text_takes_the_place_of_a_failed_answer_where_it_reads_as_one():
    """With `on_fail: raw` a text that stands alone saves the pair; one that speaks of itself does not."""
    kept, _ = run("蝙蝠有 900 多种。", on_fail="raw")
    assert kept["output"] == TEXT
    assert kept["coverage"] == 1
    with pytest.raises(Drop):
        run("蝙蝠有 900 多种。", text=TEXT + "更多内容请点击链接。", on_fail="raw")


def test_a_failed_answer_is_repaired_once_with_the_finding():
    """With `on_fail: repair` the model is told what was wrong; its new answer is judged like any other."""
    generate = Scripted([ANSWER, judged(0.99)])
    pair = row(TEXT, instruction=QUESTION, output="蝙蝠有 900 多种，祖先住在山洞。")
    kept = asyncio.run(verify.run(pair, generate, on_fail="repair"))
    assert kept["output"] == ANSWER
    assert "资料没有的数字或名称" in generate.asked[0][1][-1]["content"]
    with pytest.raises(Drop) as caught:
        asyncio.run(verify.run(pair, Scripted(["还是 900 多种，祖先住在山洞。"]), on_fail="repair"))
    assert caught.value.reason == "invented"
    with pytest.raises(Drop):
        asyncio.run(verify.run(pair, Scripted([Completion(ANSWER, finish_reason="length")]), on_fail="repair"))


def test_a_row_without_an_answer_is_a_mistake_of_the_recipe():
    """The error names the missing column and the cure."""
    with pytest.raises(KunError, match="output"):
        asyncio.run(verify.run(row(TEXT, instruction=QUESTION), Scripted([])))


@pytest.mark.parametrize(
    "question",
    [
        "日本的国土面积有多大？",
        "《民法典》第三条保护哪些权利？",
        "应该怎样保存茶叶？",
        "如果一个类没有构造方法，该程序能运行吗？",
        "什么是光合作用？",
        "地图上怎样表示山的高低？",
        "本科生可以报考哪些岗位？",
        "这样做有什么好处？",
    ],
)
def test_sound_questions_pass(question):
    """Words that only contain 本 or 该, and articles of a law that is named, lean on nothing."""
    assert not question_needs_text(question)
    assert not no_question(question)


def test_an_answer_points_at_nothing_above_it():
    """按照上面的计量 needs a list that is not there; a weekday without a date needs the newspaper."""
    assert answer_needs_text("将面放入碗中，按照上面的计量放入酱油。")
    assert answer_needs_text("首秀将于周日在圣地亚哥进行。")
    assert not answer_needs_text("将面放入碗中，放入十克酱油。")
    assert not answer_needs_text("比赛于 2018 年 9 月 30 日周日举行。")


def test_the_weakest_clause_is_found_wherever_it_stands():
    """Average support hides a sentence of the model's own; words that only lead on to a list are none."""
    share, clause = weakest_clause("具体的操作步骤如下：" + ANSWER + "它们还会定期迁徙到南方。", TEXT, QUESTION)
    assert share < 0.2
    assert clause == "它们还会定期迁徙到南方"
    assert weakest_clause(ANSWER, TEXT, QUESTION)[0] == 1
    assert weakest_clause("Bats fly far every single night.", TEXT) == (1.0, "")


CRABS = (
    "Hermit crabs have a soft, coiled abdomen, which they hide in the empty shells of sea snails. As they grow they "
    "must move into larger shells, and examine each new one with their claws."
)


@pytest.mark.parametrize(
    ("answer", "clause"),
    [
        (
            "Hermit crabs are small, marine animals that live in the ocean. " + CRABS,
            "marine animals that live in the ocean",
        ),
        (
            "Hermit crabs hide their soft abdomen in empty shells of sea snails, and move to larger ones as they grow.",
            "",
        ),
        ("Here are the steps that you need to follow:\n\n" + CRABS, ""),
    ],
)
def test_a_clause_of_the_models_own_shows_in_english_too(answer, clause):
    """Words in place of characters; what rewords the text or leads on to it stays."""
    share, found = weakest_clause(answer, CRABS, "How do hermit crabs live?")
    assert (found if share < 0.35 else "") == clause


def test_numbers_of_lists_are_not_invented():
    """A list's marks and a numeral written as a digit are no inventions."""
    assert not invented("1. 取三勺糖。\n2. 加水 500 毫升。\n3）搅拌 5 分钟。", "取三勺糖，加水 500 毫升，搅拌五分钟。")


def test_an_explanation_names_reasons():
    """The reasons must be more than those that the question has already."""
    assert explains("因为盐分随河水入海，海水又不断蒸发。", "海水为什么是咸的？")
    assert not explains("海水很咸，约含百分之三点五的盐。", "海水为什么是咸的？")
    assert explains("海水很咸。", "海水咸吗？")
    assert explains("Rivers carry salt into the sea, and only water leaves it.", "Why is the sea salty?")


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        (TEXT, True),
        ("材料：茶叶三克。\n\n1. 温杯\n2. 冲水后等两分钟", True),
        ("这种本领叫回声定位，精度很高。", False),
        ("蝙蝠会飞，因为", False),
        ("我小时候见过蝙蝠，它们住在屋檐下。", False),
        ("蝙蝠会飞。详见 https://example.org 。", False),
        ("However, some bats cannot hear their own calls.", False),
        ("Most species hunt at night, by their own echo.", False),
        ("Most bats hunt at night, by their own echo.", True),
        ("The species is found in caves all over the island.", False),
        ("The river bat is found in caves all over the island.", True),
        ("It is the only mammal that flies.", False),
        ("It is known that bats hear their own calls.", True),
        ("Second, put the bat back into its cave.", False),
        ("Second bats are rare in these caves.", True),
        ("然后，把它放回洞里。", False),
        ("Hippos spend the day in water.", True),
    ],
)
def test_only_a_whole_text_about_its_matter_stands_as_an_answer(text, stands):
    """Fragments, first persons, links and texts that begin in the middle do not read as answers."""
    assert bool(as_answer(text)) is stands


def test_a_heading_is_no_part_of_the_answer():
    """The title above a text names it; the answer begins below."""
    assert as_answer("蝙蝠怎样辨别方向\n" + TEXT) == TEXT
    assert as_answer("# 蝙蝠\n\n" + TEXT) == TEXT
    assert as_answer(TEXT + "\n\n## 附加内容\n\n- [录像](https://example.org/a)\n") == TEXT
    assert as_answer(TEXT) == TEXT


def test_a_copied_heading_begins_no_answer():
    """The heading of the text goes, one that the answer has written itself stays."""
    text = "# 蝙蝠\n\n" + TEXT
    assert without_title(text, text) == TEXT
    assert without_title("## 怎样辨别\n\n" + TEXT, text) == "## 怎样辨别\n\n" + TEXT
    assert without_title("# 蝙蝠", text) == "# 蝙蝠"
    assert without_title("# 蝙蝠的习性\n\n" + TEXT, text) == "# 蝙蝠的习性\n\n" + TEXT
    assert without_title(TEXT, TEXT) == TEXT


def test_links_and_headings_above_nothing_end_no_answer():
    """Be they in a list, or behind a label of their own; what is nothing else stays as it is."""
    links = "\n\n## 附加内容\n\n- 参考资料：[录像](https://example.org/a)\n"
    assert without_tail(TEXT + links) == as_answer(TEXT + links) == TEXT
    assert without_tail("## 附加内容") == "## 附加内容"
    assert without_tail(TEXT) == TEXT


@pytest.mark.parametrize("pointer", ["For examples, see echolocation in whales.", "(See also the list of bats.)"])
def test_no_answer_ends_with_where_there_is_more(pointer):
    """The reader of an answer has no other page; a sentence that says something besides stays."""
    said = "Bats find their way by the echo of their calls."
    assert without_tail(f"{said} {pointer}") == as_answer(f"{said} {pointer}") == said
    assert without_tail(pointer) == pointer
    cure = f"{said} If one has bitten you, see a doctor at once."
    assert without_tail(cure) == as_answer(cure) == cure


def test_an_answer_does_not_end_with_its_question():
    """它影响深远 behind a question for the influence says nothing, unless the text says so too."""
    question, last = "茶马古道对后来的商业产生了什么影响？", "茶马古道对后来的商业产生了深远的影响。"
    assert echo(TEXT + last, question, TEXT) == last
    assert verify.about_answer(question, TEXT + last, TEXT) == ("unsupported", last)
    assert not echo(TEXT + last, question, TEXT + last)
    assert not echo(last, question, TEXT)


words = st.text(alphabet="茶水温杯度 abc12，。", min_size=1, max_size=60)


@given(words, words)
def test_measures_are_shares(one, other):
    """Every measure lies between 0 and 1, and a text supports and covers itself wholly."""
    for value in (support(one, other), novelty(one, other), coverage(one, other)):
        assert 0 <= value <= 1
    assert support(one, one) == coverage(one, one) == 1
    assert not invented(one, one)
    assert not turned_negation(one, one)
    assert novelty(one, one) == 0


@given(words)
def test_grams_do_not_depend_on_punctuation_at_the_ends(text):
    """Marks around a text add no gram."""
    assert grams(f"。{text}！") == grams(text)
