"""Stage `length`: tokens of a text, in the tokenizer of the model that will read it.

Tokens are what a context and a bill are made of; the original method discards what is longer than 512 of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from kun_builder import BatchStage, KunError, TokenizerName, drop_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

CHARACTERS = "characters"

_EXCERPT = 4
_MARGIN = 1.5
"""Of a text with more than `_EXCERPT * max_tokens` characters, that many are counted first. If they alone exceed the
limit by this factor, the rest is not tokenized: the excerpt can end within a word, which changes the count of its last
word only, never by half the limit."""


def run(
    table: pa.Table,
    *,
    min_tokens: Annotated[int, Field(ge=0)] = 16,
    max_tokens: Annotated[int, Field(ge=1)] = 512,
    tokenizer: TokenizerName = "auto",
) -> pa.Table:
    """Add `tokens` (special tokens not counted); drop `too_short` and `too_long` texts, with their number of tokens.

    The default minimum is about one sentence: what is shorter is a title, a menu entry or a caption. The number of a
    text far beyond the limit is that of its beginning, so at least that. `tokenizer` comes here resolved: the
    path of a `tokenizer.json`, or `characters`, which leaves out white space. Raises KunError if it cannot be read.
    """
    import pyarrow as pa

    count = counter(tokenizer)
    tokens = _count(table["text"].to_pylist(), max_tokens, count)
    table = table.append_column("tokens", pa.array(tokens, pa.int64()))
    table = drop_rows(table, [number < min_tokens for number in tokens], "too_short", tokens)
    return drop_rows(table, [number > max_tokens for number in tokens], "too_long", tokens)


def _count(texts: Sequence[str], max_tokens: int, count: Callable[[Sequence[str]], list[int]]) -> list[int]:
    size = _EXCERPT * max_tokens
    tokens = count([text[:size] for text in texts])
    unsure = [row for row, text in enumerate(texts) if len(text) > size and tokens[row] <= _MARGIN * max_tokens]
    for row, number in zip(unsure, count([texts[row] for row in unsure]), strict=True):
        tokens[row] = number
    return tokens


@cache
def counter(name: str) -> Callable[[Sequence[str]], list[int]]:
    """A function from texts to their numbers of tokens, special tokens not counted."""
    if name == CHARACTERS:
        return _characters
    tokenizer = load(name)

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return count


@cache
def load(name: str) -> Tokenizer:
    """The tokenizer in the file `name`, which neither cuts nor pads."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(name)
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise KunError(
            f"length: {name} is no tokenizer: {str(error).splitlines()[0]}",
            hint=f"`tokenizer:` takes a Hub id, a model folder, a tokenizer.json, or `{CHARACTERS}`",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _characters(texts: Sequence[str]) -> list[int]:
    return [sum(map(len, text.split())) for text in texts]


stage = BatchStage(name="length", run=run, adds={"tokens": "int64"})
