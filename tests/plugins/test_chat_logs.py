"""chat-logs: conversations, logged requests and outputs of the Batch API; one text per answer."""

from __future__ import annotations

import json

import kun_chat_logs
import pytest

from kun_builder.testing import check_source

(SOURCE,) = kun_chat_logs.kun_sources()


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def response(*answers, end="stop"):
    choices = [{"index": n, "finish_reason": end, "message": say("assistant", a)} for n, a in enumerate(answers)]
    return {"object": "chat.completion", "choices": choices}


ASKED = [say("system", "你是助手。"), say("user", "怎样晒被子？")]
TALK = {"messages": [*ASKED, say("assistant", "选晴天。"), say("user", "几点？"), say("assistant", "上午十点。")]}
LOGGED = {"request": {"messages": [*TALK["messages"], say("user", "多久？")]}, "response": response("两小时。")}
BATCH = {"id": "b", "custom_id": "7", "response": {"status_code": 200, "body": response("甲。", "乙。")}, "error": None}


def log(folder, *lines):
    path = folder / "log.jsonl"
    text = "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in lines)
    path.write_text(text, "utf-8")
    return path


def test_each_form_gives_its_answers(tmp_path):
    """A conversation gives every answer; a logged request, a batch's line and a bare response those of the response."""
    rows = check_source(SOURCE, log(tmp_path, TALK, LOGGED, BATCH, response("丙。")))
    assert [row["text"] for row in rows] == ["选晴天。", "上午十点。", "两小时。", "甲。", "乙。", "丙。"]
    assert [row["id"] for row in rows] == [f"test/log.jsonl:{number}" for number in range(6)]
    assert rows[0]["offset"] == rows[1]["offset"] == 0 < rows[2]["offset"] < rows[3]["offset"] == rows[4]["offset"]


PARTS = [
    {"type": "text", "text": "先看天气，"},
    {"type": "image_url", "image_url": {}},
    {"type": "text", "text": "再晒。"},
]
CALL = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ({"messages": [say("assistant", PARTS)]}, None),
        ({"messages": [say("user", "在吗？")]}, ("dropped", "no_text")),
        ({"messages": []}, ("dropped", "no_text")),
        ({"messages": [say("assistant", None, tool_calls=CALL)]}, ("dropped", "tool_call")),
        ({"messages": [say("assistant", "我查一下。", tool_calls=CALL)]}, ("dropped", "tool_call")),
        ({"messages": [say("assistant", None, refusal="我不能帮忙。")]}, ("dropped", "refusal")),
        (response("说到一半", end="length"), ("dropped", "unfinished")),
        (response("", end="content_filter"), ("dropped", "unfinished")),
        ({"custom_id": "7", "response": None, "error": {"code": "batch_expired"}}, ("quarantined", "no_chat")),
        ({"response": {"status_code": 400, "body": {"error": {"code": "x"}}}}, ("quarantined", "no_chat")),
        ({"text": "不是对话。"}, ("quarantined", "no_chat")),
        ([1, 2], ("quarantined", "no_chat")),
        ({"messages": "怎样"}, ("quarantined", "no_chat")),
        ({"messages": [None]}, ("quarantined", "no_chat")),
        ({"choices": 5}, ("quarantined", "no_chat")),
        ({"choices": [{"message": None}]}, ("quarantined", "parse_failed")),
        ({"choices": [{}]}, ("quarantined", "missing_field")),
        ({"messages": [say("assistant", 5)]}, ("quarantined", "text_not_string")),
        ({"messages": [say("assistant", [5])]}, ("quarantined", "parse_failed")),
        ('{"messages": [{"role": "assist', ("quarantined", "broken_json")),
    ],
)
def test_what_is_no_answer_costs_its_line_only(tmp_path, line, verdict):
    """Tool calls, refusals, cut answers, failed requests and dirt each have a verdict; the next line is read."""
    first, second = check_source(SOURCE, log(tmp_path, line, response("好的。")))
    assert (first["_outcome"] and (first["_outcome"], first["_reason"])) == verdict
    assert second["text"] == "好的。"
    assert (first["position"], second["position"]) == (0, 1)


def test_a_failed_request_says_why(tmp_path):
    """The server's error is in the verdict."""
    rows = check_source(SOURCE, log(tmp_path, {"response": None, "error": {"code": "batch_expired"}}, TALK))
    assert "batch_expired" in rows[0]["_value"]


def test_the_sample_is_one_of_its_lines(tmp_path):
    """The line that `kun-build plugins` shows is read."""
    assert [row["text"] for row in check_source(SOURCE, log(tmp_path, SOURCE.sample))] == ["选晴天的上午摊开来晒。"]
