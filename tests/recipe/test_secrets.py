"""Keys, passwords and headers in a recipe: used where they belong, and shown nowhere."""

from __future__ import annotations

import pytest
from recipes import REGISTRY, SMALL, complaints

from kun_builder.recipe.lock import lock

# --- secrets ---------------------------------------------------------------------------------------------------


def test_secrets_stay_where_they_are_used(recipe, monkeypatch):
    """A key is in the model that needs it, and in no representation, dump or lock."""
    monkeypatch.setenv("MY_KEY", "sk-topsecret")
    made = recipe(SMALL.replace("{}", "{api_key: '${MY_KEY}', endpoints: ['http://a']}"))
    assert made.models["chat"].api_key == "sk-topsecret"
    for text in (repr(made), str(made), made.model_dump_json(), str(made.model_dump()), lock(made, REGISTRY, {})):
        assert "topsecret" not in text
    assert "api_key: ${MY_KEY}" in lock(made, REGISTRY, {})


@pytest.mark.parametrize("key", ["sk-topsecret", "${MY_KEY}-topsecret", "[sk-topsecret]", "{a: sk-topsecret}"])
def test_key_in_a_recipe_is_refused_and_not_repeated(recipe, key):
    """A key that stands in the recipe itself is refused, and the refusal does not repeat it."""
    found = complaints(
        recipe,
        SMALL.replace("{}", f"{{api_key: '{key}', timeout: x}}" if key[0] not in "[{" else f"{{api_key: {key}}}"),
    )
    assert "topsecret" not in str(found)
    assert "keys are not for files" in str(found)


@pytest.mark.parametrize("name", ["vllm", "sglang", "ollama", "llama-server"])
def test_a_server_that_speaks_the_protocol_of_openai_may_be_named_as_the_engine(recipe, name):
    """Its name stands for `openai`, also in the lock."""
    made = recipe(SMALL.replace("{}", f"{{engine: {name}, endpoints: ['http://a']}}"))
    assert made.models["chat"].engine == "openai"
    assert name not in lock(made, REGISTRY, {})


def test_headers_are_sent_to_servers_and_shown_to_nobody(recipe, monkeypatch):
    """`${NAME}` in a header is the environment's; its value is in no representation, dump or lock."""
    monkeypatch.setenv("MY_KEY", "sk-topsecret\n")
    made = recipe(
        SMALL.replace("{}", "{headers: {Authorization: 'Key ${MY_KEY}', x-team: data}, endpoints: ['http://a']}")
    )
    assert made.models["chat"].headers == {"Authorization": "Key sk-topsecret", "x-team": "data"}
    for text in (repr(made), str(made), made.model_dump_json(), str(made.model_dump()), lock(made, REGISTRY, {})):
        assert "topsecret" not in text
        assert "x-team" not in text


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ("[x]", "`headers` must be a mapping, like `headers: {x-team: data, api-key: '${API_KEY}'}`"),
        ("{x: 1}", "header `x`: its value must be a string of ASCII characters in one line; quote it"),
        ("{x: 密}", "header `x`: its value must be a string of ASCII characters in one line; quote it"),
        (
            '{x: "topsecret\\r\\ny: z"}',
            "header `x`: its value must be a string of ASCII characters in one line; quote it",
        ),
        ("{'x y': z}", "header `x y`: no server takes such a name"),
        ("{Content-Length: '1'}", "header `Content-Length` says how requests are written and cannot be set"),
        ("{x: '${NO_SUCH_KEY}'}", "header `x`: the environment variable NO_SUCH_KEY is not set"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_and_not_repeated(recipe, headers, message):
    """A header that would break a request, or has no value, is refused before anything is asked."""
    found = complaints(recipe, SMALL.replace("{}", f"{{headers: {headers}}}"))
    assert found == [(1, message)]


def test_a_key_that_no_request_can_carry_is_refused(recipe, monkeypatch):
    """An API key that is not all ASCII is refused by the name of its variable; a line end is not part of it."""
    monkeypatch.setenv("MY_KEY", "密匙")
    assert "MY_KEY holds more than ASCII" in str(complaints(recipe, SMALL.replace("{}", "{api_key: '${MY_KEY}'}")))
    monkeypatch.setenv("MY_KEY", " sk-1\n")
    assert recipe(SMALL.replace("{}", "{api_key: '${MY_KEY}'}")).models["chat"].api_key == "sk-1"


def test_password_in_an_endpoint_is_refused_and_not_repeated(recipe):
    """An endpoint with a password in it is refused without repeating it."""
    found = complaints(recipe, SMALL.replace("{}", "{endpoints: ['http://me:topsecret@a']}"))
    assert found == [(1, "model `chat`: an endpoint must not contain a user or password: use `api_key: ${API_KEY}`")]


@pytest.mark.parametrize("path", ["https://x.org/a.jsonl?sig=topsecret", "s3://me:topsecret@bucket/a.jsonl"])
def test_an_address_with_a_key_is_refused_and_not_repeated(recipe, path):
    """`path:` of a split is published with the recipe, so it may hold no password and no signed link."""
    text = f"splits:\n  a: {{source: generic, path: ['b.jsonl', '{path}']}}\nstages: [normalize]\n"
    found = str(complaints(recipe, text))
    assert "a.jsonl has a password or a query that may be a key" in found
    assert "topsecret" not in found
    assert "b.jsonl has" not in found
