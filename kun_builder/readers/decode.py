"""From the bytes of one record to text or JSON values.

UTF-8 first. Other bytes are tried as GB18030 and as Big5, and taken for the one whose characters are nearly all common
ones in that encoding: the wrong one of the two, or UTF-8 with a byte lost, gives rare characters. What stays in doubt
is quarantined, not guessed. A lone surrogate (`"\\ud83d"`, half an emoji) carries nothing and is left out.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from typing import Any

import orjson

from kun_builder.readers.cursor import BROKEN_JSON, NOT_UTF8, broken
from kun_builder.types import Record

BLANK = b" \t\r\n\v\f\x00"
"""Bytes that are blank: a line of nothing else is no record."""

NO_ENCODING = "neither UTF-8 nor, beyond doubt, GB18030 or Big5"

# Lead bytes of punctuation and of the frequent characters (level 1 of each standard), after the codec that reads them.
_LEGACY = {
    "gb18030": ("gb2312", (0xA1, 0xA3, *range(0xB0, 0xD8))),
    "big5hkscs": ("big5", (0xA1, 0xA2, *range(0xA4, 0xC7))),
}
_COMMON = 0.9  # measured: right text has 0.97 and more in either encoding, the wrong one and broken UTF-8 under 0.85
_FEWEST = 4  # characters beyond ASCII; fewer prove nothing


def decode(raw: bytes) -> str | None:
    """The text of `raw` without a byte order mark, or None where its encoding is in doubt."""
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        codec = legacy_codec(raw)
        return raw.decode(codec) if codec else None


def legacy_codec(raw: bytes) -> str:
    """The legacy encoding of `raw`, or "" where it is UTF-8 or in doubt."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        share, codec = max(_legacy(raw), default=(0.0, ""))
        return codec if share >= _COMMON else ""
    return ""


def _legacy(raw: bytes) -> Iterable[tuple[float, str]]:
    """Legacy encodings that can decode `raw`, each behind the share of common characters among those beyond ASCII."""
    for codec in _LEGACY:
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            continue
        foreign = [char for char in text if char > "\x7f"]
        if len(foreign) >= _FEWEST:
            common = _common_characters(codec)
            yield sum(char in common for char in foreign) / len(foreign), codec


@functools.cache
def _common_characters(codec: str) -> frozenset[str]:
    standard, leads = _LEGACY[codec]
    cells = (bytes((lead, trail)) for lead in leads for trail in range(0x40, 0xFF))
    return frozenset(char for cell in cells for char in cell.decode(standard, "ignore") if char > "\x7f")


def clean(value: Any) -> Any:
    """The JSON value without lone surrogates, which no encoding can hold."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "ignore").decode("utf-8")
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


def json_record(raw: bytes, index: int, offset: int) -> Record:
    """Parse one record, leniently (control characters, surrogates, NaN) if strict JSON fails; a broken record if that
    fails too."""
    try:
        return Record(index, orjson.loads(raw), offset)
    except orjson.JSONDecodeError:
        pass
    text = decode(raw)
    if text is None:
        return broken(NOT_UTF8, NO_ENCODING, index, offset, raw)
    try:
        return Record(index, clean(json.loads(text.strip(BLANK.decode()), strict=False)), offset)
    except (ValueError, RecursionError) as error:
        return broken(BROKEN_JSON, error, index, offset, raw)
