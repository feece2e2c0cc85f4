"""UTF-16 and UTF-32 become UTF-8 before anyone looks at the bytes.

Positions in such a file are those of what `iconv -t UTF-8` gives.
"""

from __future__ import annotations

import codecs
import re

from kun_builder.readers.remote import Read
from kun_builder.readers.streams import Stream

# A byte order mark, or the zeros around the first characters of JSON, which are ASCII; a line end between zeros ends a
# hole in a damaged file.
_CODECS = (
    (re.compile(rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff"), "utf-32"),
    (re.compile(rb"\xff\xfe|\xfe\xff"), "utf-16"),
    (re.compile(rb"[!-~]\x00\x00\x00[\x01-\x7f]\x00\x00\x00"), "utf-32-le"),
    (re.compile(rb"\x00\x00\x00[!-~]\x00\x00\x00[\x01-\x7f]"), "utf-32-be"),
    (re.compile(rb"[\[{]\x00[\x01-\x7f]\x00"), "utf-16-le"),
    (re.compile(rb"\x00[\[{]\x00[\x01-\x7f]"), "utf-16-be"),
)


def as_utf8(stream: Stream) -> Stream:
    """The same text in UTF-8. Half a surrogate pair carries nothing and is left out."""
    head = stream.peek(8)
    codec = next((codec for pattern, codec in _CODECS if pattern.match(head)), "")
    return Stream(_transcoded(stream, codec), stream.name, hidden=stream.hidden) if codec else stream


def _transcoded(stream: Stream, codec: str) -> Read:
    decoder = codecs.getincrementaldecoder(codec)("surrogatepass")

    def read(size: int) -> bytes:
        while data := stream.read(size):
            if text := _decode(decoder, data, False).encode("utf-8", "ignore"):
                return text
        if stream.failure:
            raise EOFError(stream.failure)
        return _decode(decoder, b"", True).encode("utf-8", "ignore")

    return read


def _decode(decoder: codecs.IncrementalDecoder, data: bytes, final: bool) -> str:
    try:
        return decoder.decode(data, final)
    except UnicodeError as error:
        raise EOFError(f"no longer UTF-16 or UTF-32: {error}") from error
