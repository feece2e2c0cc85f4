"""Stage `follow_up`: the conversation goes on as long as question and answer are good, and no row is lost by it."""

import asyncio
from dataclasses import replace

import pytest
from kun_method import follow_up
from scripted import Scripted, row, verdict

from kun_builder import Completion, Drop

TEXT = (
    "泡绿茶的水不要太烫，八十度左右最好。冲水后等两分钟。喝完第一泡以后，续水要在茶汤剩三分之一的时候。"
    "茶叶应放在阴凉干燥处保存，不要和有气味的东西放在一起。"
)
PAIR = {"instruction": "怎样泡绿茶？", "output": "泡绿茶的水不要太烫，八十度左右最好。冲水后等两分钟。"}
ASKED, ANSWERED = "茶叶应该怎样保存？", "茶叶应放在阴凉干燥处保存，不要和有气味的东西放在一起。"
MORE, TOLD = "什么时候给绿茶续水？", "喝完第一泡以后，续水要在茶汤剩三分之一的时候。"


def run(answers, **options):
    generate = Scripted(answers)
    return asyncio.run(follow_up.run(row(TEXT, **PAIR), generate, **options)), generate.asked


def test_a_pair_becomes_a_conversation():
    """Each turn is a question and its answer; the model sees the text and all that was said before."""
    found, asked = run([f"问：{ASKED}", ANSWERED, MORE, TOLD], turns=2)
    assert found == row(TEXT, **PAIR, turns=[ASKED, ANSWERED, MORE, TOLD], further_turns=2)
    last = asked[-1][1][-1]["content"]
    assert all(part in last for part in (TEXT, *PAIR.values(), ASKED, ANSWERED, MORE))


@pytest.mark.parametrize(
    "answers",
    [
        ["没有。"],
        ["None"],
        [""],
        ["怎样泡绿茶呢？"],
        ["文中提到的茶叶应该怎样保存？"],
        ["茶叶放在阴凉干燥处"],
        [ASKED, ""],
        [ASKED, "茶叶要密封好以后放进冰箱冷藏，一般可以存放两年。"],
        [ASKED, "茶叶应放在阴凉干燥处保存 365 天。"],
        [ASKED, "泡绿茶的水不要太烫，八十度左右最好。"],
        [ASKED, Completion(ANSWERED, finish_reason="length")],
    ],
)
def test_what_is_not_good_ends_the_conversation(answers):
    """Nothing more to ask, a repeated or dependent question, none at all, an answer that is empty, invented, said
    before, or cut off: the pair stays as it was, and nothing further is asked."""
    found, asked = run(answers, turns=3)
    assert (found["turns"], found["further_turns"]) == ([], 0)
    assert len(asked) == len(answers)


def test_nobody_is_asked_where_all_is_said():
    """An answer that keeps the whole text leaves nothing to ask, nor does a conversation at its end."""
    generate = Scripted([])
    found = asyncio.run(follow_up.run(row(TEXT, **PAIR | {"output": TEXT}), generate, turns=2))
    assert (found["further_turns"], generate.asked) == (0, [])
    found, asked = run([ASKED, ANSWERED, MORE, TOLD, "没有人会问到这里吗？"], turns=5)
    assert (found["further_turns"], len(asked)) == (2, 4)


def test_the_turns_before_stay():
    """A conversation that ends early keeps what was good."""
    found, _ = run([ASKED, ANSWERED, "没有"], turns=3)
    assert found["turns"] == [ASKED, ANSWERED]


def test_a_row_without_enough_is_dropped_if_so_asked():
    """`least` makes conversations only; the row says how many turns there were."""
    with pytest.raises(Drop) as caught:
        run([ASKED, ANSWERED, "没有"], turns=3, least=2)
    assert verdict(caught.value) == ("no_follow_up", "1")


def test_english():
    """An English text is asked about in English."""
    kept = "Keep the leaves in a cool and dry place, away from anything that smells."
    text = f"Green tea is best brewed at eighty degrees. {kept}"
    generate = Scripted(["How should the leaves of green tea be kept?", kept])
    pair = {
        "instruction": "How hot should water for green tea be?",
        "output": "Green tea is best brewed at eighty degrees.",
    }
    found = asyncio.run(follow_up.run(row(text, **pair), generate))
    assert len(found["turns"]) == 2
    assert "Ask one more question" in generate.asked[0][1][-1]["content"]


def test_a_language_without_these_prompts(monkeypatch):
    """A language that a plugin has added before there was this stage is asked about in the default words."""
    from kun_method import languages

    old = {task: prompt for task, prompt in languages.ZH.prompts.items() if not task.startswith("follow_up")}
    kept = replace(languages.ZH, prompts=old)
    monkeypatch.setattr(languages, "language_of", lambda text: kept)
    found, _ = run([ASKED, ANSWERED])
    assert found["turns"] == [ASKED, ANSWERED]
