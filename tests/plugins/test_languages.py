"""Languages: each text is asked about, judged and polished in its own, row by row."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from kun_method import label, languages, polish, refine, score, verify
from kun_method.form import defect, is_request
from kun_method.languages import EN, ZH, language_of
from kun_method.pairs import invented, novelty, support
from scripted import Scripted, row

from kun_builder import Completion, Drop, Prompt
from kun_builder.recipe.plugins import load_plugins
from kun_builder.types import Token

BATS = (
    "Bats send out calls that are too high for human ears. The calls bounce off insects and branches, and from the "
    "echo a bat can tell how far away a thing is and how large it is. The largest colonies hold twenty million animals."
)
TEA = "泡绿茶的水不要太烫，八十度左右最好。先用热水温杯，再放三克茶叶，冲水后等两分钟，就可以倒出来喝。"
ASKED = "How do bats find their way in the dark, and how large are their colonies?"
GOOD = Completion("good", tokens=(Token("good", -0.01, (("good", -0.01), ("bad", -5.0))),))


@pytest.mark.parametrize(
    ("text", "code"), [(BATS, "en"), (TEA, "zh"), ("用 Java 写 Redis 缓存的要点", "zh"), ("123", "zh")]
)
def test_a_text_has_the_language_of_its_words(text, code):
    """Latin words are at home in Chinese texts; a text without words is taken for Chinese."""
    assert language_of(text).code == code


def test_every_stage_asks_in_the_language_of_the_row():
    """An English text gets the English prompts and words of judgement, a Chinese one the Chinese, in the same run."""
    asked = Scripted([f"Topic: bats\nPoints: orientation\nQuestion: {ASKED}"])
    assert asyncio.run(label.run(row(BATS), asked))["instruction"] == ASKED
    assert asked.asked[0][1] == EN.prompts["label"].fill(text=BATS)
    judged = Scripted([GOOD])
    assert asyncio.run(score.run(row(BATS, instruction=ASKED), judged))["score"] > 0.9
    assert judged.asked[0][1] == EN.prompts["score"].fill(instruction=ASKED, good="good", bad="bad")
    polished = Scripted([BATS])
    asyncio.run(polish.run(row(BATS, instruction=ASKED), polished))
    assert polished.asked[0][1] == EN.prompts["polish"].fill(text=BATS, instruction=ASKED)
    verified = Scripted([GOOD])
    assert asyncio.run(verify.run(row(BATS, instruction=ASKED, output=BATS), verified))["pair_score"] > 0.9
    chinese = Scripted(["怎样才能泡好一杯绿茶？"])
    asyncio.run(label.run(row(TEA), chinese))
    assert chinese.asked[0][1] == ZH.prompts["label"].fill(text=TEA)


def test_a_trained_model_is_asked_in_the_words_of_its_training():
    """Whatever the language of the text, and whatever else would choose another prompt: its contract was checked
    against the prompt of the option."""
    stages = ("label", "score", "polish")
    labels = Scripted([ASKED], trained_for=stages)
    asyncio.run(label.run(row(BATS), labels, outline=False))
    assert labels.asked[0][1] == label.CHAT.fill(text=BATS)
    judged = Scripted(
        [Completion("好", tokens=(Token("好", -0.01, (("好", -0.01), ("差", -5.0))),))], trained_for=stages
    )
    asyncio.run(score.run(row(BATS, instruction=ASKED), judged))
    assert judged.asked[0][1] == score.PROMPT.fill(instruction=ASKED, good="好", bad="差")
    polished = Scripted([BATS], trained_for=stages)
    asyncio.run(polish.run(row(BATS, instruction=ASKED), polished, whole=False))
    assert polished.asked[0][1] == polish.PROMPT.fill(text=BATS, instruction=ASKED)


def test_an_english_text_does_not_get_a_chinese_question():
    """It is dropped for its language, as an English question to a Chinese text is."""
    with pytest.raises(Drop) as caught:
        asyncio.run(label.run(row(BATS), Scripted(["蝙蝠在黑暗中怎样辨别方向？"])))
    assert caught.value.reason == "wrong_language"


@pytest.mark.parametrize(
    "instruction",
    [ASKED, "Describe how bats find their way.", "Please list the steps of making tea.",
     "For a beginner, explain recursion.", "Briefly outline the causes of the war."],
)  # fmt: skip
def test_english_requests_are_known(instruction):
    """Questions and commands, with what may stand before them."""
    assert is_request(instruction)
    assert defect(instruction, BATS, EN.prompts["label"]) is None


@pytest.mark.parametrize(
    "statement", ["Bats send out high calls.", "The orientation of bats", "How bats find their way"]
)
def test_english_statements_are_no_requests(statement):
    """A heading or a sentence of the text asks nothing."""
    assert not is_request(statement)


@pytest.mark.parametrize(
    ("instruction", "output", "reason"),
    [
        ("What does the passage say about bats?", BATS, "refers_to_unseen"),
        ("How does it find its way?", BATS, "refers_to_unseen"),
        ("What does Figure 2 show?", BATS, "needs_context"),
        (ASKED, "According to the text, bats use echoes to find their way.", "speaks_of_source"),
        (ASKED, "The colony was counted yesterday by two researchers.", "needs_context"),
    ],
)
def test_english_pairs_that_need_their_text_are_dropped(instruction, output, reason):
    """The forms that lean on a text are known in English too."""
    with pytest.raises(Drop) as caught:
        asyncio.run(refine.run(row(BATS, instruction=instruction, output=output), Scripted([])))
    assert caught.value.reason == reason


def test_measures_do_not_count_binding_words():
    """What only repeats an English question says nothing; other words for the same are no inventions, names are."""
    assert novelty("Bats find their way in the dark.", "How do bats find their way in the dark?") < 0.4
    assert support(BATS, BATS) == 1
    assert not invented("Bats navigate with echoes.", BATS)
    assert invented("Bats were studied by Griffin in detail.", BATS) == "Griffin"


@pytest.fixture
def german(tmp_path, monkeypatch):
    """The language that docs/quality.md shows, loaded as a plugin; gone afterwards."""
    monkeypatch.setattr(languages, "_KNOWN", dict(languages._KNOWN))
    document = Path(__file__).parents[2] / "docs/quality.md"
    (code,) = re.findall(r"^```python\n# german/__init__.py\n(.*?)^```$", document.read_text("utf-8"), re.M | re.S)
    folder = tmp_path / "german"
    folder.mkdir()
    (folder / "__init__.py").write_text(code, "utf-8")
    (folder / "label.txt").write_text("Welche Frage beantwortet dieser Text?\n\n{text}\n", "utf-8")
    (folder / "polish.txt").write_text("Beantworte die Frage {instruction} aus diesem Text:\n\n{text}\n", "utf-8")
    yield load_plugins([tmp_path])
    language_of.cache_clear()


DACHS = "Der Dachs ist ein nachtaktives Tier und lebt in einem Bau, den er mit Laub und Moos auspolstert."


def test_a_plugin_adds_a_language(german):
    """A text of it is asked about in its own words; tasks without a prompt are put in English."""
    assert not german.problems
    assert language_of(DACHS).code == "de"
    asked = Scripted(["Beschreibe den Bau des Dachses."])
    question = asyncio.run(label.run(row(DACHS, language="de"), asked))["instruction"]
    assert question == "Beschreibe den Bau des Dachses."
    assert asked.asked[0][1] == f"Welche Frage beantwortet dieser Text?\n\n{DACHS}"
    verified = Scripted([GOOD])
    asyncio.run(verify.run(row(DACHS, instruction=question, output=DACHS), verified))
    words = {"good": "good", "bad": "bad"}
    assert verified.asked[0][1] == EN.prompts["verify"].fill(text=DACHS, instruction=question, output=DACHS, **words)
    assert language_of(BATS) is EN


def test_what_was_made_with_a_language_is_made_again_when_it_changes(german):
    """The plugin's code and prompts are part of what the method's stages depend on."""
    assert german.stages["label"].owner.digest != load_plugins().stages["label"].owner.digest
    assert german.stages["normalize"].owner.digest == load_plugins().stages["normalize"].owner.digest


def test_a_text_in_a_language_without_prompts_costs_nothing():
    """It is dropped before a model is asked, with its language; a prompt of the recipe's own is good for every text."""
    asked = Scripted(["Wie lebt der Dachs?"])
    with pytest.raises(Drop) as caught:
        asyncio.run(label.run(row(DACHS, language="de"), asked))
    assert (caught.value.reason, caught.value.value, asked.asked) == ("no_prompts", "de", [])
    own = Prompt("Welche Frage beantwortet dieser Text?\n\n{text}\n")
    assert asyncio.run(label.run(row(DACHS, language="de"), asked, chat_prompt=own))["instruction"]


@pytest.mark.parametrize("text", ["Flour 200 g\nSugar 100 g\nButter 50 g", "print(x)", "Крыша"])
def test_a_text_without_a_han_character_is_never_asked_about_in_chinese(text):
    """Lists and code have no words that bind sentences, and are no Chinese for that."""
    assert language_of(text) is EN


def test_a_text_is_shown_examples_in_its_own_language(tmp_path):
    """Chinese seeds stand before a Chinese text; an English one, which has none, keeps the default prompt's own."""
    path = tmp_path / "seeds.jsonl"
    path.write_text(json.dumps({"instruction": "怎样晒被子？", "output": "晴天的上午摊开，隔两小时翻面。"}), "utf-8")
    asked = []
    for text, said in (("晴天的上午把棉衣摊开晒。", "怎样晒棉衣？"), (BATS, ASKED)):
        generate = Scripted([said])
        asyncio.run(label.run(row(text), generate, examples=str(path)))
        asked.append(generate.asked[0][1])
    assert asked[0][-2]["content"] == "怎样晒被子？"
    assert asked[1] == EN.prompts["label"].fill(text=BATS)
