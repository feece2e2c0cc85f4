"""Control tokens of a model's own tokenizer: no text of a corpus reaches the model with one of them whole."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served_models import models
from servers.scripted_chat import chat

from kun_builder.models.generator import Asker
from kun_builder.prompts import breaker, neutralise, restore
from kun_builder.types import Request

TOKENS = ("<turn_of_house>", "[OTHER_HOUSE]", "<|im_end|>", "▁", "word", "<turn_of_house>x")


@pytest.fixture
def tokenizer(tmp_path):
    """A `tokenizer.json` with special tokens that are in no list of ours, and an added one that is plain text."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel

    made = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    made.add_special_tokens([*TOKENS[:3]])
    made.add_tokens([AddedToken("<plain>", special=False)])
    made.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path / "tokenizer.json")


def asked(folder, prompt, **settings):
    """What a server is sent for a prompt, and the text of the answer, in which it repeats the last message."""

    async def main():
        async with chat(lambda body: body["messages"][-1]["content"]) as server:
            async with models(folder, server, **settings) as generator:
                answer = await generator.ask("chat", Request(prompt), Asker())
            return [message["content"] for message in server.asked[0]["messages"]], answer.text

    return asyncio.run(main())


def test_tokens_of_the_models_own_tokenizer_are_broken(tmp_path, tokenizer):
    """What the tokenizer takes for control is broken in every message, and whole again in an answer that quotes it."""
    text = "茶<turn_of_house>与[OTHER_HOUSE]，<plain>"
    messages = ({"role": "system", "content": "请"}, {"role": "user", "content": text})
    sent, answer = asked(tmp_path, messages, tokenizer=tokenizer)
    assert sent == ["请", "茶<\u200bturn_of_house>与[\u200bOTHER_HOUSE]，<plain>"]
    assert answer == text


def test_without_a_tokenizer_messages_stay_as_they_are(tmp_path):
    """Where the tokenizer of a served model is not named, nobody is asked for one."""
    text = "茶<turn_of_house>"
    assert asked(tmp_path, ({"role": "user", "content": text},))[0] == [text]


def test_a_raw_prompt_stays_as_it_is(tmp_path, tokenizer):
    """A completion prompt may hold control tokens on purpose: its template is the recipe's."""
    from kun_builder.models.control import guard_of
    from kun_builder.types import ModelSpec

    request = Request("茶<turn_of_house>")
    assert guard_of(ModelSpec(name="m", tokenizer=tokenizer))(request) is request


@given(st.lists(st.sampled_from([*TOKENS, "<", "[", "茶", "\u200b"])).map("".join))
def test_broken_and_restored(text):
    """After breaking, none of the tokens is in the text; what had no zero-width space comes back as it was."""
    broken = breaker(TOKENS)(neutralise(text))
    assert not [token for token in TOKENS if ("<" in token or "[" in token) and token in broken]
    if "\u200b" not in text:
        assert restore(broken) == text


def test_nothing_to_break_is_the_same_text():
    """A text without tokens is handed back as it is, and so is every text where there are none to break."""
    text = json.dumps({"a": ["<b>"]})
    assert breaker(TOKENS)(text) is text
    assert breaker(())(text) is text
