"""From a file to plain byte streams: gzip, bzip2, xz, Zstandard, tar and zip, nested as they come, told by content.

A stream that breaks ends there: what came before is good, and `failure` says why it ended.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

from kun_builder.readers.addresses import name_of
from kun_builder.readers.places import is_ranged, open_anywhere, open_stream
from kun_builder.readers.remote import Read

CHUNK = 1 << 20

_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)
_NESTED = 5  # containers within containers; an archive may contain itself


class Stream:
    """Bytes under a name. `position` counts the bytes that were handed out. If the stream broke, `failure` says why and
    `rest` is its unfinished last record, as (position, bytes), if its reader has found one.

    read: gives at most that many bytes, and none only at the end, like the `read` of a raw file.
    path: a file or an address with the same bytes, if there is one.
    hidden: whether the stream is no data: a dot file, or what macOS adds to archives.
    """

    def __init__(self, read: Read, name: str, *, path: str = "", failure: str = "", hidden: bool = False) -> None:
        self.name, self.path, self.failure, self.hidden = name, path, failure, hidden
        self.position = 0
        self.rest: tuple[int, bytes] | None = None
        self._read, self._ahead = read, b""

    def read(self, size: int = CHUNK) -> bytes:
        """Read up to `size` bytes; none at the end, or where the stream broke."""
        data = self._ahead[:size] or self._raw(size)
        self._ahead = self._ahead[size:]
        self.position += len(data)
        return data

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end. They are not taken: `read` gives them again."""
        while len(self._ahead) < size and (data := self._raw(CHUNK)):
            self._ahead += data
        return self._ahead[:size]

    def feed_lines(self) -> None:
        """Replace carriage returns by line feeds from here on; positions stay the same."""
        read = self._read
        self._ahead = self._ahead.replace(b"\r", b"\n")
        self._read = lambda size: read(size).replace(b"\r", b"\n")

    def _raw(self, size: int) -> bytes:
        if self.failure:
            return b""
        try:
            return self._read(size)
        except _DAMAGE as error:
            self.failure = str(error) or type(error).__name__
            return b""


def _nothing(size: int) -> bytes:
    return b""


@contextmanager
def open_file(path: str, progress: Callable[[int], None] | None = None) -> Iterator[Stream]:
    """The file as a stream; `progress` is told of the bytes read of it. Raises SourceError if it cannot be read."""
    with open_stream(path) as read:
        yield Stream(counted(read, progress), name_of(path), path=path)


def counted(read: Read, progress: Callable[[int], None] | None) -> Read:
    """A `read` that tells `progress` how many bytes it gave."""

    def telling(size: int) -> bytes:
        data = read(size)
        if progress:
            progress(len(data))
        return data

    return telling


def unpack(stream: Stream, depth: int = 0) -> Iterator[Stream]:
    """Yield the plain streams inside `stream`, in order. Each must be read before the next one is asked for.

    An archive that is broken between two members yields an empty stream with a `failure`.
    """
    head = stream.peek(512)
    opener = next((opener for magic, opener in _COMPRESSED if magic.match(head)), None)
    if depth == _NESTED:
        yield stream
    elif opener:
        yield from unpack(Stream(opener(stream), _COMPRESSED_NAME.sub("", stream.name)), depth + 1)
    elif head[257:262] == b"ustar" or stream.name.endswith(".tar"):
        yield from _tar(stream, depth + 1)
    elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _zip(stream, depth + 1)
    else:
        yield stream


# --- compression -----------------------------------------------------------------------------------------------


def _gzip(stream: Stream) -> Read:
    return gzip.GzipFile(fileobj=stream, mode="rb").read1  # type: ignore[call-overload,no-any-return]


def _streams(decoder_type: Callable[[], Any]) -> Callable[[Stream], Read]:
    """The opener for bzip2 or xz, whose files may have several streams in a row with zeros between them."""

    def opener(stream: Stream) -> Read:
        decoder = decoder_type()

        def read(size: int) -> bytes:
            nonlocal decoder
            while True:
                data = b""
                if decoder.eof:
                    data = decoder.unused_data.lstrip(b"\0")
                    while not data and (chunk := stream.read(_COMPRESSED_CHUNK)):
                        data = chunk.lstrip(b"\0")
                    if not data:
                        return b""
                    decoder = decoder_type()
                elif decoder.needs_input and not (data := stream.read(_COMPRESSED_CHUNK)):
                    raise EOFError("the compressed data is cut off")
                if out := decoder.decompress(data, size):
                    return bytes(out)

        return read

    return opener


