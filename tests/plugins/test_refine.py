"""Stage `refine`: each defect is found and named, and what people write is left alone."""

import asyncio
import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kun_method import refine
from kun_method.filters import FILTERS
from kun_method.texts import loop
from samples import SEEDS, needs_samples, samples
from scripted import Scripted, row

from kun_builder import Drop, KunError

ROOT = Path(__file__).parents[2]

ASKED = "怎样才能泡好一杯绿茶？"
ANSWER = "泡绿茶要用八十度左右的水，放三克茶叶，等两分钟就可以喝。"

BAD_INSTRUCTIONS = {
    "needs_context": ["图一中红色箭头指的是什么？", "第三十八条规定了哪些权利？", "本条例从什么时候起施行？"],
    "bad_question": ["修改后的宪法第三款为什么？", "什么国家将就国名进行公投？"],
    "refers_to_unseen": [
        "这篇文章主要讲了什么？",
        "请总结这段文字的主要内容。",
        "根据材料，说明作者的观点。",
        "请描述图片中的人物。",
        "如图所示的零件应该怎样安装？",
        "请点击下面的链接查看详细信息。",
        "本文介绍了哪几种方法？",
        "上文提到的三个原因是什么？",
        "文中的“他”指的是谁？",
        "请提取给定文本中的赤潮信息。",
        "请阅读以下材料并回答问题。",
        "作者认为读书有什么好处？",
        "这张照片是在哪里拍的？",
        "请写出这道菜的做法。他为什么要离开家乡？",
        "它有什么用途？",
        "视频中的人在做什么？",
    ],
    "repeats_itself": [
        "怎样泡茶？怎样泡茶？",
        "请介绍一下茶叶请介绍一下茶叶",
        "请问怎么怎么怎么怎么怎么怎么怎么泡茶？",
        "请解释什么是缓存。请解释什么是缓存。请解释什么是缓存。",
    ],
}

BAD_OUTPUTS = {
    "navigates": ["网站的信息包括上一篇、下一篇、返回顶部、关于我们、联系我们。"],
    "advertises": ["全场五折起，先到先得，加微信领券，再送好礼。"],
    "needs_context": ["按照上面的计量放入酱油和油，搅拌均匀就可以吃。", "比赛将于周日在圣地亚哥举行，门票已经售完。"],
    "too_short": ["", "好的。", "不知道"],
    "refuses": [
        "抱歉，我无法回答这个问题。",
        "很抱歉，但作为一个人工智能助手，我不能提供医疗建议。",
        "对不起，我没有找到相关的信息，请换一个问题。",
        "我无法访问外部网站，因此不能告诉您今天的天气。",
        "您没有提供足够的信息，请补充更多细节再提问。",
        "请提供更多的上下文，以便我能更好地回答您的问题。",
        "I'm sorry, but I can't help with that request today.",
    ],
    "speaks_of_itself": [
        "作为一个AI语言模型，我没有个人喜好，不过绿茶很受欢迎。",
        "绿茶有很多种。作为人工智能助手，我建议您咨询专业人士。",
        "我是由某公司开发的大语言模型，可以告诉您绿茶的泡法。",
        "我的训练数据截止到某一年，此后的情况我并不了解。",
        "As an AI language model, I think that green tea is healthy.",
    ],
    "speaks_of_source": [
        "根据您提供的资料，绿茶应该用八十度的水泡两分钟。",
        "根据以上文字，绿茶应该用八十度的水泡两分钟。",
        "这段文字主要介绍了绿茶的泡法，水温应为八十度。",
        "以下是根据要求改写后的回答：绿茶应该用八十度的水泡。",
        "资料：从上述内容可以看出，绿茶的水温应为八十度。",
    ],
    "repeats_itself": [
        "绿茶要用八十度的水泡，好喝好喝好喝好喝好喝好喝好喝。",
        "绿茶有益健康。" + "首先要烧水，然后要放茶叶，" * 6,
        "泡绿茶的水不能太烫。先烧水。泡绿茶的水不能太烫。再放茶叶。泡绿茶的水不能太烫。",
        "第一步烧水。\n" + "第二步放三克茶叶。\n" * 5 + "第三步喝茶。",
    ],
    "copies_instruction": [ASKED, f"{ASKED}\n{ASKED}", "怎样才能泡好一杯绿茶", "“怎样才能泡好一杯绿茶？”"],
    "leaks_template": [
        "泡绿茶要用八十度的水。<|im_end|>",
        "泡绿茶要用八十度的水。\n\n用户：那么红茶呢？\n助手：红茶要用开水。",
        "### Instruction: 怎样泡茶\n### Response: 用八十度的水。",
        "[INST] 怎样泡茶 [/INST] 用八十度的水泡两分钟。",
    ],
    "cut_off": [
        "泡绿茶要用八十度的水，先温杯，再放茶叶，",
        "泡绿茶要注意三点：水温、茶量、",
        "泡绿茶可以用下面的程序计时：\n```python\nimport time",
        "泡绿茶要用八十度的水，茶具有玻璃杯和",
    ],
    "has_gaps": [
        "绿茶的冲泡步骤分别为：多年来人们的做法大致相同。",
        "绿茶又称，是不发酵的茶，用八十度的水泡两分钟。",
    ],
    "other_language": ["Green tea should be brewed with water of about eighty degrees for two minutes."],
}


