"""Stage `polish`: the text becomes an answer, within the model's context."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kun_method import polish
from kun_method.fitting import answer_room, fit
from kun_method.pairs import coverage, touched_up
from kun_method.substance import substance
from kun_method.texts import sentence_ends
from scripted import Scripted, row, verdict

from kun_builder import Completion, Drop

TEXT = "泡绿茶的水不要太烫。八十度左右最好！冲水后等两分钟。"
QUESTION = "怎样泡绿茶？"


def run(generate, text=TEXT, instruction=QUESTION, **options):
    return asyncio.run(polish.run(row(text, instruction=instruction), generate, **options))


def dropped(generate, **columns):
    with pytest.raises(Drop) as caught:
        run(generate, **columns)
    return caught.value


def test_keeps_the_raw_answer_beside_the_polished_one():
    """The model sees instruction and text; the row gets its answer and the text that it was given."""
    generate = Scripted(["回答：用八十度的水泡两分钟。\n"])
    answer = {"output": "用八十度的水泡两分钟。", "raw_answer": TEXT, "polished": True}
    assert run(generate) == row(TEXT, instruction=QUESTION, **answer, **substance(answer["output"], TEXT))
    model, prompt, _ = generate.asked[0]
    assert model == "chat"
    assert QUESTION in prompt[-1]["content"]
    assert TEXT in prompt[-1]["content"]


def test_the_heading_of_the_text_is_no_part_of_the_answer():
    """Small models copy it; the question names the topic already."""
    text = "# 泡绿茶\n\n" + TEXT * 2
    assert run(Scripted([text]), text=text)["output"] == TEXT * 2


def test_the_head_of_the_prompt_is_the_same_for_all_rows():
    """What differs from row to row stands behind what does not, so that servers can reuse the beginning."""
    one, other = Scripted(["好茶"]), Scripted(["好茶"])
    run(one)
    run(other, text="月食发生在满月的夜晚。", instruction="什么是月食？")
    assert one.asked[0][1][0] == other.asked[0][1][0]
    assert one.asked[0][1][0]["role"] == "system"


def test_the_text_is_cut_and_the_instruction_never():
    """Under a small context the text loses whole sentences at its end."""
    generate = Scripted(["好茶"], context_length=500)
    result = run(generate, text=TEXT * 30, max_new_tokens=200)
    content = generate.asked[0][1][-1]["content"]
    assert QUESTION in content
    assert result["raw_answer"] in content
    assert (TEXT * 30).startswith(result["raw_answer"])
    assert result["raw_answer"][-1] in "。！"
    assert sum(len(m["content"]) for m in generate.asked[0][1]) + 200 <= 500
    assert result["text"] == TEXT * 30


def test_an_instruction_that_fills_the_context_is_told():
    """It is neither cut nor sent."""
    generate = Scripted(["好茶"], context_length=500)
    assert dropped(generate, instruction="请问" * 300).reason == "prompt_too_long"
    assert not generate.asked


def test_short_texts_cost_no_counting():
    """Where even one token per byte would fit, the tokenizer is not asked."""
    generate = Scripted(["好茶"])
    run(generate)
    assert generate.counted == 0


def test_an_unknown_context_cuts_nothing():
    """A server that does not tell its context length gets the whole text."""
    assert run(Scripted(["好茶"], context_length=0), text=TEXT * 500)["raw_answer"] == TEXT * 500


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("  \n", "empty"),
        (Completion("用八十度的水，", finish_reason="length", completion_tokens=1024), "truncated"),
        ("资料里的事实、数字、名称和步骤都保留。绿茶用八十度的水。", "prompt_leak"),
    ],
)
def test_useless_answers_are_dropped_with_what_was_seen(answer, reason):
    """Each has its own reason, and the text that was given stays in the row."""
    drop = dropped(Scripted([answer]))
    assert drop.reason == reason
    assert drop.added["raw_answer"] == TEXT


def test_a_truncated_answer_tells_how_long_it_was():
    """The value is the number of tokens."""
    completion = Completion("用八十度的水，", finish_reason="length", completion_tokens=1024)
    assert verdict(dropped(Scripted([completion]))) == ("truncated", "1024")


@pytest.mark.parametrize(("context", "expected"), [(0, 1024), (8192, 1024), (1024, 512), (64, 32)])
def test_the_answer_gets_at_most_half_of_the_context(context, expected):
    """No context is so small that the room for text is negative because of the answer alone."""
    assert answer_room(Scripted(["x"], context_length=context), "chat", 1024) == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(["水很热。", "Tea is hot. ", "好！", "他说：“走吧。”", "一行\n", "没有句号"]), max_size=60
    ),
    st.integers(1, 900),
    st.integers(1, 2000),
)
def test_whatever_fits_is_a_beginning_that_ends_with_a_sentence(parts, context, max_new_tokens):
    """For any text, context and wish: the request fits, or the row is dropped."""
    text = "".join(parts)
    generate = Scripted(["x"], context_length=context)
    room = answer_room(generate, "chat", max_new_tokens)
    try:
        kept = asyncio.run(fit(generate, "chat", polish.PROMPT, text, room, instruction=QUESTION))
    except Drop:
        return
    assert text.startswith(kept)
    filled = polish.PROMPT.fill(text=kept, instruction=QUESTION)
    assert kept == text or sum(len(m["content"]) for m in filled) + room <= context
    assert kept == text or len(kept) in {len(text[:end].rstrip()) for end in sentence_ends(text)}


def test_kun_asks_for_a_free_rewriting():
    """`whole: false` takes Kun's prompt; the default one asks to keep what the text says."""
    for options, expected in (({}, polish.PROMPT), ({"whole": False}, polish.KUN)):
        generate = Scripted(["用八十度的水泡两分钟。"])
        run(generate, **options)
        assert generate.asked[0][1] == expected.fill(instruction=QUESTION, text=TEXT)


