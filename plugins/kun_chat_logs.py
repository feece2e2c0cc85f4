"""Logs of OpenAI-style chat models: each whole answer of an assistant is a text, without what was asked.

{"messages": [{"role": "user", "content": "怎样晒被子？"}, {"role": "assistant", "content": "选晴天的上午……"}]}
{"request": {"messages": [...]}, "response": {"choices": [{"finish_reason": "stop", "message": {...}}]}}
{"custom_id": "7", "response": {"status_code": 200, "body": {"choices": [...]}}, "error": null}
"""

from collections.abc import Iterator
from typing import Any

from kun_builder import Drop, Record, Source, hookimpl
from kun_builder.readers import PACKED, Records

kun_api = 1
ASKED, ANSWER = {"role": "user", "content": "怎样晒被子？"}, {"role": "assistant", "content": "选晴天的上午摊开来晒。"}
SAMPLE = {"messages": [ASKED, ANSWER]}


def parse(choice: dict[str, Any]) -> str | None:
    """An answer. Dropped: one that was cut off or filtered (`unfinished`), a `refusal`, a `tool_call`."""
    turn, end = choice["message"], choice.get("finish_reason") or "stop"
    if turn.get("tool_calls") or turn.get("function_call"):
        raise Drop("tool_call")
    if end != "stop":
        raise Drop("unfinished", end)
    if turn.get("refusal"):
        raise Drop("refusal", turn["refusal"])
    parts = turn["content"]  # a string, null, or parts of which some are text
    return "".join(part["text"] for part in parts if "text" in part) if isinstance(parts, list) else parts


def read(input: str, start: int) -> Iterator[Record]:
    """One record per answer, in order; a line without an answer is one record too."""
    index = 0
    for line in Records(input):
        for data, error in _answers(line):
            if index >= start:
                yield Record(index, data, line.offset, error, line.raw)
            index += 1


def _answers(line: Record) -> list[tuple[Any, str]]:
    """What a line holds, as choices of a response have it, or an error."""
    if line.error:
        return [(None, line.error)]
    try:
        return [(choice, "") for choice in _choices(line.data)] or [({"message": {"content": None}}, "")]
    except (AttributeError, KeyError, TypeError) as error:
        return [(None, f"no_chat: {type(error).__name__}: {error}")]


def _choices(data: dict[str, Any]) -> list[Any]:
    """All answers of a conversation; of a logged request its response only: the turns before it were answered then."""
    if "messages" in data and "response" not in data:
        return [{"message": turn} for turn in data["messages"] if turn["role"] == "assistant"]
    reply = data.get("response", data)
    body = reply.get("body", reply) if reply else {}
    if "choices" not in body:
        raise KeyError(f"no `choices`; {data.get('error') or body.get('error') or 'neither has it `messages`'}")
    return list(body["choices"])


@hookimpl
def kun_sources() -> list[Source]:
    """Chat logs. What may be done with them, only their owner knows."""
    files = tuple(f"*.{kind}{end}" for kind in ("jsonl", "ndjson") for end in PACKED)
    return [Source(name="chat-logs", parse=parse, read=read, files=files, license="unknown", sample=SAMPLE)]