def run(instruction=ASKED, output=ANSWER, **options):
    generate = Scripted([RuntimeError("refine asks no model")])
    result = asyncio.run(refine.run(row(instruction=instruction, output=output), generate, **options))
    assert not generate.asked
    return result


def dropped(**columns):
    with pytest.raises(Drop) as caught:
        run(**columns)
    return caught.value


def cases(examples):
    return [
        pytest.param(reason, text, id=f"{reason}-{n}")
        for reason, texts in examples.items()
        for n, text in enumerate(texts)
    ]


@pytest.mark.parametrize(("reason", "instruction"), cases(BAD_INSTRUCTIONS))
def test_bad_instructions_are_dropped_for_their_defect(reason, instruction):
    """The drop names the defect and shows the words that it was recognised by."""
    drop = dropped(instruction=instruction, columns=("instruction",))
    assert drop.reason == reason
    assert drop.value


@pytest.mark.parametrize(("reason", "output"), cases(BAD_OUTPUTS))
def test_bad_answers_are_dropped_for_their_defect(reason, output):
    """The drop names the defect and shows the words that it was recognised by."""
    drop = dropped(output=output, columns=("output",))
    assert drop.reason == reason
    assert drop.value


def test_every_filter_has_bad_examples():
    """No filter stands there unproven."""
    tested = {("instruction", reason) for reason in BAD_INSTRUCTIONS} | {("output", reason) for reason in BAD_OUTPUTS}
    assert tested == {(check.column, check.reason) for check in FILTERS}


@pytest.mark.parametrize(
    "instruction",
    [
        "上下文切换是什么意思？",
        "如图书馆这样的公共设施由谁管理？",
        "能用数据库直接存储图片吗？",
        "其他地区有哪些过年的习俗？",
        "什么时候该用缓存？",
        "中文中的“的”字有哪几种用法？",
        "论文中怎样引用别人的观点？",
        "他汀类药物有什么副作用？",
        "怎样给文章写一个好的开头？",
        "如何恢复误删的照片？",
        "请把下面的句子翻译成英文，注意时态和语气都要自然，不要逐字直译，也不要漏掉任何一个词："
        "昨天下午下了一场大雨，我们在路口的茶馆里坐了两个钟头，听老板讲他年轻时候的故事，直到天黑才各自回家，"
        "回到家里才发现把伞忘在了店里，第二天再去取时，老板已经替我们晾干收好了。",
    ],
)
def test_good_instructions_pass(instruction):
    """Words that only look like a reference are none, and a long instruction holds what it speaks of."""
    assert run(instruction=instruction, columns=("instruction",))["instruction"] == instruction


@pytest.mark.parametrize(
    "output",
    [
        "很多人觉得抱歉的话难以说出口，其实说清楚事情的经过就好。",
        "作为一名教师，我认为应当根据学生的情况安排作业。",
        "根据气象资料，当地七月的平均气温是二十六度。",
        "| 列 | 值 |\n| --- | --- |\n| a | 1 |\n| b | 2 |\n| c | 3 |\n\n表中的值越大越好。",
        "哈哈哈哈，这个故事真有意思，讲的是一只猴子去赶集。",
        "```python\nfor i in range(3):\n    print(i)\n```",
    ],
)
def test_good_answers_pass(output):
    """Words that only look like a defect are none."""
    assert run(output=output, columns=("output",))["output"] == output


