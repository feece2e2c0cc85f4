"""Whole builds against servers whose answers are odd, in the ways in which those of real servers are."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from servers.replies import replies, said

from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.result.present import write_presentation
from kun_builder.run.runner import build
from kun_builder.status import Status

TOPICS = ("月食", "晒被子", "竹笋焯水", "自行车链条", "芦苇")
TEXT = "{}有三个要点。先准备好需要的东西，再按照顺序一步一步去做，最后检查结果是否合适，不要着急。"
ANSWER = "要点有三条：先准备好需要的东西，再按照顺序一步一步去做，最后检查结果是否合适。"
THOUGHT = "用户给了一段资料，我需要先弄清楚它讲什么，再写出合适的内容。"
PROMPTS = {
    "label": "[system]\n你是出题人。\n[user]\n文字：{text}\n",
    "score": "[system]\n你评价指令，只答{good}或者{bad}。\n[user]\n{instruction}\n",
    "polish": "[system]\n你是编辑。\n[user]\n问题：{instruction}\n资料：{text}\n",
}


def wanted(body):
    """What a server in order would say."""
    asked = json.dumps(body["messages"], ensure_ascii=False)
    topic = next((topic for topic in TOPICS if topic in asked), "家务")
    words = {"出题人": f"请说明{topic}的要点有哪些？", "评价": "好", "编辑": ANSWER}
    return next((text for word, text in words.items() if word in asked), "yes")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(reply, **model)`: the report of a build, its kept rows, its reasons by stage, and the server."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    registry = load_plugins([])

    def run(reply, **model):
        rows = [json.dumps({"text": TEXT.format(topic)}, ensure_ascii=False) for topic in TOPICS]
        (tmp_path / "in.jsonl").write_text("\n".join(rows), "utf-8")
        stages = [
            {"label": {"chat_prompt": PROMPTS["label"], "temperature": 0}},
            *({name: {"prompt": PROMPTS[name]}} for name in ("score", "polish")),
        ]
        run.folder = tmp_path
        with replies(reply) as run.server:
            server = run.server
            chat = {"engine": "openai", "endpoints": [server.url], "model": "m", **model}
            split = {"source": "generic", "path": "in.jsonl"}
            recipe = {"name": "t", "models": {"chat": chat}, "splits": {"web": split}, "stages": stages}
            path = tmp_path / "recipe.yaml"
            path.write_text(json.dumps(recipe, ensure_ascii=False), "utf-8")
            report = build(load_recipe(path, registry, output=tmp_path / "run"), registry, status=Status())
        kept = [row for file in (tmp_path / "run/kept").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
        lost = pq.read_table(tmp_path / "run/rejected/web.parquet").to_pylist()
        return report, kept, [(row["_stage"], row["_reason"], row["_value"]) for row in lost], server

    return run


FINAL = "<|start|>assistant<|channel|>final<|message|>"
THINKING = {
    "inline": lambda text: said(f"<think>\n{THOUGHT}\n</think>\n\n{text}"),
    "end tag": lambda text: said(f"{THOUGHT}\n</think>\n\n{text}"),
    "beside": lambda text: said(f"\n\n{text}", reasoning_content=THOUGHT),
    "parts": lambda text: said([{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": text}]),
    "channels": lambda text: said(f"<|channel|>analysis<|message|>{THOUGHT}<|end|>{FINAL}{text}<|return|>"),
    "bare channels": lambda text: said(f"analysis{THOUGHT}assistantfinal{text}"),
}  # fmt: skip


@pytest.mark.parametrize("form", THINKING)
def test_what_a_model_thinks_is_paid_for_and_never_kept(run, form):
    """In a whole build, every row comes through without its reasoning, whose tokens and cost the report has apart."""
    report, kept, lost, _ = run(lambda body: THINKING[form](wanted(body)), cost={"input": 1, "output": 10})
    assert lost == []
    assert len(kept) == len(TOPICS)
    assert {row["output"] for row in kept} == {ANSWER}
    assert not any(THOUGHT in row["instruction"] for row in kept)
    for use in report.usage:
        assert 0 < use.reasoning_tokens < use.completion_tokens
        assert use.reasoning_cost == pytest.approx(use.reasoning_tokens * 10 / 1e6)
        assert use.reasoning_cost < use.cost
    page = write_presentation(run.folder / "run").read_text("utf-8")
    assert "of them thought" in page
    assert THOUGHT not in page


WRONG = {
    "page": (b"<!DOCTYPE html><html>gateway says no</html>", "gateway says no"),
    "list": ([{"no": "choices"}], "unknown shape"),
    "null": ({"choices": None}, "choices"),
    "choice": ({"choices": [None]}, "unknown shape"),
    "events": (b'data: {"choices": "x"}', "not JSON"),
    "error": ({"error": {"message": "gateway says no", "code": 400}}, "gateway says no"),
    "detail": ({"detail": "gateway says no"}, "gateway says no"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_answer_with_status_200_costs_its_row_little(run, kind):
    """One row is lost, after few requests, with the server's words in its reason; the others come through."""
    body, words = WRONG[kind]

    def reply(asked):
        text = json.dumps(asked["messages"], ensure_ascii=False)
        return (200, body) if "编辑" in text and "月食" in text else said(wanted(asked))

    _, kept, lost, server = run(reply)
    assert len(kept) == len(TOPICS) - 1
    ((stage, reason, value),) = lost
    assert (stage, reason) == ("polish", "request_rejected")
    assert words in value
    assert sum("编辑" in json.dumps(asked, ensure_ascii=False) for asked in server.asked) <= len(TOPICS) + 2


@pytest.mark.parametrize(
    ("finish", "tries"), [("content_filter", 1), ("error", 2), ("tool_calls", 1), ("safety", 1), ("insufficient", 1)]
)
def test_half_a_sentence_is_no_answer(run, finish, tries):
    """An end that is none drops the row as unfinished, with the server's word for it; a server's own trouble is worth
    a second question."""

    def reply(body):
        return (
            said("第一步要先准备好需要的东西。第二步要按照顺序去", finish)
            if "编辑" in str(body)
            else said(wanted(body))
        )

    _, kept, lost, server = run(reply)
    assert kept == []
    assert {(stage, reason, value.partition(":")[0]) for stage, reason, value in lost} == {
        ("polish", "unfinished", finish)
    }
    assert sum("编辑" in str(body) for body in server.asked) == tries * len(TOPICS)


def test_thoughts_without_end_name_the_cure(run):
    """Where all the room went into thinking, the reason says so and how to give more."""

    def reply(body):
        ended = "编辑" not in str(body) or "月食" not in str(body)
        return said(f"<think>{THOUGHT}</think>{wanted(body)}") if ended else said(f"<think>{THOUGHT}", "length")

    _, kept, ((stage, reason, value),), _ = run(reply)
    assert len(kept) == len(TOPICS) - 1
    assert (stage, reason) == ("polish", "truncated")
    assert "raise `thinking_tokens`" in value


@pytest.mark.parametrize("number", [10**19, -5, 1e300, "9" * 30])
def test_impossible_numbers_reach_no_report(run, number):
    """Counts that cannot be are none: in the report, its costs, the rows' calls, and in the journal of the next run."""

    def reply(body):
        status, answer = said(wanted(body))
        return status, {**answer, "usage": {"prompt_tokens": number, "completion_tokens": number}}

    for _ in range(2):
        report, kept, _, _ = run(reply)
        assert len(kept) == len(TOPICS)
        assert {use.completion_tokens for use in report.usage} == {0}
        shutil.rmtree(run.folder / "run")
