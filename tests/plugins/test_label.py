"""Stage `label`: a text becomes the instruction that it answers, or the reason why not is told."""

import asyncio
import json

import pytest
from kun_method import label
from kun_method.fitting import seed_of
from kun_method.form import defect, is_request, tidy
from scripted import Scripted, row

from kun_builder import Completion, Drop, KunError, Prompt

TEA = "泡绿茶的水不要太烫，八十度左右最好。先用热水温杯，再放三克茶叶，冲水后等两分钟，就可以倒出来喝。"
QUESTION = "怎样才能泡好一杯绿茶？"


def run(generate, text=TEA, **options):
    return asyncio.run(label.run(row(text), generate, **options))


def dropped(answers, text=TEA, **options):
    generate = Scripted(answers)
    with pytest.raises(Drop) as caught:
        run(generate, text, **options)
    return caught.value, generate


def test_adds_the_instruction():
    """The row keeps its columns and gets the instruction; the text stands in the last message of the prompt."""
    generate = Scripted([QUESTION])
    assert run(generate) == row(TEA, instruction=QUESTION)
    model, prompt, parameters = generate.asked[0]
    assert model == "chat"
    assert prompt[-1]["role"] == "user"
    assert TEA in prompt[-1]["content"]
    assert TEA not in prompt[0]["content"]
    assert parameters["temperature"] == 0.5


def test_a_completion_model_gets_the_completion_prompt():
    """A model that is not a chat model is asked with a plain string."""
    generate = Scripted([QUESTION], prompt="completion")
    run(generate)
    assert generate.asked[0][1] == label.COMPLETION.fill(text=TEA)
    assert isinstance(generate.asked[0][1], str)


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_prompts_can_be_replaced(style):
    """The recipe's prompt is the one that the model sees."""
    generate = Scripted([QUESTION], prompt=style)
    run(generate, chat_prompt=Prompt("[user]\n问：{text}\n"), completion_prompt=Prompt("答：{text}\n问：\n"))
    expected = ({"role": "user", "content": f"问：{TEA}"},) if style == "chat" else f"答：{TEA}\n问："
    assert generate.asked[0][1] == expected


def test_seeds_follow_from_the_row_and_the_attempt():
    """The same row is asked with the same seed in every run; another attempt or row has another."""
    first, second = Scripted(["泡茶", QUESTION]), Scripted(["泡茶", QUESTION])
    run(first)
    run(second)
    seeds = [parameters["seed"] for _, _, parameters in first.asked]
    assert seeds == [parameters["seed"] for _, _, parameters in second.asked]
    assert len(set(seeds)) == 2
    assert seed_of("s/f.jsonl:1", 0) not in seeds
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_asks_again_for_a_better_form():
    """An answer that is no instruction is asked for once more, and only once."""
    generate = Scripted(["绿茶要用八十度左右的水。", QUESTION])
    assert run(generate)["instruction"] == QUESTION
    drop, generate = dropped(["绿茶要用八十度左右的水。"])
    assert (drop.reason, len(generate.asked)) == ("not_a_request", 2)
    assert len(dropped(["绿茶要用八十度左右的水。"], attempts=1)[1].asked) == 1


def test_greedy_answers_are_not_asked_for_again():
    """Without sampling, the same question would get the same answer."""
    assert len(dropped(["绿茶要用八十度左右的水。"], temperature=0.0, attempts=3)[1].asked) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        ("“”", "empty"),
        ("泡茶", "too_short"),
        (Completion("怎样才能泡好一杯绿茶，水温要", finish_reason="length"), "truncated"),
        ("How do you make a good cup of green tea?", "wrong_language"),
        ("你写一个中文问题，使整段文字正好是回答", "prompt_leak"),
        ("绿茶怎么泡？水温多少？茶叶放几克？", "several_requests"),
        ("请介绍绿茶的产地、品种、采摘、炒制、冲泡和功效。", "several_requests"),
        ("先用热水温杯，再放三克茶叶，冲水后等两分钟，就可以倒出来喝？", "copies_text"),
        ("绿茶要用八十度左右的水来泡。", "not_a_request"),
        ("绿茶的正确冲泡", "not_a_request"),
    ],
)
def test_each_defect_of_form_has_its_reason(answer, reason):
    """What is no instruction is dropped for the defect that it has, and kept in `instruction` to be looked at."""
    drop, _ = dropped([answer])
    text = answer if isinstance(answer, str) else answer.text
    assert drop.reason == reason
    assert drop.added == {"instruction": tidy(text)}


