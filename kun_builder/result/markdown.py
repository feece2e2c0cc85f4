"""Foreign text inside Markdown: whatever a corpus contains stays where it was put.

Corpus text goes into fenced blocks whose fence is longer than any in the text; single words go into code spans or are
escaped. Control characters and those that change the direction of writing are made visible as U+FFFD.
"""

from __future__ import annotations

import html
import re

_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SPECIAL = re.compile(r"[\\`*_\[\]|~$@]|^[#+=-]|(?<=\d)[.)](?= )|:(?=//)|(?<=www)\.")
_EMOJI = re.compile(r"(?<!\d):(?=[\w+-]+:)")
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d+)?(?:/[A-Za-z0-9._~/%?=&#-]*)?")


def plain(text: object, limit: int = 0) -> str:
    """`text` without characters that a reader cannot see; cut after `limit` characters, if given."""
    clean = _INVISIBLE.sub("\ufffd", str(text).replace("\r\n", "\n").replace("\r", "\n"))
    return f"{clean[:limit]} […]" if 0 < limit < len(clean) else clean


def inside_html(text: object) -> str:
    """`text` on one line inside an HTML element, where Markdown means nothing."""
    return html.escape(_no_emoji(" ".join(plain(text).split())), quote=False)


def words(text: object, limit: int = 200) -> str:
    """`text` on one line, escaped: for a table cell, a heading or a sentence."""
    return _SPECIAL.sub(r"\\\g<0>", html.escape(_no_emoji(" ".join(plain(text, limit).split())), quote=False))


def _no_emoji(text: str) -> str:
    """The text with an invisible joiner after each colon that could begin an emoji such as `:smile:`.

    An escape would not help: it is gone by the time when the Hub looks for emoji.
    """
    return _EMOJI.sub(":\u2060", text)


def code(text: object) -> str:
    """`text` on one line as a code span, safe inside a table."""
    line = " ".join(plain(text).split()).replace("|", "\uff5c")
    ticks = "`" * (_longest(line, "`") + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}" if line else ""


def fence(text: object, limit: int = 0, language: str = "text") -> str:
    """`text` as a fenced block that nothing in it can close."""
    body = plain(text, limit).strip("\n")
    ticks = "`" * max(3, _longest(body, "`") + 1)
    return f"{ticks}{language}\n{body}\n{ticks}"


def link(address: object) -> str:
    """An address as a link if it is a plain web address, else as a code span."""
    text = str(address)
    return f"<{text}>" if _URL.fullmatch(text) else code(text)


def _longest(text: str, mark: str) -> int:
    return max((len(run) for run in re.findall(f"{re.escape(mark)}+", text)), default=0)
