"""Files that are told by their first bytes and not read: each is named, with what to do about it."""

from __future__ import annotations

import re

_ARROW = "an Arrow file; `source: hub` reads a folder that `load_dataset` takes, or write it as Parquet"
_FOREIGN = (
    (rb"\x1f\x9d", "compressed by `compress` (.Z); decompress it"),
    (rb"\x04\x22\x4d\x18", "compressed by LZ4; decompress it, or compress it by Zstandard"),
    (rb"\xff\x06\x00\x00sNaPpY", "compressed by Snappy; decompress it, or compress it by Zstandard"),
    (rb"\x89LZO", "compressed by LZO; decompress it, or compress it by Zstandard"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it"),
    (rb"Rar!\x1a\x07", "a RAR archive; unpack it"),
    (rb"MSCF\x00\x00\x00\x00", "a cabinet archive; unpack it"),
    (rb"ARROW1\x00\x00|\xff\xff\xff\xff[\x00-\xff]{3}\x00\x10\x00\x00\x00", _ARROW),
    (rb"PARE", "Parquet with an encrypted footer; decrypt it"),
    (rb"ORC", "an ORC file; write it as Parquet"),
    (rb"Obj\x01", "an Avro file; write it as Parquet or JSON lines"),
    (rb"SQLite format 3\x00", "an SQLite database; export its table as CSV"),
    (rb"\x89HDF\r\n", "an HDF5 file; write it as Parquet"),
    (rb"\x93NUMPY", "a NumPy array; write its texts as JSON lines"),
    (rb"%PDF-", "a PDF; extract its text"),
    (rb"\{\\rtf", "a rich text document (RTF); save it as plain text"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document; save it as text or CSV"),
    (rb"WARC/[01]\.", "a WARC archive of web pages; extract the text of its pages"),
    (rb"\s*(?i:<!doctype html|<html[\s>])", "a web page (HTML); extract its text"),
    (rb"\s*<\?xml\s", "XML; extract its texts"),
)
_POINTER = (
    rb"version https://git-lfs\.github\.com/spec/",
    "a pointer of Git LFS, not the file itself; run `git lfs pull`",
)
_PATTERNS = tuple((re.compile(pattern), name) for pattern, name in (_POINTER, *_FOREIGN))


def foreign_format(head: bytes, *, text: bool = False) -> str:
    """What a file that begins with `head` is, and what to do about it; "" where it may be one of ours.

    text: its name says that it is plain text, which may begin as it likes; only of Git LFS there is no such text."""
    body = head.removeprefix(b"\xef\xbb\xbf")
    return next((name for pattern, name in _PATTERNS[: 1 if text else None] if pattern.match(body)), "")