def test_a_text_beyond_the_context_is_read_up_to_a_sentence_end():
    """The prompt fits into the context, and the text that it holds ends with a whole sentence."""
    text = TEA * 60
    generate = Scripted([QUESTION], context_length=1600)
    assert run(generate, text, max_new_tokens=100)["text"] == text
    content = "\n".join(message["content"] for message in generate.asked[0][1])
    assert len(content) <= 1600 - 100
    shown = label.CHAT.fill(text="\0")[-1]["content"].split("\0")
    shown_text = generate.asked[0][1][-1]["content"][len(shown[0]) : -len(shown[1]) or None]
    assert text.startswith(shown_text)
    assert shown_text.endswith("。")


def test_a_single_endless_sentence_is_dropped():
    """A text without a sentence end within the context is not cut in the middle of a sentence."""
    drop, generate = dropped([QUESTION], "茶" * 5000)
    assert drop.reason == "text_too_long"
    assert int(drop.value) > 5000
    assert not generate.asked


def test_errors_of_the_model_pass_through():
    """What a stage cannot handle is not hidden by it."""
    with pytest.raises(RuntimeError, match="down"):
        run(Scripted([RuntimeError("down")]))


@pytest.mark.parametrize(
    ("answer", "instruction"),
    [
        ("  指令：请解释什么是缓存。 \n", "请解释什么是缓存。"),
        ("请回答以下指令：徐夫人是谁？", "徐夫人是谁？"),
        ("“怎样泡茶？”", "怎样泡茶？"),
        ("问题：**什么是图？**", "什么是图？"),
        ("1. 怎样泡茶？", "怎样泡茶？"),
        ("“图”是什么？“树”又是什么？", "“图”是什么？“树”又是什么？"),
        ("请改写：\n他来了。  \n她走了。", "请改写：\n他来了。\n她走了。"),
        ("1.5 米等于多少厘米？", "1.5 米等于多少厘米？"),
    ],
)
def test_answers_are_tidied(answer, instruction):
    """Labels, quotation and list marks around an instruction go; those inside stay."""
    assert tidy(answer) == instruction


@pytest.mark.parametrize(
    "instruction",
    [
        "怎样才能泡好一杯绿茶？",
        "请告诉我红烧鲤鱼的做法。",
        "介绍一下活字印刷",
        "用一句话解释什么是缓存。",
        "说说自己对于 Spring MVC 了解",
        "Java 线程和操作系统的线程有啥区别",
        "13. 已知单位向量 $a, b$ 的夹角为 $45^{\\circ}, k a-b$ 与 $a$ 垂直, 则 $k=$",
        "下列做法中最合适的是（ ）\nA. 浇水\nB. 盖锅盖",
        "假设你是店长，写一封道歉信。",
    ],
)
def test_requests_are_recognised(instruction):
    """Questions, commands and exercises are requests."""
    assert is_request(instruction)
    assert defect(instruction, TEA, label.CHAT) is None


@pytest.mark.parametrize(
    "statement",
    [
        "要求对嫌疑人判处死刑",
        "学习容器时，要把核心概念和命令实践结合起来。",
        "分析人士列出了事件的时间表",
        "草莓冰淇淋的做法",
        "坚持写博客已经有六年了，也算是一个小小的里程碑了。",
        "写作水平的提高需要时间。",
        "法国卫队的起源和历史",
    ],
)
def test_statements_and_headings_are_not(statement):
    """Statements, titles and summaries are no requests."""
    assert not is_request(statement)


def test_the_rules_of_chinese_requests_spare_other_languages():
    """An instruction for an English text need not look like a Chinese request."""
    text = "Green tea should be brewed with water of about eighty degrees for two minutes."
    assert defect("Explain how to brew green tea.", text, label.CHAT) is None


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("What are the ingredients and how to brew tea?", "What are the ingredients and how do you brew tea?"),
        ("How to brew tea, and how to serve it?", "How do you brew tea, and how do you serve it?"),
        ("What is tea? What are its digestive system?", "What is tea? What is its digestive system?"),
        ("What are its children?", ""),
        ("What are their systems and parts?", ""),
        ("Explain what tea is and how to brew it.", ""),
        ("Do you know how to brew tea, and how to serve it?", ""),
        ("What is the rule of when and how to brew tea?", ""),
        ("What is the book How to brew tea about?", ""),
    ],
)
def test_an_english_question_how_to_do_something_gets_a_subject(said, asked):
    """As a sentence of its own; after another verb it is whole. One thing is, where several are."""
    assert tidy(said) == (asked or said)


