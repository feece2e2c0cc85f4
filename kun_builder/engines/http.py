"""Requests to model servers over one aiohttp session: bytes out, JSON in, failures sorted by HTTP status.

409, 424, 429, 5xx, time-outs, broken connections and answers that are not JSON are transient; 400, 413 and 422 blame
the input; every other refusal concerns us and stops the run, and so does a code for an account without credit. The text
of an answer never decides anything; it is only shown, without secrets.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from kun_builder.engines.address import Address, proxy_for
from kun_builder.engines.bodies import ASIDE_LIMIT, NotAsked, TooLong, parse_body, read_body, save_body, unpacked_start
from kun_builder.engines.reported import NO_CREDIT, NO_KEY, is_unpaid
from kun_builder.errors import FatalError, ModelError, RejectedError, RequestError, TransientError
from kun_builder.retry_after import asked_pause
from kun_builder.types import ModelSpec

if TYPE_CHECKING:  # a third of a second of CPU, which every command that only looks at plugins would pay
    import ssl

    import aiohttp
    from yarl import URL

Post = Callable[..., Awaitable[tuple[Any, Mapping[str, str]]]]
"""A function that sends a request, with the parameters and the result of `Server.post`."""

_TRANSIENT = frozenset({408, 409, 424, 425, 429, 499})
_REJECTED = frozenset({400, 413, 422})
_HINTS = {
    401: NO_KEY,
    402: NO_CREDIT,
    403: "the model's `api_key` is not allowed to use this model; check it in the recipe",
    404: "check `endpoints` (an address with a path is used as it is, to one without `/v1` is added) and `model`",
    407: "the proxy wants a user and a password: http_proxy=http://USER:PASSWORD@HOST:PORT",
}
SECRET = re.compile(r"(?i)\b(?:hf_|sk-|bearer\s+)[\w.~+/=-]{6,}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")
_SHOWN = 300
_LONGEST_ERROR = 1 << 16
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_AT_ONCE = 1.0
"""Seconds within which a kept connection that its server has just closed shows that it was."""
_CONNECT, _ASIDE = 10.0, 10.0
"""Seconds to open a connection; seconds for a request that is not a generation."""


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session without a limit of connections: how many requests are in flight is decided elsewhere.

    It keeps no cookies and asks for no compression, which would cost CPU for answers of a few hundred bytes.
    """
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=30, ssl=_trusted())
    headers = {"Accept-Encoding": "identity", "User-Agent": "kun-builder"}
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        yield session


def _trusted() -> ssl.SSLContext | bool:
    """The certificates to trust: those of the system or `SSL_CERT_FILE`, and those of `REQUESTS_CA_BUNDLE` or
    `CURL_CA_BUNDLE`, by which other clients are told of a company's own. Raises ModelError if it holds none."""
    import ssl

    name = next((name for name in _BUNDLES if os.path.exists(os.environ.get(name, ""))), "")
    if not name:
        return True
    context, place = ssl.create_default_context(), os.environ[name]
    try:
        context.load_verify_locations(**{"capath" if os.path.isdir(place) else "cafile": place})
    except (ssl.SSLError, OSError) as error:
        hint = f"let {name} name a file of certificates (PEM), or unset it"
        raise ModelError(f"{name}: {place} cannot be used: {error}", hint=hint) from error
    return context


@asynccontextmanager
async def open_servers(spec: ModelSpec) -> AsyncIterator[list[Server]]:
    """The servers behind `endpoints` of a model, over one session. Raises ModelError if there are none."""
    if not spec.endpoints:
        raise ModelError(
            f"model {spec.name!r} has no endpoints", hint="give `endpoints: [http://host:port]` or `--endpoint URL`"
        )
    async with open_session() as session:
        yield [
            Server(session, url, api_key=spec.api_key, timeout=spec.timeout, headers=spec.headers)
            for url in spec.endpoints
        ]