@pytest.mark.parametrize(
    ("answer", "tidy"),
    [
        ("叶乔波（），吉林长春人。", "叶乔波，吉林长春人。"),
        ("矢井田瞳（、）是日本歌手。", "矢井田瞳是日本歌手。"),
        ("他（Jakob Kellenberger，）生于瑞士。", "他（Jakob Kellenberger）生于瑞士。"),
        ("怡良（；字悦亭），满洲正红旗人。", "怡良（字悦亭），满洲正红旗人。"),
        ("函数 f() 有两个参数（a，b）。", "函数 f() 有两个参数（a，b）。"),
        ("组合“晨星”()有三人，，都住在伦敦。。", "组合“晨星”()有三人，都住在伦敦。"),
        (
            "猴面包树（学名：），又名-{zh-hant:猴麵包樹;zh-hans:猢狲树}-，是落叶乔木。",
            "猴面包树，又名猢狲树，是落叶乔木。",
        ),
        ("香港杜鹃 （学名：' ，英文：'），长约30{zh-cn:厘米; zh-hk:公分}。", "香港杜鹃，长约30厘米。"),
        ("公式里有 $e^{-{x}-1}$ 和 $a-{b}-c$。", "公式里有 $e^{-{x}-1}$ 和 $a-{b}-c$。"),
        ("甘地（印地语：；英文：Gandhi）是-{政治人物}-。", "甘地（英文：Gandhi）是政治人物。"),
        ("男孩组合()生产电脑、、手机，。等等。。。", "男孩组合生产电脑、手机。等等。。。"),
    ],
)
def test_brackets_of_templates_that_were_cut_out_do_not_stay(answer, tidy):
    """Wikis put readings and ticker symbols into templates; what cutting them leaves is no part of an answer."""
    assert run(Scripted([answer]))["output"] == tidy


def test_of_several_answers_the_soundest_goes_on():
    """One without a finding of the cheap checks, and of those the one that keeps most; the first is as it is alone."""
    generate = Scripted(["用八十度的水。", TEXT + "水温要 95 度。", "泡绿茶，水八十度左右最好，冲水后等两分钟。", ""])
    assert run(generate, candidates=4)["output"] == "泡绿茶，水八十度左右最好，冲水后等两分钟。"
    asked = [parameters for _, _, parameters in generate.asked]
    assert (asked[0]["temperature"], "seed" in asked[0]) == (0.0, False)
    assert [parameters["temperature"] for parameters in asked[1:]] == [0.7] * 3
    assert len({parameters["seed"] for parameters in asked[1:]}) == 3
    assert len({str(prompt) for _, prompt, _ in generate.asked}) == 1


def test_when_all_answers_are_useless_the_row_is_dropped_for_one():
    """Several candidates do not hide what is wrong."""
    assert dropped(Scripted([""]), candidates=2).reason == "empty"


LONG = "泡绿茶的水不要太烫，八十度左右最好。先用热水温杯，再放三克茶叶，冲水后等两分钟，就可以倒出来喝。"
CRUMB = "用八十度的水。"
INVENTS = LONG + "绿茶富含多种维生素，能够延缓衰老。"
DATED = "泡绿茶的水不要太烫，80度左右最好。先用热水温杯，再放3克茶叶，冲水后等120秒，就可以倒出来喝。"
ROUGHLY = "泡绿茶的水不要太烫，80度左右最好。先用热水温杯，再放茶叶，冲水后等一等，就可以倒出来喝。"


def opened(answer, text=LONG, **options):
    generate = Scripted([answer])
    return asyncio.run(polish.run(row(text, instruction=QUESTION, redistributable=True), generate, **options))


