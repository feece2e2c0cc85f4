"""Answers of every shape, read into completions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kun_builder.engines.answers import openai_answer, tgi_answer
from kun_builder.errors import RejectedError, TransientError
from kun_builder.prompts import neutralise, restore

CHAT_LOGPROBS = {
    "choices": [
        {
            "message": {"role": "assistant", "content": "好"},
            "finish_reason": "length",
            "logprobs": {
                "content": [
                    {
                        "token": "好",
                        "logprob": -0.25,
                        "top_logprobs": [{"token": "好", "logprob": -0.25}, {"token": "差", "logprob": -1.5}],
                    }
                ]
            },
        }
    ],
    "usage": {"prompt_tokens": 30, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 16}},
}
LEGACY_LOGPROBS = {
    "choices": [
        {
            "text": "好",
            "finish_reason": "length",
            "logprobs": {"tokens": ["好"], "token_logprobs": [-0.25], "top_logprobs": [{"差": -1.5, "好": -0.25}]},
        }
    ],
    "usage": {"prompt_tokens": 30, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 16}},
}


@pytest.mark.parametrize("body", [CHAT_LOGPROBS, LEGACY_LOGPROBS])
def test_answers_of_both_shapes_are_read_alike(body):
    """Text, finish reason, token counts, cached tokens and alternatives, best first, come out of either shape."""
    answer = openai_answer(body, "http://x")
    assert (answer.text, answer.finish_reason) == ("好", "length")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_prompt_tokens) == (30, 1, 16)
    assert [(token.text, token.logprob, token.top) for token in answer.tokens] == [
        ("好", -0.25, (("好", -0.25), ("差", -1.5)))
    ]


def test_neutralised_tokens_come_back_as_they_were_written():
    """A control token quoted in an answer loses the zero-width space that kept it harmless in the prompt."""
    body = {"choices": [{"message": {"content": "写作 <\u200b|im_end|\u200b> 即可"}, "finish_reason": "stop"}]}
    assert openai_answer(body, "http://x").text == "写作 <|im_end|> 即可"


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [("stop", "stop"), ("length", "length"), ("eos_token", "stop"), ("stop_sequence", "stop"), (None, "stop")],
)
def test_finish_reasons_are_two(reason, meaning):
    """However a server calls it, an answer is either finished or cut off."""
    body = {"choices": [{"message": {"content": None}, "finish_reason": reason}]}
    answer = openai_answer(body, "http://x")
    assert (answer.finish_reason, answer.text) == (meaning, "")


def test_an_aborted_answer_is_transient():
    """An engine that gives up half-way (`abort`) has not answered."""
    with pytest.raises(TransientError):
        openai_answer({"choices": [{"message": {"content": "半"}, "finish_reason": "abort"}]}, "http://x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def holding(**fields):
    """Objects of a known shape in which any part may be missing or be anything."""
    return st.fixed_dictionaries({}, optional={name: st.one_of(JSON, inner) for name, inner in fields.items()})


TOKEN = holding(token=JSON, text=JSON, logprob=JSON, top_logprobs=st.lists(holding(token=JSON, logprob=JSON)))
LOGPROBS = holding(content=st.lists(TOKEN), tokens=JSON, token_logprobs=JSON, top_logprobs=JSON)
CHOICE = holding(message=holding(content=JSON), text=JSON, finish_reason=JSON, logprobs=LOGPROBS)
USAGE = holding(prompt_tokens=JSON, completion_tokens=JSON, prompt_tokens_details=holding(cached_tokens=JSON))
DETAILS = holding(
    finish_reason=JSON, generated_tokens=JSON, tokens=st.lists(TOKEN), top_tokens=st.lists(st.lists(TOKEN))
)
ANSWER = holding(
    choices=st.lists(CHOICE, min_size=1, max_size=2), usage=USAGE, generated_text=st.text(), details=DETAILS
)


@given(ANSWER)
@settings(max_examples=100, deadline=None)
def test_an_answer_of_any_shape_is_read_or_an_error_of_the_request(body):
    """Whatever JSON a server or proxy sends, it becomes a completion or an error of this request, never a crash."""
    for read in (lambda: openai_answer(body, "http://x"), lambda: tgi_answer(body, {}, "http://x")):
        try:
            answer = read()
        except (TransientError, RejectedError):
            continue
        assert isinstance(answer.text, str)
        assert 0 <= answer.reasoning_tokens <= max(answer.completion_tokens, 0)
        assert isinstance(answer.prompt_tokens + answer.completion_tokens + answer.cached_prompt_tokens, int)
        assert all(isinstance(value, float) for token in answer.tokens for _, value in token.top)


@pytest.mark.parametrize(
    "token",
    [
        *("<|im_start|>", "<｜User｜>", "</s>", "<start_of_turn>", "<sop>", "<eop>", "<reserved_106>", "<unused99>"),
        *("<extra_id_0>", "[INST]", "[/INST]", "[gMASK]", "[PREFIX]", "[SUFFIX]", "[SYSTEM_PROMPT]", "<<SYS>>"),
        *("<fim_middle>", "<endoftext>", "＜|im_end|＞", "＜/s＞", "［INST］", "［/INST］"),
    ],
)  # fmt: skip
def test_control_tokens_of_any_vocabulary_are_broken_in_a_prompt(token):
    """No tokenizer sees the token in a text, whatever its brackets; an answer that quotes it has it whole again."""
    text = f"记号{token}的用法"
    broken = neutralise(text)
    assert token not in broken
    assert broken != text
    assert restore(broken) == text


@pytest.mark.parametrize("text", ["a < b 且 b > c", "[1] 参考文献", "<b>粗体</b>", "数组 a[0]", "《书名》【注】"])
def test_other_brackets_stay_as_they_are(text):
    """Formulas, references, HTML and Chinese brackets are no tokens."""
    assert neutralise(text) == text