class Server:
    """One server address with its key. Redirects are not followed: the key goes to this address and no other."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        api_key: str = "",
        timeout: float = 600.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`url` is the address of the API, with or without a `/v1` where that is all of its path; user and password in
        it become basic authentication and are never shown.

        `timeout` is in seconds and holds for one generation. `headers` go along with every request and are never shown
        either. Raises ModelError if `url` is not an http(s) address, or its proxy cannot be used.
        """
        import ssl

        import aiohttp
        from multidict import CIMultiDict

        self._address = Address.read(url)
        self.url = self._address.shown
        self._session = session
        self._headers = CIMultiDict({"Content-Type": "application/json"})
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._headers.update(headers or {})
        self._form_headers = CIMultiDict(self._headers)
        self._form_headers.popall("Content-Type")  # the form has its own
        self._proxy = proxy_for(self._address)
        hidden = (api_key, *(headers or {}).values(), *self._address.secrets)
        self._secrets = tuple(filter(None, hidden + (self._proxy.secrets if self._proxy else ())))
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(_CONNECT, timeout))
        self._aside = aiohttp.ClientTimeout(total=min(_ASIDE, timeout))
        self._paths: dict[str, URL] = {}
        self._untrusted_by = (aiohttp.ClientSSLError, ssl.SSLError)
        self._dropped_by = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)
        self._refused_by = aiohttp.ClientConnectorError
        self._broken_by = (aiohttp.ClientError, OSError, zlib.error)  # a TimeoutError is an OSError

    async def post(
        self, path: str, body: Mapping[str, object], *, aside: bool = False, limit: int = ASIDE_LIMIT
    ) -> tuple[Any, Mapping[str, str]]:
        """POST `body` as JSON; returns the parsed answer and its headers.

        `aside` allows 10 seconds instead of the model's `timeout`. Raises RejectedError for an answer of more than
        `limit` bytes, else what `failure` makes of the status."""
        try:
            data = orjson.dumps(body)
        except orjson.JSONEncodeError as error:
            raise RejectedError(
                f"{self.url}: the request cannot be written as JSON: {error}",
                endpoint=self.url,
                hint="the text holds half a surrogate pair; the normalize stage removes such characters",
            ) from error
        payload, headers = await self._ask("POST", path, data, self._aside if aside else self._timeout, limit)
        return self._parse(path, payload), headers

    async def get(self, path: str) -> Any:
        """GET `path` and return the parsed answer."""
        return self._parse(path, (await self._ask("GET", path, None, self._aside))[0])

    async def upload(self, path: str, file: Path, purpose: str) -> Any:
        """POST a file as a form; the parsed answer."""
        import aiohttp

        with file.open("rb") as content:
            form = aiohttp.FormData({"purpose": purpose})
            form.add_field("file", content, filename=file.name, content_type="application/jsonl")
            return self._parse(path, (await self._ask("POST", path, form, self._timeout))[0])

    async def download(self, path: str, target: IO[bytes]) -> None:
        """GET `path` and write the answer, of any size, to `target`."""
        await self._ask("GET", path, None, self._timeout, target=target)

    async def text(self, path: str) -> str:
        """GET `path` and return the answer as it is."""
        return (await self._ask("GET", path, None, self._aside))[0].decode("utf-8", "replace")

    async def _ask(
        self,
        method: str,
        path: str,
        data: bytes | aiohttp.FormData | None,
        times: aiohttp.ClientTimeout,
        limit: int = ASIDE_LIMIT,
        target: IO[bytes] | None = None,
    ) -> tuple[bytes, Mapping[str, str]]:
        began = time.monotonic()
        try:
            try:
                return await self._send(method, path, data, times, limit, target)
            except self._dropped_by as error:  # also by servers that close every connection and say nothing of it
                if isinstance(error, self._refused_by) or time.monotonic() - began > _AT_ONCE:
                    raise
                return await self._send(method, path, data, times, limit, target)
        except TooLong as error:
            message = f"{self._shown_route(path)} answered more than the {error} that were to be expected"
            raise RejectedError(message, status=200, endpoint=self.url) from error
        except NotAsked as error:
            message = f"{self._shown_route(path)} answered in the encoding {str(error)!r:.40}, which was not asked for"
            hint = "let the server or gateway send its answers uncompressed, as `Accept-Encoding: identity` asks it to"
            raise FatalError(message, endpoint=self.url, hint=hint) from error
        except self._untrusted_by as error:
            raise self._untrusted(error) from error
        except self._broken_by as error:
            raise self._broken(error) from error

    async def _send(
        self,
        method: str,
        path: str,
        data: bytes | aiohttp.FormData | None,
        times: aiohttp.ClientTimeout,
        limit: int,
        target: IO[bytes] | None,
    ) -> tuple[bytes, Mapping[str, str]]:
        url = self._paths.get(path)
        if url is None:
            url = self._paths[path] = self._address.route(path)
        async with self._session.request(
            method,
            url,
            data=data,
            headers=self._headers if data is None or isinstance(data, bytes) else self._form_headers,
            allow_redirects=False,
            proxy=self._proxy.url if self._proxy else None,
            timeout=times,
        ) as answer:
            if 200 <= answer.status < 300:
                if target is None:
                    return await read_body(answer, limit), answer.headers
                await save_body(answer, target)
                return b"", answer.headers
            payload = unpacked_start(await answer.content.read(_LONGEST_ERROR), _LONGEST_ERROR)
            raise self.failure(answer.status, path, payload, answer.headers)

    def _parse(self, path: str, payload: bytes) -> Any:
        try:
            return parse_body(payload)
        except ValueError as error:
            shown = self.shown(payload[:_SHOWN].decode("utf-8", "replace"))
            message = f"{self._shown_route(path)} answered something that is not JSON: {shown or 'nothing'}"
            hint = "check the address in `endpoints`: a gateway or a web page answers there" if b"<" in payload else ""
            raise TransientError(message, status=200, endpoint=self.url, hint=hint) from error

    def failure(self, status: int, path: str, payload: bytes, headers: Mapping[str, str]) -> RequestError:
        """The error that stands for an answer with this status: TransientError, RejectedError or FatalError."""
        body = _body(payload)
        said = self.shown(headers.get("Location", "") if 300 <= status < 400 else _message(body))
        through = f", through {self._proxy.shown}" if self._proxy else ""
        message = f"{self._shown_route(path)} answered {status}{through}" + (f": {said}" if said else "")
        if is_unpaid(body):
            return FatalError(message, status=status, endpoint=self.url, hint=NO_CREDIT)
        if status in _TRANSIENT or status >= 500:
            wait = asked_pause(headers.get("Retry-After", ""))
            return TransientError(message, status=status, endpoint=self.url, retry_after=wait)
        if status in _REJECTED:
            return RejectedError(message, status=status, endpoint=self.url)
        hint = _HINTS.get(status, "check the address in `endpoints`")
        if 300 <= status < 400:
            hint = "give the address that the server points to in `endpoints`; a key is sent nowhere else"
        return FatalError(message, status=status, endpoint=self.url, hint=hint)

    def _broken(self, error: BaseException) -> TransientError:
        said = self.shown(str(error)) or type(error).__name__
        if isinstance(error, TimeoutError):
            said = "no answer within the time allowed (`timeout` of the model)"
        if self._proxy is None:
            return TransientError(f"{self.url}: {said}", endpoint=self.url)
        hint = f"check the proxy, or let {self._address.base.host} be reached without one: add it to `no_proxy`"
        return TransientError(f"{self.url}, through {self._proxy.shown}: {said}", endpoint=self.url, hint=hint)

    def _untrusted(self, error: BaseException) -> FatalError:
        message = f"{self.url}: no secure connection: {self.shown(str(error))}"
        hint = "check whether the server speaks https; SSL_CERT_FILE names the certificates to trust"
        return FatalError(message, endpoint=self.url, hint=hint)

    def _shown_route(self, path: str) -> str:
        """The URL that was asked, for people."""
        return self.shown(str(self._address.route(path).with_user(None).with_query(None)))

    def shown(self, said: str) -> str:
        """A server's words, short, on one line, without secrets."""
        for secret in self._secrets:
            said = said.replace(secret, "***")
        said = _UNPRINTABLE.sub(" ", SECRET.sub("***", said)).strip()
        return said if len(said) <= _SHOWN else said[: _SHOWN - 3] + "..."


def _body(payload: bytes) -> object:
    """An error body, parsed; the text itself if it is no JSON."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return payload[: 4 * _SHOWN].decode("utf-8", "replace")


def _message(body: object) -> str:
    """What an error body says: OpenAI's `error.message`, TGI's `error`, FastAPI's `detail`, or the text itself."""
    for _ in range(2):
        if not isinstance(body, dict):
            break
        body = next((body[key] for key in ("error", "message", "detail") if body.get(key)), "")
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
