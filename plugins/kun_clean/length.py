"""Stage `length`: tokens of a text, in the tokenizer of the model that will read it.

Tokens are what a context and a bill are made of; the original method discards what is longer than 512 of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from kun_builder import BatchStage, KunError, Quantity, TokenizerName, drop_rows

from .characters import seen

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

    from .characters import Array

CHARACTERS = "characters"

_EXCERPT = 4
_MARGIN = 1.5
"""Of a text with more than `_EXCERPT * max_tokens` characters, that many are counted first. If they alone exceed the
limit by this factor, the rest is not tokenized: the excerpt can end within a word, which changes the count of its last
word only, never by half the limit."""

_MANY = 1000
"""Texts from which on it pays to load the faster tokenizer."""

_MEMORY = 64 << 20
"""Characters after which the faster tokenizer is loaded anew: it remembers every word, up to ten bytes a character."""

_PROBE = (
    "",
    "\n \r\n\r\n  x\t\tif (a<=b) { return 0x1F; }",
    "don't WE'LL I'M ſ's 1234567890 １２３ Ⅷ ½ ٣",
    "人工智能，是研究、开发的一门新技术科学。　全角　空格",
    "e\u0301 é Å ﬁ ǅ İ \u00a0\u2028\u200d\ufeff\0\x7f",
    "😀👩\u200d👩\u200d👧 🇨🇳 한국어 ภาษาไทย हिन्दी العربية",
    "a" * 300 + "。" * 300,
    "<s></s><unk><pad>[CLS]<|endoftext|><|im_start|>user<think>",
)
"""Texts on which tokenizers differ where they differ at all: white space, digits, composition, control tokens."""


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
    path of a `tokenizer.json`, or `characters`, which leaves out white space. Raises KunError if it cannot be read,
    or no length is between the limits.
    """
    import numpy as np
    import pyarrow as pa

    if min_tokens > max_tokens:
        raise KunError(f"`length`: no text has {min_tokens} tokens or more and at most {max_tokens}")

    count = counter(tokenizer)

    def in_python(texts: pa.ChunkedArray) -> Array:
        return np.array(count(texts.to_pylist()), np.int64)

    tokens = _count(table["text"], max_tokens, seen if tokenizer == CHARACTERS else in_python)
    table = table.append_column("tokens", pa.array(tokens, pa.int64()))
    table = drop_rows(table, tokens < min_tokens, "too_short", tokens)
    return drop_rows(table, tokens > max_tokens, "too_long", tokens)


def _count(texts: pa.ChunkedArray, max_tokens: int, count: Callable[[pa.ChunkedArray], Array]) -> Array:
    import pyarrow.compute as pc

    size = _EXCERPT * max_tokens
    long = pc.greater(pc.utf8_length(texts), size).to_numpy()
    tokens = count(pc.utf8_slice_codeunits(texts, 0, size) if long.any() else texts)
    unsure = long & (tokens <= _MARGIN * max_tokens)
    if unsure.any():
        tokens[unsure] = count(texts.filter(unsure))
    return tokens


@cache
def counter(name: str) -> Callable[[Sequence[str]], list[int]]:
    """A function from texts to their numbers of tokens, special tokens not counted."""
    if name == CHARACTERS:
        return _characters
    tokenizer, fast = load(name), _Fast(name)

    def count(texts: Sequence[str]) -> list[int]:
        if len(texts) >= _MANY and fast.usable:
            return fast.count(texts)
        return [len(encoding) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return count


class _Fast:
    """Counts as `tokenizers` does, some ten times faster, by gigatoken."""

    def __init__(self, name: str) -> None:
        self._name, self._known = name, 0
        self._tokenizer: Any = None

    @cached_property
    def usable(self) -> bool:
        """Whether gigatoken knows this kind of tokenizer, and counts the tokens of `_PROBE` alike."""
        try:
            self._load()
        except Exception:  # gigatoken names no error of its own for what it does not know
            return False
        texts = [*_PROBE, "".join(_PROBE)]
        slow = load(self._name).encode_batch_fast(texts, add_special_tokens=False)
        return self._count(texts) == [len(encoding) for encoding in slow]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        self._known += sum(map(len, texts))
        if self._known > _MEMORY:
            self._load()
        return self._count(texts)

    def _load(self) -> None:
        import gigatoken

        self._tokenizer, self._known = gigatoken.Tokenizer.from_json(Path(self._name).read_bytes()), 0

    def _count(self, texts: Sequence[str]) -> list[int]:
        import awkward

        counts: list[int] = awkward.num(self._tokenizer.encode_batch(list(texts))).tolist()
        return counts


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
    """Characters that are no white space."""
    import pyarrow as pa

    counts: list[int] = seen(pa.chunked_array([pa.array(texts, pa.string())])).tolist()
    return counts


TOKENS = Quantity(title="length of the text", unit="tokens", least="min_tokens", most="max_tokens")
stage = BatchStage(name="length", run=run, adds={"tokens": "int64"}, quantities={"tokens": TOKENS})