def test_an_english_list_has_five_sides_at_most():
    """However its items are joined; a long sentence with few items is one request."""
    text = "Green tea should be brewed with water of about eighty degrees for two minutes."
    for last in (" and taste", ", and taste"):
        five = f"Describe the origin, kinds, harvest, brewing{last} of tea."
        six = f"Describe the origin, kinds, harvest, drying, brewing{last} of tea."
        assert defect(five, text, label.CHAT) is None
        assert defect(five.replace("the", "tea, including its"), text, label.CHAT) is None
        assert defect(six, text, label.CHAT) == ("several_requests", 6)
    assert defect("Explain how tea and water " + "and sugar " * 20 + "are mixed.", text, label.CHAT) is None


OUTLINED = "话题：冲泡绿茶\n方面：水温，步骤，时间\n问题：怎样冲泡绿茶，水温、步骤和时间是怎样的？"


def test_the_instruction_stands_behind_the_outline():
    """Of an answer with topic and sides, what follows 问题： is the instruction."""
    assert run(Scripted([OUTLINED]))["instruction"] == "怎样冲泡绿茶，水温、步骤和时间是怎样的？"
    assert run(Scripted(["**问题：** " + QUESTION]))["instruction"] == QUESTION


def test_a_list_of_sides_behind_an_outline_becomes_a_request():
    """绿茶的水温、步骤和时间。 only lacks its verb; without an outline it is no request."""
    noun = "绿茶的水温、步骤和时间。"
    assert run(Scripted([f"话题：绿茶\n方面：水温\n问题：{noun}"]))["instruction"] == f"请介绍{noun}"
    assert dropped([noun])[0].reason == "not_a_request"


def test_a_topic_that_the_text_does_not_have_is_dropped():
    """A model that misread the text names a topic of its own."""
    drop, _ = dropped([OUTLINED.replace("冲泡绿茶", "龙卷风监狱")])
    assert (drop.reason, drop.value) == ("off_text", "龙卷风监狱")


MANY = "绿茶要用八十度的水，泡两分钟。" * 3 + "普洱茶则要用开水，先洗一遍茶叶再泡。"


@pytest.mark.parametrize(
    ("topic", "stays"),
    [
        ("绿茶", True),
        ("绿茶的泡法", True),
        ("绿茶与普洱茶", True),
        ("茶叶（绿茶用八十度的水）", True),
        ("普洱茶", False),
        ("普洱茶的泡法", False),
    ],
)
def test_a_topic_that_the_text_comes_to_late_is_dropped(topic, stays):
    """What is named behind the first quarter of a text for the first time is not what the whole text answers."""
    answer = f"话题：{topic}\n方面：水温，时间\n问题：{topic}要用多热的水，泡多久？"
    if stays:
        assert run(Scripted([answer]), MANY)["instruction"].startswith(topic)
    else:
        with pytest.raises(Drop) as caught:
            run(Scripted([answer]), MANY)
        assert (caught.value.reason, caught.value.value) == ("off_text", topic)


def test_the_example_may_be_followed_and_not_copied():
    """Words of the model's own turns in the prompt are the wanted form; words of the rest are a leak."""
    assert run(Scripted(["绿茶怎么泡？请写出材料、步骤和注意事项。"]))["instruction"].startswith("绿茶")
    assert dropped(["竹节虫会装死落地，有的还能断足逃生，为什么？"])[0].reason == "prompt_leak"


def test_of_several_candidates_the_widest_goes_on():
    """Each is asked for with its own seed; what touches more sentences wins, whatever the order."""
    text = "水温八十度。用热水温杯。放三克茶叶。冲水后等两分钟。"
    crumb, half = "泡绿茶放几克茶叶？", "怎样泡绿茶：水温多少，怎样温杯？"
    for answers in ([crumb, half], [half, crumb]):
        generate = Scripted(answers)
        assert run(generate, text, candidates=2)["instruction"] == half
        assert len({parameters["seed"] for _, _, parameters in generate.asked}) == 2


