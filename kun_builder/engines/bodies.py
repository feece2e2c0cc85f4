"""Bodies of answers: read up to a limit, then JSON in the forms in which servers and gateways really send it.

Beyond strict JSON these are: a byte order mark, white space that keeps a connection alive, NaN and Infinity, half a
surrogate pair (the rest of an emoji that the token limit cut off; it is left out), and an event stream that nobody
asked for.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import IO, TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import aiohttp

ASIDE_LIMIT = 16 << 20
"""Most bytes of an answer that is no generation: a list of models, metrics, a token count."""
_ROOM = 1 << 20
_PER_TOKEN, _PER_ALTERNATIVE = 1024, 512
_CHUNK = 1 << 16
_PLAIN, _PACKED = {"", "identity"}, {"gzip", "x-gzip", "deflate"}
_ANY_HEAD = zlib.MAX_WBITS | 32  # that of gzip or of zlib
_BOM = b"\xef\xbb\xbf"
_HALF = re.compile("[\ud800-\udfff]")


class TooLong(Exception):
    """A body that is longer than any answer to the request can be."""


class NotAsked(Exception):
    """A body in a content encoding that was not asked for and that cannot be read here."""


def generation_limit(max_new_tokens: int, top_logprobs: int, prompt_tokens: int = 0) -> int:
    """Bytes that an answer of so many tokens, each with so many alternatives, can have at most, if it also tells of so
    many tokens of the prompt."""
    return _ROOM + max_new_tokens * (_PER_TOKEN + _PER_ALTERNATIVE * top_logprobs) + prompt_tokens * _PER_TOKEN


async def read_body(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body of at most `limit` unpacked bytes. Some gateways compress answers although that was not asked for.

    Raises TooLong, NotAsked for an encoding other than gzip and deflate, zlib.error for a broken one."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in _PLAIN | _PACKED:
        raise NotAsked(encoding)
    unpack = zlib.decompressobj(_ANY_HEAD).decompress if encoding in _PACKED else None
    parts: list[bytes] = []
    size = 0
    async for part in answer.content.iter_chunked(_CHUNK):
        if unpack:
            part = unpack(part, limit + 1 - size)  # a few kilobytes could become gigabytes
        size += len(part)
        if size > limit:
            raise TooLong(f"{limit:,} bytes")
        parts.append(part)
    return b"".join(parts)


async def save_body(answer: aiohttp.ClientResponse, target: IO[bytes]) -> None:
    """Write the body to `target`, unpacked. Raises as `read_body` does, but has no limit."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in _PLAIN | _PACKED:
        raise NotAsked(encoding)
    unpack = zlib.decompressobj(_ANY_HEAD).decompress if encoding in _PACKED else bytes
    async for part in answer.content.iter_chunked(_CHUNK):
        target.write(unpack(part))


def unpacked_start(payload: bytes, most: int) -> bytes:
    """The first `most` bytes of a body that may be compressed."""
    try:
        return zlib.decompressobj(_ANY_HEAD).decompress(payload, most)
    except zlib.error:
        return payload


def parse_body(payload: bytes) -> Any:
    """The JSON in a body. Raises ValueError where there is none."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        payload = payload.removeprefix(_BOM).removeprefix(_BOM).strip()
    if payload.startswith((b"data:", b"event:", b"id:", b"retry:", b":")):
        try:
            return _of_stream(payload)
        except (AttributeError, TypeError, LookupError) as error:
            raise ValueError("a stream of events in an unforeseen shape") from error
    return _lenient(payload)


def _lenient(payload: bytes) -> Any:
    try:
        return _whole(json.loads(payload.decode(json.detect_encoding(payload))))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _whole(value: Any) -> Any:
    """`value` without lone halves of surrogate pairs, which UTF-8 cannot encode."""
    if isinstance(value, str):
        return _HALF.sub("", value)
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _of_stream(payload: bytes) -> Any:
    """One answer put together from the events of a stream: the pieces of its message in a row."""
    events = [line[5:].strip() for line in payload.splitlines() if line.startswith(b"data:")]
    parsed = [_lenient(event) for event in events if event and event != b"[DONE]"]
    whole: dict[str, Any] = {}
    last: dict[str, Any] = {}
    pieces: dict[str, list[str]] = {}
    tokens: list[Any] = []
    for event in filter(lambda event: isinstance(event, dict), parsed):
        whole |= {key: value for key, value in event.items() if value is not None and key != "choices"}
        for choice in event.get("choices") or ():
            last |= {key: value for key, value in choice.items() if value is not None}
            tokens += (choice.get("logprobs") or {}).get("content") or ()
            for key, value in (choice.get("delta") or choice.get("message") or {"text": choice.get("text")}).items():
                if isinstance(value, str) and key != "role":
                    pieces.setdefault(key, []).append(value)
    if last:
        said: dict[str, Any] = {key: "".join(parts) for key, parts in pieces.items()}
        said = {"text": said["text"]} if "text" in said else {"message": said}
        logprobs = {"logprobs": {"content": tokens}} if tokens else {}
        kept = {key: value for key, value in last.items() if key not in ("delta", "message")}
        whole["choices"] = [{**kept, **logprobs, **said}]
    if not whole:
        raise ValueError("a stream without events")
    return whole
