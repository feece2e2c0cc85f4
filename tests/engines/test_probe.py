"""What a server says of itself is not trusted: of any other shape, it counts as if it were not there."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun_builder import ModelSpec
from kun_builder.engines import tgi
from kun_builder.engines.probe import load_of, model_facts, token_count
from kun_builder.errors import KunError, ModelError

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
ENTRY = st.fixed_dictionaries(
    {"id": st.just("m") | JUNK},
    optional={name: JUNK for name in ("owned_by", "root", "max_model_len", "meta")} | {"owned_by": st.just("llamacpp")},
)
META = st.fixed_dictionaries({}, optional={"n_ctx": JUNK, "n_ctx_train": JUNK})
PROPS = st.fixed_dictionaries({}, optional={"total_slots": JUNK, "default_generation_settings": JUNK | META})
INFO = st.fixed_dictionaries({}, optional={"model_sha": JUNK, "max_total_tokens": JUNK})


class Told:
    """A server that says of itself what it was given."""

    url = "http://told"

    def __init__(self, answers):
        self._answers = answers

    async def get(self, path):
        return self._answers.get(path, {})

    async def text(self, path):
        return self._answers[path]

    async def post(self, path, body, *, aside):
        return self._answers[path], {}


@given(entries=st.lists(ENTRY | JUNK, max_size=2), meta=META, props=PROPS | JUNK, info=INFO | JUNK)
def test_any_answer_is_understood_or_told(entries, meta, props, info):
    """Whatever a server has at its routes, there are facts of the right types, or an error that says what to set."""
    for entry in entries[:1]:
        if isinstance(entry, dict):
            entry.setdefault("meta", meta)
    server = Told({"/v1/models": {"data": entries}, "/props": props, "/info": info})
    for model in ("m", ""):
        with suppress(KunError):
            info_, owner, slots = asyncio.run(model_facts(server, ModelSpec(name="chat", model=model)))
            assert {type(info_.id), type(info_.revision), type(info_.tokenizer), type(owner)} == {str}
            assert type(info_.context_length) is int
            assert type(slots) is int


def test_numbers_are_taken_where_they_are_some():
    """A context of another shape is no reason to look no further; one in a string is a number all the same."""
    entry = {"id": "m", "max_model_len": "lots", "meta": {"n_ctx": "4096"}, "root": 3}
    facts = asyncio.run(model_facts(Told({"/v1/models": {"data": [entry]}}), ModelSpec(name="chat", model="m")))
    assert (facts.info.context_length, facts.info.tokenizer) == (4096, "m")


@pytest.mark.parametrize("listed", [[{"id": "m"}], ["m"], {"models": [{"id": "m"}]}, {"data": ["m"]}])
def test_a_list_of_models_in_another_form_is_one(listed):
    """Gateways leave out what is around the list, or what is beside the names; one model needs no name in a recipe."""
    facts = asyncio.run(model_facts(Told({"/v1/models": listed}), ModelSpec(name="chat")))
    assert facts.info.id == "m"


@pytest.mark.parametrize("name", ["max_model_len", "context_length", "context_window"])
def test_the_context_has_several_names(name):
    """vLLM's, those of routers, and Groq's."""
    told = Told({"/v1/models": {"data": [{"id": "m", name: 4096}]}})
    assert asyncio.run(model_facts(told, ModelSpec(name="chat"))).info.context_length == 4096


@pytest.mark.parametrize(("said", "waiting"), [("3", 3), ("1e999", None), ("1e+5e", None), ("0.0", 0)])
def test_queues_are_numbers(said, waiting):
    """What looks like a number and is none is no queue."""
    assert asyncio.run(load_of(Told({"/metrics": f"tgi_queue_size {said}\n"}))) == (waiting, 0)


@given(st.lists(JUNK | st.fixed_dictionaries({}, optional={"start": JUNK, "stop": JUNK}), max_size=3) | JUNK)
def test_any_tokens_are_counted(tokens):
    """Tokens of any shape are counted; what is no list of them is no count."""
    found = asyncio.run(token_count(Told({"/tokenize": tokens}), "文", "m"))
    assert found is None or 0 <= found <= len(tokens.get("tokens") if isinstance(tokens, dict) else tokens)


def test_tokens_that_cover_no_text():
    """TGI lists special tokens, which cover nothing."""
    tokens = [{"start": 0, "stop": 0}, {"start": 0, "stop": 1}, {"start": 1, "stop": 3}]
    assert asyncio.run(token_count(Told({"/tokenize": tokens}), "文字吗", "m")) == 2


def test_a_server_that_is_no_tgi():
    """A server of another kind behind `engine: tgi` is told as that."""
    endpoint = tgi.TGIEndpoint(Told({"/info": {"version": "1"}}), ModelSpec(name="chat", engine="tgi"))
    with pytest.raises(ModelError, match=r"http://told/info names no model") as caught:
        asyncio.run(endpoint.info())
    assert "engine: openai" in caught.value.hint
