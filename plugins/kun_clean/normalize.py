"""Stage `normalize`: one way to write the same text, and nothing in it that cannot be seen.

Composed Unicode (NFC), no control characters but newline and tab, no invisible or direction-changing ones, one kind of
line break, no white space at line ends or in runs. Full-width forms and mojibake stay: the first are Chinese
typography, the second is a fault that later stages must see.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from kun_builder import BatchStage, drop_rows

from .characters import simplify as to_simplified

if TYPE_CHECKING:
    import pyarrow as pa

# C0 and C1 controls, soft hyphen, zero-width space and its kin, direction marks and overrides, noncharacters, and tag
# characters, which carry text that only a model reads.
_INVISIBLE = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufdd0-\ufdef"
    "\ufeff\ufff9-\ufffc\ufffe\uffff\U000e0000-\U000e007f"
)
# Joiners shape emoji and the scripts between Arabic and Khmer; anywhere else they only make equal words unequal.
_JOINERS = "(?<![\u0600-\u109f\u1780-\u18af\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]+"
_HIDDEN = re.compile(f"[{_INVISIBLE}]+|{_JOINERS}")
_BREAKS = "\r\x0b\x0c\x85\u2028\u2029"
_BREAK = re.compile(f"\r\n|[{_BREAKS}]")
_ODD = re.compile(f"[{_BREAKS}{_INVISIBLE}\u200c\u200d]")
"""What one of the two above may change: most texts have none of it, and one set of characters is looked for quickly."""
_TYPOGRAPHIC = "\u00a0\u1680\u2000-\u200a\u202f\u205f"
_BLANK = f"[ \t\u3000{_TYPOGRAPHIC}]"  # all white space that the steps before leave, but the line feed
# Runs of blanks, and single ones that do not stay; each begins with one set of characters, which is quick to look for.
_SPACE = re.compile(f"{_BLANK}(?:{_BLANK}++(?P<ends>$)?|(?P<end>$)|(?<=[{_TYPOGRAPHIC}])|(?<=^\u3000))", re.MULTILINE)
_LINES = re.compile("\n{3,}")
# What only the steps above can mend, as Arrow's regular expressions (RE2) find it, ten times faster than Python's.
_UNTIDY = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x{a0}\x{ad}\x{61c}\x{1680}\x{180e}\x{2000}-\x{200f}\x{2028}-\x{202f}\x{205f}-\x{206f}"
    r"\x{fdd0}-\x{fdef}\x{feff}\x{fff9}-\x{fffc}\x{fffe}\x{ffff}\x{e0000}-\x{e007f}]"
    r"|[^ \t\n\x{3000}][ \t\x{3000}]{2}|[ \t\x{3000}]\n|\n[ \t]*\x{3000}|\n\n\n"
)
_ENDS = "\n \t\u3000"


def run(table: pa.Table, *, simplify: bool = False) -> pa.Table:
    """Normalise `text`; what has nothing left is dropped as `empty`. `simplify`: traditional to simplified Chinese."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = table["text"].to_pylist()
    if simplify:
        texts = [to_simplified(text) for text in texts]
    untidy = pc.match_substring_regex(pa.array(texts, pa.string()), _UNTIDY).to_pylist()
    texts = [normalize_text(text) if bad else _compose(text) for text, bad in zip(texts, untidy, strict=True)]
    at = table.schema.get_field_index("text")
    table = table.set_column(at, table.schema.field(at), pa.array(texts, table.schema.field(at).type))
    return drop_rows(table, [not text for text in texts], "empty", [""] * len(texts))


def normalize_text(text: str) -> str:
    """`text`, normalised; doing it again changes nothing."""
    if _ODD.search(text):
        text = _BREAK.sub("\n", text)
        while (
            seen := _compose(_HIDDEN.sub("", text))
        ) != text:  # composing reorders marks, and may move what a joiner joins
            text = seen
    return _LINES.sub("\n\n", _SPACE.sub(_one_space, _compose(text))).strip(_ENDS)


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip(_ENDS)


def _one_space(match: re.Match[str]) -> str:
    """What becomes of blanks: nothing at a line's end; at its beginning, indentation by ASCII spaces and tabs means
    something in code and lists, and stays; else a run becomes its first character."""
    run = match[0]
    if match["end"] is not None or match["ends"] is not None:
        return ""
    if match.start() == 0 or match.string[match.start() - 1] == "\n":
        return "" if run.strip(" \t") else run
    return run[0] if len(run) > 1 and run[0] in "\t\u3000" else " "


stage = BatchStage(name="normalize", run=run)