@pytest.mark.parametrize("answer", [CRUMB, INVENTS, "", Completion(LONG[:30], finish_reason="length")])
def test_the_text_takes_the_place_of_an_answer_that_loses_or_invents(answer):
    """What a small model leaves out, adds or does not finish: the text itself is the better answer, and is marked."""
    kept = opened(answer)
    assert (kept["output"], kept["raw_answer"], kept["polished"]) == (LONG, LONG, False)


@pytest.mark.parametrize(
    ("answer", "text", "options"),
    [
        ("泡绿茶时，先用热水温杯，再放三克茶叶，冲八十度左右的水，水不要太烫，等两分钟就可以倒出来喝。", LONG, {}),
        ("用热水温杯，放三克茶叶，冲八十度左右的水，等两分钟就可以倒出来喝。水不要太烫。", LONG, {"least_kept": 0.7}),
        (CRUMB, LONG, {"least_kept": 0}),
        (CRUMB, LONG, {"whole": False}),
        (CRUMB, LONG + "详见 https://example.org 。", {}),
    ],
)
def test_an_answer_stands_that_keeps_the_text_or_cannot_be_replaced(answer, text, options):
    """Rewording is what polishing is for; a text that does not read as an answer takes nobody's place."""
    kept = opened(answer, text, **options)
    assert (kept["output"], kept["polished"]) == (answer, True)


def test_an_answer_that_loses_numbers_gives_way_although_it_keeps_the_words():
    """Amounts and dates are what a reader comes for."""
    assert coverage(ROUGHLY, DATED) >= 0.8
    assert opened(ROUGHLY, DATED)["output"] == DATED
    assert opened(DATED.replace("就可以", "便可"), DATED, touch_ups=True)["polished"]


def test_an_answer_that_changes_numbers_about_gives_way():
    """All words and numbers are still there, and two of them stand for each other."""
    text = LONG + "绿茶的水温以80度最好，红茶的水温以95度最好。"
    swapped = LONG + "绿茶的水温以95度最好，红茶的水温以80度最好。"
    assert opened(swapped, text)["output"] == text


PEOPLE = "孙坚是吴郡富春人，曾任长沙太守。他带兵讨伐董卓，后来在岘山中箭身亡。他的长子孙策接过旧部，渡江平定江东。"


@pytest.mark.parametrize(
    "answer",
    [
        PEOPLE.replace("孙坚是吴郡富春人", "吴郡富春人"),  # who it is about is lost
        PEOPLE.replace("后来在岘山中箭身亡。他的长子孙策接过", "后来他的长子孙策接过"),  # two clauses became one
        PEOPLE.replace("他的长子", "他的次子兼长子"),
    ],
)
def test_an_answer_that_copies_the_text_but_for_a_clause_gives_way(answer):
    """All that such an answer can do is harm, unless the model is trusted with it."""
    assert opened(answer, PEOPLE)["output"] == PEOPLE
    assert opened(answer, PEOPLE, touch_ups=True)["output"] == answer


def test_a_copied_clause_counts_although_the_question_has_it_too():
    """Three clauses of five are the text's."""
    text = "Crabs line up by size. The largest moves first. The next one takes its shell, and so on."
    answer = "Crabs queue. The biggest starts. The largest moves first. The next one takes its shell, and so on."
    assert touched_up(answer, text, "Why is it that the largest moves first?") == "Crabs queue"


@pytest.mark.parametrize(
    "answer",
    [
        "泡绿茶的步骤如下：\n" + LONG,  # leads on
        "怎样泡绿茶？" + LONG,  # asks again
        LONG.replace("。先", "。\n1. 先").replace("，再", "；\n2. 再"),  # other marks
        "水別太燙，八十度左右就行。溫杯用熱水，茶葉放三克，沖水後再等兩分鐘，便可倒出來喝。",  # other words
    ],
)
def test_layout_and_other_words_throughout_are_not_touch_ups(answer):
    """Lists, leads and real rewriting are what polishing is for."""
    assert touched_up(answer, LONG, QUESTION) == ""


def test_the_model_is_not_given_a_sentence_that_breaks_off():
    """What a corpus has cut off stands in no answer; Kun's way, the text is given as it is."""
    assert opened(CRUMB, LONG + "红茶则")["output"] == LONG
    assert opened(CRUMB, LONG + "红茶则", whole=False)["raw_answer"] == LONG + "红茶则"


def test_a_text_that_may_not_be_passed_on_is_no_answer():
    """It takes the place of no answer, whatever that is like."""
    assert run(Scripted([CRUMB]), text=LONG)["output"] == CRUMB
    assert verdict(dropped(Scripted([Completion(LONG[:9], finish_reason="length")]), text=LONG))[0] == "truncated"
