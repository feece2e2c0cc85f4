"""Training examples: the stages' own prompts, the loss on the completion alone, damage that is always the same."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_training.bases import load_tokenizer, make_tiny
from kun_training.damage import DAMAGES, damaged, roughened, visible_damages
from kun_training.examples import Example, chat_examples, encode, encode_all, label_examples
from kun_training.seeds import Pair
from tiny_models import pairs as rows

from kun_builder.prompts import Prompt

PAIRS = [Pair(row["instruction"], row["output"]) for row in rows(24)]
LABEL = Prompt("文：{text}\n指令：")
CHAT = {
    "polish": Prompt("[user]\n{instruction}\n{text}\n"),
    "score": Prompt("[user]\n{instruction}：{good}还是{bad}？\n"),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(str(make_tiny(PAIRS, [], tmp_path_factory.mktemp("tiny"))))


def test_the_label_model_learns_the_inverse():
    """The answer is in the prompt, the instruction is the completion."""
    first = next(label_examples(PAIRS, LABEL))
    assert first.prompt == f"文：{PAIRS[0].output}\n指令："
    assert first.completion == PAIRS[0].instruction


def test_the_loss_is_on_the_completion_and_its_end(tokenizer):
    """Labels hide the prompt; the completion's tokens are those of the completion alone, then the end token."""
    tokens = encode(tokenizer, Example("文：甲\n指令：", "请说明甲。", "label"))
    row = tokens.row
    shown = [label for label in row["labels"] if label != -100]
    assert shown == [*tokenizer("请说明甲。")["input_ids"], tokenizer.eos_token_id]
    assert row["input_ids"][: -len(shown)] == tokenizer("文：甲\n指令：")["input_ids"]


def test_a_chat_prompt_is_tokenized_as_a_server_does(tokenizer):
    """The prompt is the chat template's with the generation prompt, the completion ends with the turn's end token."""
    asked = ({"role": "user", "content": "请说明甲。"},)
    tokens = encode(tokenizer, Example(asked, "甲是一。", "answer"))
    server = tokenizer.apply_chat_template(list(asked), add_generation_prompt=True, return_dict=True)["input_ids"]
    assert tokens.prompt == server
    assert tokenizer.decode(tokens.completion) == "甲是一。<|im_end|>"


def test_control_tokens_in_seeds_stay_text(tokenizer):
    """A seed that quotes a control token neither ends its turn nor begins another."""
    pair = Pair("<|im_end|>是什么？", "<|im_start|>是开始。")
    for example in (*label_examples([pair], LABEL), *chat_examples([pair], CHAT, ("好", "差"))):
        tokens = encode(tokenizer, example)
        marks = [tokenizer.convert_tokens_to_ids(mark) for mark in ("<|im_start|>", "<|im_end|>")]
        assert [token for token in tokens.completion if token in marks] == [marks[1]]
        assert tokens.prompt.count(marks[0]) == (0 if example.task == "label" else 2)


def test_too_long_examples_are_left_out_and_counted(tokenizer):
    """An example that does not fit is never cut: it is counted by its task."""
    long = Example("文" * 50, "指令", "label")
    encoded, too_long = encode_all(tokenizer, [long, Example("文", "指令", "label")], 30)
    assert (len(encoded), too_long["label"]) == (1, 1)


def test_the_chat_model_learns_its_three_tasks():
    """Per pair: an answer, a polished text, and the same instruction good and damaged; tasks can be left out."""
    examples = list(chat_examples(PAIRS, CHAT, ("好", "差")))
    assert [example.task for example in examples[:4]] == ["answer", "polish", "score", "score"]
    assert {(e.task, e.completion) for e in examples if e.task == "score"} == {("score", "好"), ("score", "差")}
    assert {e.task for e in chat_examples(PAIRS, CHAT, ("好", "差"), ("answer",))} == {"answer"}


def test_a_built_pair_is_polished_from_its_own_text():
    """Rows of a build carry the text that was polished: no damage is invented for them."""
    pair = Pair("请说明甲。", "甲是一。", text="甲嘛，就是一。", tag="augmented")
    (example,) = chat_examples([pair], CHAT, ("好", "差"), ("polish",))
    assert example.prompt == ({"role": "user", "content": "请说明甲。\n甲嘛，就是一。"},)


def test_tags_tell_answers_apart():
    """With tags, an answer's system message says whether it is a person's or a polished text."""
    two = [Pair("甲？", "一。"), Pair("乙？", "二。", tag="augmented")]
    examples = chat_examples(two, CHAT, ("好", "差"), ("answer",), {"seed": "人", "augmented": "网"})
    assert [example.prompt[0] for example in examples] == [
        {"role": "system", "content": "人"},
        {"role": "system", "content": "网"},
    ]


@given(st.text(min_size=2), st.text(min_size=1), st.text())
def test_damage_is_always_the_same(instruction, other, key):
    """The same key gives the same damage; a kind that needs the text is left out where the prompt does not show it."""
    for kind in DAMAGES:
        assert damaged(instruction, other, key, [kind]) == damaged(instruction, other, key, [kind])
    assert roughened(instruction, other, key) == roughened(instruction, other, key)
    assert "other_text" not in visible_damages({"instruction"})
    assert "other_text" in visible_damages({"instruction", "text"})


def test_damage_changes_the_instruction():
    """Each kind of damage makes another text of every seed, and roughening keeps the answer's sentences."""
    for pair, other in itertools.pairwise(PAIRS):
        for kind in DAMAGES:
            assert damaged(pair.instruction, other.instruction, pair.digest, [kind]) != pair.instruction
        rough = roughened(pair.output, other.output, pair.digest)
        assert rough != pair.output
        assert set("".join(rough.split())) >= set(pair.output)
