"""Servers that can be held to a form of answer: each by its own extension, found once, at the first wish for it."""

import json
import re
from collections import Counter

import pytest
from servers.strict import CHAT, Strict, run

from kun_builder import Request
from kun_builder.engines.forced import CHOICE_FORMS, SCHEMA_FORMS, schema_fields

SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "marks": {"type": "array", "items": {"type": "integer"}}},
    "required": ["question", "marks"],
    "additionalProperties": False,
}
ANSWER = {"question": "怎么保存？", "marks": [1]}
EXTENSIONS = {"response_format", "json_schema", "guided_json"}


class Choosy(Strict):
    """A server that enforces a choice by one extension and overlooks, or refuses, all others."""

    def __init__(self, form, refuses):
        self.form = form
        others = () if refuses else CHOICE_FORMS
        super().__init__("temperature", "logprobs", "top_logprobs", form, *others)

    def plain(self, body):
        field = body.get(self.form)
        text = next(iter(allowed(self.form, field))) if field else "Yes."
        return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


def allowed(form, field):
    """The choices that a server would understand."""
    if form == "structured_outputs":
        return field["choice"]
    if form == "guided_choice":
        return field
    if form == "grammar":
        return [json.loads(quoted) for quoted in re.fullmatch(r"root ::= (.*)", field)[1].split(" | ")]
    pattern = field["value"] if form == "response_format" else field
    return re.fullmatch(r"\((.*)\)", pattern)[1].replace("\\", "").split("|")


@pytest.mark.parametrize("refuses", [True, False])
@pytest.mark.parametrize("form", CHOICE_FORMS)
def test_a_choice_is_enforced_the_way_the_server_can(form, refuses):
    """The extension that a server obeys is found once and used; the others are not sent to it again."""
    server = Choosy(form, refuses)

    async def work(endpoint):
        return [await endpoint.complete(Request(CHAT, 4, choices=('好"的', "差"))) for _ in range(3)]

    answers = run(server, work)
    assert [answer.text for answer in answers] == ['好"的'] * 3
    sent = Counter(name for body in server.bodies if list(CHAT) == body["messages"] for name in body)
    assert sent[form] == 3
    assert not sent.keys() & (set(CHOICE_FORMS) - {form})


def test_a_server_without_choices_just_answers():
    """Where a server knows no such extension, the request goes out without; the stage reads the answer."""
    server = Strict("temperature")
    answer = run(server, lambda endpoint: endpoint.complete(Request(CHAT, 4, choices=("好", "差"))))
    assert answer.text == "是。也是。"


def schema_in(body, form):
    """The schema that a server which knows one extension finds in a request."""
    field = body.get("response_format", {})
    match form, field.get("type"):
        case "openai", "json_schema":
            return field["json_schema"]["schema"]
        case "tgi", "json":
            return field["value"]
        case "json_object", "json_object":
            return field["schema"]
    return body.get(form)


class Structured(Strict):
    """A server that is held to a schema by one extension and overlooks, or refuses, all others."""

    def __init__(self, form, refuses):
        self.form = form
        super().__init__("temperature", *EXTENSIONS, check=lambda body: self.found(body) or not refuses)

    def found(self, body):
        return schema_in(body, self.form) if body.keys() & EXTENSIONS else {"properties": {}}

    def plain(self, body):
        properties = (self.found(body) or {}).get("properties", {})
        said = json.dumps({"mark": "\u00a77"} if "mark" in properties else ANSWER) if properties else "Yes."
        return {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("refuses", [True, False])
@pytest.mark.parametrize("form", SCHEMA_FORMS)
def test_a_schema_is_enforced_the_way_the_server_can(form, refuses, caplog):
    """The extension that a server obeys is found once and used with the request's own schema."""
    server = Structured(form, refuses)

    async def work(endpoint):
        return [await endpoint.complete(Request(CHAT, schema=SCHEMA)) for _ in range(3)]

    answers = run(server, work)
    assert [json.loads(answer.text) for answer in answers] == [ANSWER] * 3
    rows = [body for body in server.bodies if list(CHAT) == body["messages"]]
    assert [schema_in(body, form) for body in rows] == [SCHEMA] * 3
    assert len(server.bodies) - len(rows) <= len(SCHEMA_FORMS)
    assert not caplog.records


def test_a_server_that_knows_no_schema_is_told_of(caplog):
    """Where a server cannot be held to a schema, the request goes out without, and one warning says so."""
    server = Strict("temperature")

    async def work(endpoint):
        return [await endpoint.complete(Request(CHAT, schema=SCHEMA)) for _ in range(2)]

    assert [answer.text for answer in run(server, work)] == ["是。也是。"] * 2
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.endswith(" cannot be held to a JSON schema: its answers are only checked")


def test_a_schema_that_the_server_cannot_take_costs_no_row(caplog):
    """A server that obeys schemas but refuses this one is asked without it; other fields stay."""

    def refuses(body):
        return "marks" not in ((schema_in(body, "openai") or {}).get("properties") or {})

    class Picky(Structured):
        def __init__(self):
            super().__init__("openai", refuses=True)
            self.check = refuses

    server = Picky()
    answer = run(server, lambda endpoint: endpoint.complete(Request(CHAT, schema=SCHEMA)))
    assert answer.text == "Yes."
    assert server.bodies[-1].keys() == {"model", "messages", "max_tokens", "temperature"}
    assert caplog.records[-1].getMessage().endswith("refuses response_format: left out from now on")


@pytest.mark.parametrize(
    ("change", "strict"),
    [({}, True), ({"required": ["question"]}, False), ({"additionalProperties": True}, False)],
)
def test_a_schema_is_strict_where_openai_takes_it_so(change, strict):
    """OpenAI refuses `strict` for a schema with optional or further properties."""
    format = schema_fields("openai", {"type": "array", "items": SCHEMA | change})["response_format"]
    assert format["json_schema"]["strict"] is strict


@pytest.mark.model
@pytest.mark.parametrize("prompt", [CHAT, "茶叶怎么保存？"])
def test_the_embedded_model_is_held_to_a_schema(small, prompt):
    """llama.cpp obeys in chat and in completion requests, whatever the model would say."""
    schema = {**SCHEMA, "properties": {"question": {"enum": ["\u00a79"]}, "marks": {"const": [7]}}}
    answer = small.run(small.endpoint.complete(Request(prompt, 64, schema=schema)))
    assert "".join(answer.text.split()).startswith('{"question":"\u00a79","marks":')  # its white space is its own
