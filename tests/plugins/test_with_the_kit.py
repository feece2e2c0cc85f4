"""The built-in stages and engines are held to what a stranger's plugin is held to."""

from __future__ import annotations

import json

import pytest

from kun_builder.recipe.plugins import load_plugins
from kun_builder.testing import check_engine, check_stage, likely

REGISTRY = load_plugins()
GOOD = (
    "晒被子最好选在晴天的上午十点到下午三点之间。被子要摊开，隔一两个小时翻一次面，让两面都晒到，"
    "收的时候轻轻拍掉灰尘即可。"
)
ENGLISH = "Only English words are in this text, and there are enough of them."
ROWS = [
    {"text": GOOD, "instruction": "请介绍一下怎样晒被子？", "output": GOOD},
    {"text": ENGLISH, "instruction": "怎样晒被子？", "output": "短"},
    {"text": GOOD, "instruction": "请介绍一下怎样晒被子？", "output": GOOD},
    {"text": "太短", "instruction": "晒被子", "output": ""},
]
JUDGED = likely({"好": 0.95, "差": 0.05})
ANSWERS = {"score": JUDGED, "verify": JUDGED, "polish": GOOD}


@pytest.mark.parametrize("name", sorted(REGISTRY.stages.keys() - {"review"}))  # which waits for people
def test_stage(name, tmp_path):
    """Schema, order, ids, reasons, repeatability and pickling of each built-in stage are right."""
    (tmp_path / "benchmark.jsonl").write_text(json.dumps({"question": ENGLISH}))
    options = {"benchmarks": [str(tmp_path / "benchmark.jsonl")]} if name == "decontaminate" else {}
    answers = ANSWERS.get(name, "请介绍一下怎样晒被子？")
    result = check_stage(REGISTRY.stages[name].value, ROWS, answers=answers, **options)
    assert len(result.rows) + len(result.dropped) == len(ROWS)
    assert result.rows


def openai(path, body):
    """What a server of the OpenAI kind answers."""
    if path == "/v1/models":
        return {"object": "list", "data": [{"id": "small", "max_model_len": 4096}]}
    if body is None:
        return {}
    token = {"token": "好", "logprob": -0.1, "bytes": None}
    logprobs = {"content": [{**token, "top_logprobs": [token, {**token, "token": "差", "logprob": -2.4}]}]}
    if path == "/v1/completions":
        logprobs = {"tokens": ["好"], "token_logprobs": [-0.1], "top_logprobs": [{"好": -0.1, "差": -2.4}]}
    said = {"text": "好"} if path == "/v1/completions" else {"message": {"role": "assistant", "content": "好"}}
    choice = {"index": 0, "finish_reason": "stop", **said, "logprobs": logprobs if body.get("logprobs") else None}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    return {"id": "1", "object": "chat.completion", "model": "small", "choices": [choice], "usage": usage}


def tgi(path, body):
    """What Text Generation Inference answers."""
    if path == "/info":
        return {"model_id": "small", "model_sha": "abc", "max_total_tokens": 4096}
    if path != "/generate":
        return []
    token = {"id": 1, "text": "好", "logprob": -0.1, "special": False}
    details = {"finish_reason": "length", "generated_tokens": 1, "prefill": [], "tokens": [token]}
    if body["parameters"].get("top_n_tokens"):
        details["top_tokens"] = [[token, {**token, "id": 2, "text": "差", "logprob": -2.4}]]
    return {"generated_text": "好", "details": details}, {"x-prompt-tokens": "5"}


@pytest.mark.parametrize(
    ("name", "reply", "prompt"),
    [("openai", openai, "chat"), ("openai", openai, "completion"), ("tgi", tgi, "completion")],
)
def test_engine(name, reply, prompt):
    """Status classes, Retry-After, broken lines, time-outs, cancelling and log-probabilities of each are right."""
    assert check_engine(REGISTRY.engines[name].value, reply, prompt=prompt).text == "好"