@pytest.mark.parametrize(
    "leftover",
    [
        "请注意，上述信息可能不是最新的。",
        "请注意，以上内容仅供参考，具体情况请咨询专业医生。",
        "希望这些信息对您有所帮助！",
        "希望以上回答能够帮助到您。如果您有其他问题，请随时告诉我。",
        "如有任何疑问，欢迎随时向我提问！",
        "以上内容仅供参考。",
    ],
)
def test_closing_phrases_are_trimmed(leftover):
    """The answer stays, whatever polite or careful phrases stood behind it."""
    for separator in ("", "\n\n"):
        assert run(output=ANSWER + separator + leftover)["output"] == ANSWER


@pytest.mark.parametrize("again", [ASKED, f"{ASKED}\n\n", "**怎样才能泡好一杯绿茶？**\n"])
def test_the_question_said_again_is_trimmed(again):
    """An answer need not begin with its question; one that merely takes up its words stays as it is."""
    assert run(output=again + ANSWER)["output"] == ANSWER
    assert run(output="泡好一杯绿茶要靠水温。" + ANSWER)["output"] == "泡好一杯绿茶要靠水温。" + ANSWER


def test_an_answer_of_nothing_but_phrases_is_too_short():
    """Trimming comes first, then the filters."""
    assert dropped(output="希望以上回答能够帮助到您。如果您有其他问题，请随时告诉我。").reason == "too_short"


def test_white_space_is_trimmed_and_other_columns_are_kept():
    """Outer white space goes, also before line ends; indentation and empty lines stay."""
    result = run(
        instruction=f" {ASKED}\n", output="先烧水：  \n\n    八十度就好。\t\n", columns=("instruction", "output")
    )
    assert (result["instruction"], result["output"]) == (ASKED, "先烧水：\n\n    八十度就好。")
    assert result["id"] == "s/f.jsonl:0"


def test_only_the_chosen_columns_are_checked():
    """`columns` tells where to look, so that instructions can be checked before the stages that cost."""
    assert run(output="好的。", columns=("instruction",))["output"] == "好的。"
    assert run(instruction="这篇文章讲了什么？", columns=("output",))["output"] == ANSWER
    before_polish = asyncio.run(refine.run(row(instruction=ASKED), Scripted([""]), columns=("instruction",)))
    assert before_polish["instruction"] == ASKED


def test_a_missing_column_is_a_mistake_of_the_recipe():
    """It ends the run with the cure instead of dropping every row."""
    with pytest.raises(KunError, match="`output`") as caught:
        asyncio.run(refine.run(row(instruction=ASKED), Scripted([""])))
    assert "columns: [instruction]" in caught.value.hint


@given(st.text(alphabet="好茶水a1，\n", min_size=1, max_size=60), st.integers(4, 12), st.text(max_size=30))
@settings(deadline=None)
def test_a_loop_is_found_wherever_it_stands(unit, times, before):
    """Any piece with words in it that is repeated often enough is found, behind any beginning."""
    long_enough = len(unit) * times >= 12 and any("\u4e00" <= c <= "\u9fff" for c in unit)
    if long_enough:
        assert loop(before + unit * times)


@pytest.mark.slow
@needs_samples
def test_no_filter_drops_more_than_two_percent_of_what_people_write():
    """At the default settings, over 2,500 pairs of exams, recipes and programming, and within each of the three."""
    path = ROOT / "benchmarks" / "refine_false_drops.py"
    spec = importlib.util.spec_from_file_location("refine_false_drops", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    rates = benchmark.measure({path.stem: benchmark.read(path) for path in samples(SEEDS, "*.jsonl")})
    for check, by_file in rates.items():
        exempt = {"gaokao_subjective"} if check == "form: not_a_request" else set()  # exams end in the gap to be filled
        assert {file: rate for file, rate in by_file.items() if rate > 0.02 and file not in exempt} == {}, check
