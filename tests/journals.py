"""Questions and answers of a journal, written and looked for."""

from __future__ import annotations

import asyncio

from kun_builder.models.journal.journal import Journal, question
from kun_builder.types import Completion, Request, Token


def asked(number, **changes):
    """A question and an answer."""
    messages = ({"role": "system", "content": "你是编辑。" * 20}, {"role": "user", "content": f"第{number}篇"})
    tokens = (Token("好", -0.25, (("好", -0.25), ("差", -1.5))),)
    request = Request(messages, max_new_tokens=64, stop=("。",), choices=("好", "差"), **changes)
    return question("org/model", "abc", request), Completion(f"答案{number}" * 30, "stop", 10, 20, 5, tokens)


def write(folder, count, start=0):
    """A closed journal with so many generations; their keys."""

    async def main():
        log = Journal.open(folder)
        pairs = [asked(number) for number in range(start, start + count)]
        await asyncio.gather(*(log.put(*pair) for pair in pairs))
        await log.close()
        return [pair[0].key for pair in pairs]

    return asyncio.run(main())


def found(folder, keys, **options):
    """How many of the keys the journal finds, each with its right answer."""
    log = Journal.open(folder, **options)
    answers = [log.get(key) for key in keys]
    assert all(
        answer in (None, answered(number, key)) for number, (key, answer) in enumerate(zip(keys, answers, strict=True))
    )
    return sum(answer is not None for answer in answers)


def answered(number, key):
    """What the journal should say."""
    completion = asked(number)[1]
    return Completion(completion.text, "stop", 10, 20, 5, completion.tokens, key, True)
