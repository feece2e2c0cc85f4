"""Objects behind addresses (`s3://`, `hf://`, `https://`), by any file system of fsspec: read by ranges, with retries.

Whatever breaks in the middle is asked again from the byte that is missing, and an object that was changed meanwhile is
noticed. Keys come from the environment, where the backend looks for them; none is ever part of an address.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from types import TracebackType
from typing import IO, Any, Self

from kun_builder.errors import KunError, SourceError, shown
from kun_builder.readers.addresses import public

Read = Callable[[int], bytes]
"""Gives at most that many bytes, and none only at the end, like the `read` of a raw file."""

PAUSES: tuple[float, ...] = (1, 2, 4, 8, 16, 30)
"""Seconds before each further try of a request that failed, beyond those that the backend makes by itself."""

_FIRST, _BLOCK = 1 << 16, 4 << 20
"""Bytes of the first request, which may be all that is wanted, and of each one once an object is read through."""

_KEPT = 16
"""Blocks that are kept of an object which is read in any order: Parquet is gone through twice for each row group."""

_STAMPS = (
    *("ETag", "etag", "blob_id", "xet_hash", "content_md5", "md5Hash", "Content-MD5", "generation"),
    *("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created"),
)
"""What file systems say of an object that changes with its content, the surest first."""

_AWS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), AWS_ENDPOINT_URL for a server that is not AWS, "
    "FSSPEC_S3_ANON=true for a public bucket; no key belongs into the recipe"
)
_GOOGLE = "set GOOGLE_APPLICATION_CREDENTIALS to the file with the credentials"
_AZURE = "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
_WEB = "if it needs a user and a password, put them into ~/.netrc"
_CURES = {
    "s3": _AWS,
    "s3a": _AWS,
    "hf": "set HF_TOKEN, or run `hf auth login`",
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), _AZURE),
    **dict.fromkeys(("http", "https"), _WEB),
}


def file_system(path: str) -> tuple[Any, str]:
    """The file system behind an address, and what it calls the place. Raises SourceError where no package knows it."""
    import fsspec

    scheme = path.partition("://")[0].lower()
    try:
        found: tuple[Any, str] = fsspec.url_to_fs(path, **_options(scheme))
    except ImportError as error:
        extra = "pip install 'kun-builder[s3]'" if scheme in ("s3", "s3a") else f"{error}"
        raise SourceError(f"{_shown(path)}: the package for `{scheme}://` is not installed", hint=extra) from error
    except ValueError as error:
        raise SourceError(
            f"{_shown(path)}: {error}", hint="`s3://`, `hf://` and `https://` are read, and files"
        ) from error
    except OSError as error:  # of a kind that connects at once, as `ftp://` does
        raise fault(path, "cannot be reached", error) from error
    return found


def _options(scheme: str) -> dict[str, Any]:
    """Proxies and ~/.netrc count for web addresses; a transfer may take long, but not stand still for a minute."""
    if scheme in ("s3", "s3a"):
        return {"max_concurrency": 2}  # parts of 50 MB that it has in memory of each large file which it sends
    if scheme not in ("http", "https"):
        return {}
    import aiohttp
    import fsspec

    patience = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    given = fsspec.config.conf.get(scheme, {}).get("client_kwargs", {})  # by variables or files of fsspec
    headers = {"Accept-Encoding": "identity", **given.get("headers", {})}  # bytes are counted as they are stored
    return {"client_kwargs": {"trust_env": True, "timeout": patience, **given, "headers": headers}}


@contextmanager
def told(path: str, what: str) -> Iterator[None]:
    """Turn whatever a backend raises into a SourceError that names the address and the cure."""
    try:
        yield
    except KunError:
        raise
    except Exception as error:  # each backend raises what its libraries raise
        raise fault(path, what, error) from error


def fault(path: str, what: str, error: BaseException) -> SourceError:
    """The error that says what failed at an address, why, and what to do."""
    return SourceError(f"{_shown(path)} {what}: {why(error)}", hint=cure(path))


def _shown(path: str) -> str:
    return shown(public(path))


def cure(path: str) -> str:
    """What to do where an address does not answer as hoped: what is private may look as if it were not there."""
    known = _CURES.get(path.partition("://")[0].lower())
    return f"check the address; {known}" if known else "check the address"


def why(error: BaseException) -> str:
    """The reason in one line."""
    error = _cause(error)
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status == 404:
        return "there is no such object"
    if status is not None:
        return f"HTTP {status} {getattr(error, 'message', '')}".strip()
    lines = str(error).strip().splitlines()
    return shown(f"{type(error).__name__}{': ' + lines[0][:200] if lines else ''}")


def _cause(error: BaseException) -> BaseException:
    """What happened: for web addresses fsspec raises FileNotFoundError from whatever it was."""
    cause = error.__cause__
    web = isinstance(error, FileNotFoundError) and cause is not None and not hasattr(cause, "response")
    return cause if web and cause else error


def final(error: BaseException) -> bool:
    """Whether waiting would change nothing."""
    cause = _cause(error)
    refused = isinstance(cause, FileNotFoundError | PermissionError)
    return refused or getattr(cause, "status", None) in (401, 403, 404, 410)


class Remote:
    """One object. `size` is 0 where it is not told; `stamp` differs when the content does.

    Raises SourceError, as its methods do, where it cannot be opened or read: with the address, the byte and the cure.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fs, self._place = file_system(path)
        with told(path, "cannot be opened"):
            self._about = self._info()
        self._closed = threading.Event()
        self._opened: Any = None
        self._broken = False
        self._blocks: Generator[bytes] | None = None
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._blocks:
            self._blocks.close()
        if self._opened is not None:
            self._opened.close()

    @property
    def size(self) -> int:
        """Bytes."""
        return self._about.get("size") or 0

    @property
    def stamp(self) -> tuple[Any, ...]:
        """Size and the surest mark of the content that the server tells."""
        return stamp_of(self._about)

    @cached_property
    def ranged(self) -> bool:
        """Whether any of its bytes can be asked for. Web servers do not say for sure, so they are asked for one."""
        if self._about.get("size") is None or not self._about.get("partial", True):
            return False
        if self.size < 2 or not self._path.lower().startswith("http"):
            return True
        try:
            self._range(1, 2)
            return True
        except Exception as error:  # but for ValueError, which is how fsspec says it, the reading will tell
            self._opened = None
            return not isinstance(error, ValueError)

    def stream(self, start: int = 0, end: int | None = None) -> Read:
        """A `read` of the bytes from `start` up to `end`; the next block is fetched while one is worked on."""
        self._blocks = blocks = self._parts(start, self.size if end is None else end) if self.ranged else self._whole()
        left = memoryview(b"")

        def read(size: int) -> bytes:
            nonlocal left
            left = left or memoryview(next(blocks, b""))
            data, left = left[:size], left[size:]
            return bytes(data)

        return read

    def file(self) -> IO[bytes]:
        """The object as a file that can be read in any order; it keeps the blocks that were used last."""
        from fsspec.caching import BlockCache

        cache = BlockCache(_BLOCK, lambda start, end: self._fetch(start, min(end, self.size)), self.size, _KEPT)
        return io.BufferedReader(_File(cache))

    def _parts(self, start: int, end: int) -> Generator[bytes]:
        spans = _spans(start, end)
        for span in islice(spans, 1):
            yield self._fetch(*span)
        pool = ThreadPoolExecutor(1, "kun-read-ahead")
        try:
            ahead: Future[bytes] | None = None
            for span in spans:
                following = pool.submit(self._fetch, *span)
                if ahead:
                    yield ahead.result()
                ahead = following
            if ahead:
                yield ahead.result()
        finally:
            self._closed.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _whole(self) -> Generator[bytes]:
        """All bytes, from a server that sends nothing but all: after a break, those that were had are skipped."""
        while data := self._insist(self._following, self._at):
            self._at += len(data)
            yield data
        if self._at < self.size:
            raise SourceError(f"{_shown(self._path)} ended at byte {self._at} of {self.size}", hint=_AGAIN)

    def _following(self) -> bytes:
        if self._opened is None:
            self._opened = self._open(block_size=0)
            left = self._at
            while left and (skipped := self._opened.read(min(left, _BLOCK))):
                left -= len(skipped)
        data: bytes = self._opened.read(_BLOCK)
        return data

    def _fetch(self, start: int, end: int) -> bytes:
        return self._insist(lambda: self._range(start, end), start)

    def _range(self, start: int, end: int) -> bytes:
        if self._opened is None:  # without a cache: each `read` is one request for just these bytes
            self._opened = self._open(block_size=_BLOCK, cache_type="none")
        self._opened.seek(start)
        data: bytes = self._opened.read(end - start)
        if len(data) != end - start:
            raise EOFError(f"{len(data)} bytes came where {end - start} were asked for")
        return data

    def _insist(self, read: Callable[[], bytes], at: int) -> bytes:
        """What `read` gives, however often the connection breaks, as long as the object stays the same."""
        for pause in (*PAUSES, None):
            try:
                return read()
            except KunError:
                raise
            except Exception as error:  # each backend raises what its libraries raise
                if final(error) or pause is None or self._closed.is_set():
                    raise fault(self._path, f"cannot be read from byte {at} on", error) from error
                _LOG.warning("%s: %s at byte %d; asked again", _shown(self._path), why(error), at)
            self._opened, self._broken = None, True
            self._closed.wait(pause)
        raise AssertionError("the last try returns or raises")

    def _open(self, **how: Any) -> Any:
        """Open the object, again if it broke off. Raises SourceError if it is no longer what it was."""
        if self._broken:
            self._fs.invalidate_cache()
            if stamp_of(self._info()) != self.stamp:
                raise SourceError(f"{_shown(self._path)} was changed while it was read", hint=_AGAIN)
        return self._fs.open(self._place, "rb", **how)

    def _info(self) -> dict[str, Any]:
        about: dict[str, Any] = self._fs.info(self._place)
        return about


_LOG = logging.getLogger(__name__)
_AGAIN = "run kun-build again to go on"


def stamp_of(about: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of an object differs when its content does, by what its file system tells of it."""
    return (about.get("size"), *[str(about[name]) for name in _STAMPS if about.get(name)][:1])


def _spans(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Adjacent spans of growing size from `start` to `end`."""
    size = _FIRST
    while start < end:
        stop = min(start + size, end)
        yield start, stop
        start, size = stop, min(4 * size, _BLOCK)


class _File(io.RawIOBase):
    """A file over a cache of fsspec."""

    def __init__(self, cache: Any) -> None:
        self._cache, self._at = cache, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._cache.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._cache._fetch(self._at, self._at + len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