def _zstandard(stream: Stream) -> Read:
    """Frames one after the other; those to be skipped, as pzstd writes them, are skipped by the decoder itself."""
    import zstandard

    decoder: Any = None
    pending, failure = b"", ""

    def step() -> bytes:
        nonlocal decoder, pending, failure
        if decoder is None or decoder.eof:
            decoder = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
        data, pending = pending[:_ZSTANDARD_STEP], pending[_ZSTANDARD_STEP:]
        try:
            out: bytes = decoder.decompress(data)
        except zstandard.ZstdError as error:
            failure, out = str(error), b""
        if decoder.eof:
            pending = decoder.unused_data + pending
        return out

    def read(size: int) -> bytes:
        nonlocal pending
        parts, have = [], 0
        while have < size and not failure and (pending := pending or stream.read(_COMPRESSED_CHUNK)):
            parts.append(step())
            have += len(parts[-1])
        if not have and (failure or (decoder is not None and not decoder.eof)):  # what was good is handed out first
            raise EOFError(failure or "the last Zstandard frame is cut off")
        return b"".join(parts)

    return read


_COMPRESSED_CHUNK = 1 << 16
_ZSTANDARD_STEP = 1 << 9
"""Bytes that the decoder gets at a time. It has no limit for its output, and one byte may become up to 32 KB."""

_COMPRESSED: tuple[tuple[re.Pattern[bytes], Callable[[Stream], Read]], ...] = (
    (re.compile(rb"\x1f\x8b"), _gzip),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _zstandard),
    (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), _streams(bz2.BZ2Decompressor)),
    (re.compile(rb"\xfd7zXZ\x00|\x5d\x00\x00"), _streams(lzma.LZMADecompressor)),
)
PACKED = ("", ".gz", ".bz2", ".xz", ".zst")
"""Ends of the names of files, bare and compressed, for the `files` of a source."""
_COMPRESSED_NAME = re.compile(r"\.(gz|zst|zstd|bz2|xz|lzma)$", re.IGNORECASE)


# --- archives --------------------------------------------------------------------------------------------------


def _member(member: Stream, depth: int) -> Iterator[Stream]:
    parts = PurePosixPath(member.name).parts
    member.hidden = "__MACOSX" in parts or any(part.startswith(".") and part != ".." for part in parts)
    yield from [member] if member.hidden else unpack(member, depth)


def _tar(stream: Stream, depth: int) -> Iterator[Stream]:
    """Members of a tar archive. After a broken header comes the next whole one (`ignore_zeros`)."""
    damage: list[str] = []

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
            try:
                return super().frombuf(buf, encoding, errors)
            except tarfile.HeaderError as error:
                if buf and bytes(buf).strip(b"\0"):  # tarfile itself would end here, and say nothing
                    damage.append(f"tar: {error}")
                raise

    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK, tarinfo=Header, ignore_zeros=True) as archive:  # type: ignore[call-overload]
            while info := archive.next():
                if damage:
                    yield Stream(_nothing, stream.name, failure=damage[0])
                    damage.clear()
                if info.isfile():
                    member = Stream(_tar_member(archive, info, stream), info.name)
                    yield from _member(member, depth)
                    if member.failure:
                        return
    except tarfile.TarError as error:
        damage.append(f"tar: {error}")
    if failure := stream.failure or (damage and damage[0]):
        yield Stream(_nothing, stream.name, failure=failure)


def _tar_member(archive: Any, info: tarfile.TarInfo, stream: Stream) -> Read:
    """The `read` of one member, straight from the archive's file: `extractfile` loses good bytes of a cut archive."""
    left = info.size

    def read(size: int) -> bytes:
        nonlocal left
        data: bytes = archive.fileobj.read(min(size, left))
        if left and not data:
            raise EOFError(f"{info.name} is cut off: {stream.failure or 'the archive ends'}")
        left -= len(data)
        return data

    return read


def _zip(stream: Stream, depth: int) -> Iterator[Stream]:
    """Members of a zip archive. Its directory stands at its end, so the archive must be in a file."""
    with seekable(stream) as file:
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            yield Stream(_nothing, stream.name, failure=f"zip: {error}")
            return
        if "[Content_Types].xml" in archive.namelist():
            yield Stream(_nothing, stream.name, failure="an Office document (docx, xlsx, pptx): save it as text or CSV")
            return
        for info in archive.infolist():
            if info.is_dir():
                continue
            try:
                member: Any = archive.open(info)
            except (zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: encrypted, or a method unknown to us
                yield Stream(_nothing, info.filename, failure=f"zip: {error}")
                continue
            with member:
                yield from _member(Stream(member.read1, info.filename), depth)


@contextmanager
def seekable(stream: Stream) -> Iterator[IO[bytes]]:
    """The stream's bytes as a file that can be read in any order, copied to a temporary one if need be."""
    if stream.path and is_ranged(stream.path):
        with open_anywhere(stream.path) as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        while data := stream.read():
            copy.write(data)
        copy.seek(0)
        yield copy
