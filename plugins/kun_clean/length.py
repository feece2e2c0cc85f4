"""Stage `length`: tokens of a text, in the tokenizer of the model that will read it.

Tokens are what a context and a bill are made of; the original method discards what is longer than 512 of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from kun_builder import BatchStage, KunError, TokenizerName, drop_rows

if TYPE_CHECKING:
    import pyarrow as pa

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
    text far beyond the limit is that of its beginning, so at least that. `tokenizer` is the path of a `tokenizer.json`,
    a name or path for `transformers`, or `characters` (without white space). Raises KunError if it cannot be loaded.
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
    tokenizer = _load(name)

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return count


def _characters(texts: Sequence[str]) -> list[int]:
    return [sum(map(len, text.split())) for text in texts]


def _load(name: str) -> Any:
    """A `tokenizers.Tokenizer`, without truncation or padding of its own."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(name) if name.endswith(".json") else _pretrained(name)
    except KunError:
        raise
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise KunError(
            f"length: tokenizer `{name}` cannot be loaded: {str(error).splitlines()[0]}",
            hint="give a Hub id, the path of a tokenizer.json or of a model folder, or `characters`",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _pretrained(name: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    if not tokenizer.is_fast:
        raise KunError(
            f"length: `{name}` has no fast tokenizer", hint="convert it to a tokenizer.json, or use `characters`"
        )
    return tokenizer.backend_tokenizer


stage = BatchStage(name="length", run=run, adds={"tokens": "int64"})
