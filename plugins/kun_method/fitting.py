"""Fit a text into a model's context: the text gives way, at a sentence end; the rest of the prompt never does. And the
seeds of several answers to one prompt."""

from __future__ import annotations

import hashlib

from kun_builder import Drop, Generate, Prompt

from .texts import sentence_ends

_TEMPLATE = 64
"""Tokens left for what a chat template adds around the messages."""


def answer_room(generate: Generate, model: str, max_new_tokens: int) -> int:
    """`max_new_tokens`, but at most half of the context: a small context must also hold the question."""
    context = generate.info(model).context_length
    return min(max_new_tokens, context // 2) if context else max_new_tokens


async def fit(generate: Generate, model: str, prompt: Prompt, text: str, max_new_tokens: int, **slots: str) -> str:
    """The longest beginning of `text`, in whole sentences, for which `prompt` and an answer fit into the context.

    `slots` are the other values of the prompt; they are never cut. A context length of 0 is unknown: nothing is cut.

    Raises:
        Drop: `prompt_too_long` if the prompt does not even fit without text, `text_too_long` if not one sentence fits;
            the value is the number of tokens.
    """
    context = generate.info(model).context_length
    room = context - max_new_tokens - _TEMPLATE
    content = _content(prompt, text=text, **slots)
    if not context or len(content.encode(errors="replace")) <= room:  # no tokenizer makes more tokens than bytes
        return text
    tokens = await generate.count_tokens(model, content)
    if tokens <= room:
        return text
    head = await generate.count_tokens(model, _content(prompt, text="", **slots))
    if head > room:
        raise Drop("prompt_too_long", head)
    ends = [0, *sentence_ends(text)]
    fits, fails = 0, len(ends) - 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        content = _content(prompt, text=text[: ends[middle]], **slots)
        if await generate.count_tokens(model, content) <= room:
            fits = middle
        else:
            fails = middle
    if not text[: ends[fits]].strip():
        raise Drop("text_too_long", tokens)
    return text[: ends[fits]].rstrip()


def _content(prompt: Prompt, **values: str) -> str:
    filled = prompt.fill(**values)
    return filled if isinstance(filled, str) else "\n".join(message["content"] for message in filled)


def seed_of(row_id: str, attempt: int) -> int:
    """31 bits that depend on nothing but the row and the attempt."""
    digest = hashlib.sha256(f"{row_id}\n{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
