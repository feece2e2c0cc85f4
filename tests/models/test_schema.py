"""Answers by a schema: read, checked, asked again, dropped with a reason of their own."""

from __future__ import annotations

import asyncio

import pytest

from kun_builder.errors import Drop, PluginError
from kun_builder.models.journal.journal import Journal, question
from kun_builder.testing import fake_generate
from kun_builder.types import Completion, Request

SCHEMA = {"type": "object", "properties": {"marks": {"type": "integer", "maximum": 5}}, "required": ["marks"]}


def asked(answers, schema=SCHEMA, **parameters):
    """The answer to one request by `schema`, and the requests that reached the model."""

    async def main():
        async with fake_generate(answers) as generate:
            return await generate("chat", "几分？", schema=schema, **parameters), generate.requests

    return asyncio.run(main())


@pytest.mark.parametrize(
    "text", ['{"marks": 4}', ' {"marks":4}\n', '```json\n{"marks": 4}\n```', '```\n{"marks": 4}\n```\n']
)
def test_the_value_of_an_answer_is_in_data(text):
    """JSON is read whether or not the model wraps it in a fence; the text stays as it was said."""
    answer, requests = asked([text])
    assert (answer.data, answer.text, len(requests)) == ({"marks": 4}, text, 1)


@pytest.mark.parametrize("wrong", ["四分", '{"marks": "4"}', '{"marks": 6}', "{}", '{"marks": 4', "[]"])
def test_a_wrong_answer_is_asked_for_once_more(wrong):
    """The second question has another seed, and a temperature by which it matters."""
    answer, (first, second) = asked([wrong, '{"marks": 4}'])
    assert answer.data == {"marks": 4}
    assert (first.seed, second.seed, second.temperature, second.schema) == (None, 1, 0.3, SCHEMA)


@pytest.mark.parametrize(
    ("wrong", "value"),
    [('{"marks": 6}', "$.marks: 6 is greater than the maximum of 5"), ("四分", "no JSON (unexpected character")],
)
def test_a_row_without_a_right_answer_is_dropped(wrong, value):
    """The reason is the schema's own, and the value says what is wrong where."""
    with pytest.raises(Drop) as caught:
        asked([wrong, wrong])
    assert caught.value.reason == "off_schema"
    assert caught.value.value.startswith(value)


def test_an_answer_that_was_cut_off_is_asked_for_with_more_tokens_first():
    """Half a JSON that ends at the token limit is truncated, not wrong."""
    cut = Completion('{"marks": ', "length", 9, 9)
    answer, (first, second) = asked([cut, '{"marks": 1}'], max_new_tokens=9)
    assert (answer.data, second.max_new_tokens, second.seed) == ({"marks": 1}, 18, first.seed)


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "objekt"}, "$.type: 'objekt' is not valid"),
        ({"$ref": "https://example.org/schema.json"}, "`$ref` to https://example.org/schema.json"),
        ({"enum": [object()]}, "not JSON serializable"),
        ([], "it is list, not a dict"),
    ],
)
def test_a_wrong_schema_ends_the_run_before_a_request(schema, fault):
    """The fault is the plugin's, not the row's: no request is sent."""

    async def main():
        async with fake_generate([]) as generate:
            with pytest.raises(PluginError) as caught:
                await generate("chat", "几分？", schema=schema)
            assert not generate.requests
            return caught.value.message

    assert fault in asyncio.run(main())


def test_a_reference_that_leads_nowhere_ends_the_run():
    """A `$ref` within the schema is followed; one to what is not there is the plugin's fault."""
    schema = {"$ref": "#/$defs/marks", "$defs": {"marks": SCHEMA}}
    assert asked(['{"marks": 4}'], schema)[0].data == {"marks": 4}
    with pytest.raises(PluginError, match="wrong `schema`"):
        asked(['{"marks": 4}'], {"$ref": "#/$defs/none"})


def test_the_journal_tells_schemas_apart_and_keeps_them(tmp_path):
    """Another schema is another question; one without has the key that it had before there were schemas."""

    async def main():
        journal = Journal.open(tmp_path)
        with_schema = question("m", "r", Request("几分？", schema=SCHEMA))
        other = question("m", "r", Request("几分？", schema={**SCHEMA, "required": []}))
        assert len({with_schema.key, other.key, question("m", "r", Request("几分？")).key}) == 3
        await journal.put(with_schema, Completion('{"marks": 4}'))
        assert journal.read(with_schema.key).request == Request("几分？", schema=SCHEMA)
        await journal.close()

    asyncio.run(main())
    assert question("m", "r", Request("几分？")).packed == ('["m","r","几分？",512,0.0,1.0,1.0,null,[],0,[]]'.encode())
