"""Stage `chunk`: long documents in pieces that a model can read, instead of dropping what is over a limit.

Each piece is a row: `wiki/a.jsonl:17` becomes `wiki/a.jsonl:17#0`, `#1` and so on, and its text is cut out of the
document's, so that the document can be found again around it. A document that fits stays as it is.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from kun_builder import BatchStage, KunError, TokenizerName

from .length import CHARACTERS, counter, load

if TYPE_CHECKING:
    import pyarrow as pa

By = Literal["sentences", "headings", "tokens"]

_CLOSING = "”’」』）】》\"'\\])"
_END = re.compile(
    f"(?:[。！？…]+|(?<![!?])[!?]++(?=[{_CLOSING}]*+(?:\\s|$))"
    f"|(?<!\\.)\\.++(?=[{_CLOSING}]*+(?:\\s++[^a-z\\s]|\\s*+$)))[{_CLOSING}]*\\s*"
    "|\n\\s*"
)
_ABBREVIATION = re.compile(r"\b(?:[A-Z]|[Mm]rs?|Ms|Dr|Prof|St|No|vs|Fig|Eq|e\.g|i\.e|al|cf)$")
_HEADING = re.compile(
    r"^(?:#{1,6}[ \t]+\S.*|第[〇零一二三四五六七八九十百千两\d]+[章节篇卷回编](?:[\s：:].{0,40})?$"
    r"|(?=[^\n]*\S)[^\n]*\n(?:={3,}|-{3,})[ \t]*$)",
    re.MULTILINE,
)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def run(
    table: pa.Table,
    *,
    by: By = "sentences",
    max_tokens: Annotated[int, Field(ge=16)] = 512,
    overlap: Annotated[int, Field(ge=0)] = 0,
    tokenizer: TokenizerName = "auto",
) -> pa.Table:
    """Cut `text` into pieces of at most `max_tokens`; add `chunk`: the characters of the document between which
    a piece stands.

    by: `sentences` fills each piece with whole sentences; `headings` does so too, but begins a piece at every heading
    (of Markdown, or 第…章), and `tokens` cuts wherever the limit is. A sentence that is longer than a piece is cut.
    overlap: up to so many tokens of one piece are the beginning of the next, in whole sentences unless `tokens` are
    cut; none across a heading. `tokenizer` as in `length`. Raises KunError if `overlap` leaves no room.
    """
    import pyarrow as pa

    if overlap > max_tokens // 2:
        raise KunError(
            f"chunk: an overlap of {overlap} tokens is more than half of a piece of {max_tokens}",
            hint="lower `overlap`, or raise `max_tokens`",
        )
    cutter = Cutter(by, max_tokens, overlap, tokenizer)
    rows, texts, spans, ids = [], [], [], []
    for row, (row_id, text) in enumerate(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True)):
        pieces = cutter.pieces(text)
        for number, (start, piece) in enumerate(pieces):
            rows.append(row)
            ids.append(f"{row_id}#{number}" if len(pieces) > 1 else row_id)
            texts.append(piece)
            spans.append([start, start + len(piece)])
    table = table.take(pa.array(rows, pa.int64()))
    made = {"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())}
    made |= {"chunk": pa.array(spans, pa.list_(pa.int64()))}
    for name, values in made.items():
        at = table.schema.get_field_index(name)
        table = table.append_column(name, values) if at < 0 else table.set_column(at, name, values)
    return table


@dataclass(frozen=True)
class Cutter:
    """Cuts texts; the options are those of the stage."""

    by: By
    max_tokens: int
    overlap: int
    tokenizer: str

    def pieces(self, text: str) -> list[tuple[int, str]]:
        """The pieces of a text with the character each begins at; all of it, if it fits in one."""
        tokens = token_starts(self.tokenizer)(text)
        if len(tokens) <= self.max_tokens and self.by != "headings":
            return [(0, text)]
        cuts = [] if self.by == "tokens" else sentence_ends(text)
        found: list[tuple[int, str]] = []
        reached = 0
        for start, end in sections(text) if self.by == "headings" else [(0, len(text))]:
            for first, last in self._spans(text, start, end, cuts, tokens):
                piece = text[first:last].strip()
                at = text.index(piece, first)
                if at + len(piece) > reached:  # else it is white space, or what the overlap has of the piece before
                    if found and found[-1][0] == at:  # the overlap has all of it, but for white space before it
                        found.pop()
                    found.append((at, piece))
                    reached = at + len(piece)
        fits = len(tokens) <= self.max_tokens and len(found) < 2
        return [(0, text)] if fits else found or [(0, "")]

    def _spans(
        self, text: str, start: int, end: int, cuts: Sequence[int], tokens: Sequence[int]
    ) -> Iterator[tuple[int, int]]:
        """Where pieces of one section begin and end."""
        reached = start  # what no piece has had yet
        while reached < end:
            stop = self._stop(text, start, end, cuts, tokens)
            if stop <= reached:  # the overlap leaves no room for the next sentence
                start = reached
                stop = self._stop(text, start, end, cuts, tokens)
            yield start, stop
            reached, start = stop, self._back(start, stop, cuts, tokens)

    def _stop(self, text: str, start: int, end: int, cuts: Sequence[int], tokens: Sequence[int]) -> int:
        """The last end of a sentence, else the last character, up to which the piece from `start` on fits."""
        count = counter(self.tokenizer)
        at, room = bisect_left(tokens, start), self.max_tokens
        while room > 0:
            far = min(end, tokens[at + room] if at + room < len(tokens) else end)
            last = bisect_right(cuts, far) - 1
            stop = far if far == end or last < 0 or cuts[last] <= start else cuts[last]
            excess = count([text[start:stop].strip()])[0] - self.max_tokens
            if excess <= 0 and stop > start:
                return stop
            room -= max(1, excess)  # cut out of its text, a piece can have other tokens at its ends
        return start + 1

    def _back(self, start: int, stop: int, cuts: Sequence[int], tokens: Sequence[int]) -> int:
        """Where the piece after `stop` begins."""
        if not (self.overlap and tokens):
            return stop
        first = tokens[max(0, bisect_left(tokens, stop) - self.overlap)]
        if self.by == "tokens":
            return max(first, start + 1)
        at = bisect_left(cuts, max(first, start + 1))
        return min(cuts[at], stop) if at < len(cuts) else stop


def token_starts(tokenizer: str) -> Callable[[str], Sequence[int]]:
    """A function that says at which characters of a text its tokens begin."""
    if tokenizer == CHARACTERS:
        return lambda text: [at for at, character in enumerate(text) if not character.isspace()]
    encode = load(tokenizer).encode
    return lambda text: [start for start, _ in encode(text, add_special_tokens=False).offsets]


def sentence_ends(text: str) -> list[int]:
    """Characters at which a sentence, or a line, has ended, and white space after it too."""
    return [
        found.end()
        for found in _END.finditer(text)
        if not (found[0][0] == "." and _ABBREVIATION.search(text, max(0, found.start() - 6), found.start()))
    ]


def sections(text: str) -> list[tuple[int, int]]:
    """First and last character of what is under each heading, itself included; a heading alone goes with the next."""
    fences = [found.span() for found in _FENCE.finditer(text)]
    starts = [found.start() for found in _HEADING.finditer(text) if not any(a <= found.start() < b for a, b in fences)]
    kept = [0]
    for at in starts:
        if _HEADING.sub("", text[kept[-1] : at]).strip():
            kept.append(at)
    return list(zip(kept, [*kept[1:], len(text)], strict=True))


stage = BatchStage(name="chunk", run=run, adds={"chunk": "list<int64>"})