def test_no_further_candidate_is_paid_for_where_one_is_wide_enough():
    """A question that stands alone and touches three in five sentences ends the asking."""
    text = "水温八十度。用热水温杯。放三克茶叶。冲水后等两分钟。"
    crumb, whole = "泡绿茶放几克茶叶？", "怎样泡绿茶：水温多少，怎样温杯，放几克茶叶，冲水后等多久？"
    generate = Scripted([crumb, whole, crumb, crumb])
    assert run(generate, text, candidates=4)["instruction"] == whole
    assert len(generate.asked) == 2


def test_a_faulty_candidate_loses_to_any_sound_one():
    """A crumb of the text is better than what is no question, whichever comes first."""
    text = "水温八十度。用热水温杯。放三克茶叶。冲水后等两分钟。"
    for answers in (
        ["绿茶要用八十度左右的水。", "泡绿茶放几克茶叶？"],
        ["泡绿茶放几克茶叶？", "绿茶要用八十度左右的水。"],
    ):
        generate = Scripted(answers)
        assert run(generate, text, candidates=2, attempts=1)["instruction"] == "泡绿茶放几克茶叶？"
        assert len(generate.asked) == 2


def test_a_candidate_that_leans_on_the_text_loses_to_one_that_stands_alone():
    """A narrower question that can be understood is better than a wide one that cannot."""
    generate = Scripted(["图一中怎样温杯、放茶叶、冲水和等待，水温多少？", "绿茶用多热的水？"])
    assert run(generate, candidates=2)["instruction"] == "绿茶用多热的水？"


def test_reasons_are_not_asked_for_of_a_text_that_gives_none():
    """The next candidate, which asks for what is there, goes on."""
    why, what = "泡绿茶为什么要用八十度的水？", "怎样泡绿茶？"
    text = "泡绿茶用八十度左右的水，冲水后等两分钟。"
    assert run(Scripted([why, what]), text, candidates=2)["instruction"] == what
    assert run(Scripted([why, what]), f"{text}因为水太烫会泡坏茶叶。", candidates=2)["instruction"] == why


def test_kun_asks_for_nothing_but_the_instruction():
    """`outline: false` takes Kun's prompt, unless the recipe has one of its own."""
    generate = Scripted([QUESTION])
    run(generate, outline=False)
    assert generate.asked[0][1] == label.KUN.fill(text=TEA)
    run(generate, outline=False, chat_prompt=Prompt("[user]\n问：{text}\n"))
    assert generate.asked[1][1] == ({"role": "user", "content": f"问：{TEA}"},)


def seeds(tmp_path):
    """A file of three pairs by people."""
    pairs = {
        "怎样晒被子？": "晴天的上午把被子摊开，隔两小时翻面。",
        "怎样泡红茶？": "泡红茶用开水，放三克茶叶，等三分钟再喝。",
        "什么是月食？": "地球挡住了照向月亮的阳光，就是月食。",
    }
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps({"instruction": i, "output": o}) + "\n" for i, o in pairs.items()), "utf-8")
    return str(path)


def test_the_seeds_most_like_the_text_are_shown_before_it(tmp_path):
    """The nearest pair stands last, as answer and instruction; the same text has the same examples in every run."""
    prompts = []
    for _ in range(2):
        generate = Scripted([QUESTION])
        assert run(generate, examples=seeds(tmp_path), shots=2)["instruction"] == QUESTION
        prompts.append(generate.asked[0][1])
    assert prompts[0] == prompts[1]
    roles = [message["role"] for message in prompts[0]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert prompts[0][-2]["content"] == "怎样泡红茶？"
    assert TEA in prompts[0][-1]["content"]


def test_a_broken_file_of_examples_is_named_with_its_line(tmp_path):
    """The error has file and line, before anything is asked."""
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"instruction": "怎样晒被子？", "output": "摊开。"}\n{"instruction": 3}\n', "utf-8")
    generate = Scripted([QUESTION])
    with pytest.raises(KunError, match=r"seeds.jsonl:2: a seed needs"):
        run(generate, examples=str(path))
    assert generate.asked == []
