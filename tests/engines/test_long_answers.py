"""What a server sends is read in time that grows with its length, whatever it repeats: all others wait meanwhile."""

import json
import time

import pytest

from kun_builder.engines.answers import openai_answer
from kun_builder.engines.bodies import parse_body
from kun_builder.engines.probe import _GAUGES
from kun_builder.engines.reasoning import ends_reasoning, split_reasoning, starts_to_think

UNITS = [
    *("a", " ", "\n", "<", "|", "`", "a ", "\n ", "<|", "</", "[THINK]", "[/THINK]", "◁/think▷", "<|channel>thought"),
    *("<think>", "</think>", "<think></think>", "<reasoning>", "</reasoning>", "<answer>", "</answer>", "</answer> "),
    *("<|channel|>", "<|channel|>a", "<|channel|>analysis<|message|>", "<|message|>", "<|start|>assistant", "<|end|>"),
    *("analysis", "assistantcommentary", "assistantfinal", "assistant", "Here is my response:", "<|begin_of_thought|>"),
]
HEADS = ["", "<think>", "<reasoning>", "</think>", "analysisA", "<|channel|>", "<|channel|>final<|message|>"]
LENGTH, MOST = 100_000, 40


def slower(read, unit, head=""):
    """How many times as long a text ten times as long takes; a short time counts as none.

    Where that is too much, it is measured once more, since the machine may have been busy."""

    def seconds(length):
        text = head + unit * (length // len(unit))
        began = time.thread_time()  # without what other threads do meanwhile
        read(text)
        return time.thread_time() - began

    short, long = max(0.005, seconds(LENGTH)), seconds(10 * LENGTH)
    if long < MOST * short:
        return long / short
    return min(long, seconds(10 * LENGTH)) / max(0.005, min(short, seconds(LENGTH)))


@pytest.mark.parametrize("unit", UNITS)
def test_reasoning_is_told_apart_in_linear_time(unit):
    """Ten times the text takes about ten times as long, behind every head."""
    for head in HEADS:
        ratio = slower(lambda text: (split_reasoning(text), starts_to_think(text), ends_reasoning(text)), unit, head)
        assert ratio < MOST


def test_a_stream_of_many_events_is_put_together_in_linear_time():
    """Also one that has a log-probability for each of its pieces."""
    token = {"token": "a", "logprob": -1.0, "top_logprobs": []}
    event = {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [token]}}]}
    unit = f"data: {json.dumps(event)}\n\n"
    assert slower(lambda text: openai_answer(parse_body(text.encode()), "http://x"), unit) < MOST


@pytest.mark.parametrize(
    "unit", ["tgi_queue_size{", "tgi_queue_size{\n", "tgi_queue_size ", "vllm:num_requests_waiting{a} \n"]
)
def test_metrics_are_searched_in_linear_time(unit):
    """A figure that is never finished, on every line."""
    assert slower(_GAUGES.findall, unit) < MOST
