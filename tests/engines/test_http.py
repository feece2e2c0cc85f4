"""How failures of servers are told apart: against loopback servers that fail in each way."""

import asyncio
import time
from email.utils import formatdate

import pytest
from aiohttp import web
from servers.loopback import loopback

from kun_builder.engines.http import Server, open_session
from kun_builder.errors import FatalError, ModelError, RejectedError, RequestError, TransientError

TRANSIENT = [408, 409, 424, 425, 429, 499, 500, 502, 503, 504, 529]
REJECTED = [400, 413, 422]
FATAL = [401, 402, 403, 404, 405, 410, 451]


def ask(handler, *, body=None, **options):
    """What one POST to a server that answers by `handler` gives: the answer, or the error raised."""

    async def run():
        async with loopback(handler) as url, open_session() as session:
            server = Server(session, url, **{"timeout": 5, **options})
            return (await server.post("/v1/chat/completions", body or {}))[0]

    return asyncio.run(run())


def refuse(status, text="", headers=None):
    async def handler(request):
        return web.Response(status=status, text=text, headers=headers)

    return handler


@pytest.mark.parametrize(
    ("statuses", "kind"), [(TRANSIENT, TransientError), (REJECTED, RejectedError), (FATAL, FatalError)]
)
def test_the_status_alone_decides_what_a_failure_means(statuses, kind):
    """A status belongs to one class of errors whatever the message says, and the error carries status and endpoint."""
    for status in statuses:
        for text in ("", "validation error", '{"error": "overloaded, try again"}', '{"error": {"message": "401"}}'):
            with pytest.raises(RequestError) as caught:
                ask(refuse(status, text))
            assert type(caught.value) is kind, status
            assert caught.value.status == status
            assert caught.value.endpoint.startswith("http://127.0.0.1:")
            assert kind is not FatalError or caught.value.hint


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, '{"error": {"message": "check your plan", "type": "insufficient_quota", "code": null}}'),
        (429, '{"error": {"message": "check your plan", "type": "exceeded_current_quota_error"}}'),
        (400, '{"error": {"message": "check your plan", "code": "Arrearage"}}'),
        (403, '{"code": "AccountOverdueError", "message": "check your plan"}'),
    ],
)
def test_an_account_without_credit_ends_the_run(status, body):
    """Its code says so to programs, whatever the status: neither waiting nor another row helps."""
    with pytest.raises(FatalError, match="check your plan") as caught:
        ask(refuse(status, body))
    assert "no credit left" in caught.value.hint


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": {"message": "too long", "code": 400}}', "too long"),
        ('{"error": "too long", "error_type": "validation"}', "too long"),
        ('{"detail": "too long"}', "too long"),
        ('{"detail": [{"loc": ["body"], "msg": "too long"}]}', "too long"),
        ('{"message": "too long"}', "too long"),
        ("too\x1b[31m long\r\n", "too [31m long"),
        ("x" * 5000, "..."),
        ("[1]", "[1]"),
    ],
)
def test_the_error_says_what_the_server_said(body, said):
    """The server's own words are shown on one line, short, without control characters, in whatever shape they come."""
    with pytest.raises(RejectedError) as caught:
        ask(refuse(422, body))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_retry_after_in_seconds_and_as_a_date():
    """Both forms of Retry-After become seconds; nonsense becomes None."""

    def wait(value):
        with pytest.raises(TransientError) as caught:
            ask(refuse(429, headers={"Retry-After": value}))
        return caught.value.retry_after

    assert wait("7") == 7
    assert wait("0.5") == 0.5
    assert wait(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=3)
    assert wait(formatdate(time.time() - 30, usegmt=True)) == 0
    assert wait("soon") is None


def test_secrets_stay_out_of_errors():
    """A server that repeats the key, or the password of its address, does not get it into the error."""

    async def handler(request):
        return web.json_response({"error": "bad key " + request.headers["Authorization"]}, status=401)

    for key in ("plain-words-key", "hf_abcdefghijklmnop"):
        with pytest.raises(FatalError) as caught:
            ask(handler, api_key=key)
        assert key not in str(caught.value) + caught.value.endpoint + repr(caught.value)
        assert "***" in str(caught.value)

    async def passwords():
        async with open_session() as session:
            return Server(session, "http://me:secret@127.0.0.1:1/v1").url

    assert asyncio.run(passwords()) == "http://127.0.0.1:1"


def test_redirects_are_not_followed():
    """A server that points elsewhere gets an error, and elsewhere gets neither the request nor the key."""
    seen = []

    async def other(request):
        seen.append(request.headers)
        return web.json_response({})

    async def run():
        async with loopback(other) as there, open_session() as session:

            async def handler(request):
                return web.Response(status=307, headers={"Location": there})

            async with loopback(handler) as here:
                await Server(session, here, api_key="key").post("/x", {})

    with pytest.raises(FatalError, match="307"):
        asyncio.run(run())
    assert not seen


async def hang_up(request):
    request.transport.close()
    return web.Response()


async def half_an_answer(request):
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    request.transport.close()
    return response


async def stall(request):
    await asyncio.sleep(1.5)
    return web.Response()


@pytest.mark.parametrize(
    "handler",
    [hang_up, half_an_answer, stall, refuse(200, "<html>proxy</html>"), refuse(200, ""), refuse(200, '{"a":')],
)
def test_what_comes_from_the_line_is_transient(handler):
    """A broken connection, half an answer, none in time, or one that is not JSON is worth another try."""
    with pytest.raises(TransientError) as caught:
        ask(handler, timeout=0.5)
    assert len(str(caught.value)) > len(caught.value.endpoint) + 5


def test_nobody_there_is_transient():
    """A server that is not running, and a host without address, are worth another try."""

    async def run(url):
        async with open_session() as session:
            await Server(session, url, timeout=5).get("/health")

    for url in ("http://127.0.0.1:9", "http://no-such-host.invalid:80"):
        with pytest.raises(TransientError):
            asyncio.run(run(url))


def test_half_a_surrogate_pair_rejects_the_row():
    """Text that cannot be written as UTF-8 is the row's own fault and is not sent."""
    with pytest.raises(RejectedError, match="JSON"):
        ask(refuse(200, "{}"), body={"prompt": "a\ud800b"})


@pytest.mark.parametrize("url", ["gpu1:8080", "ftp://gpu1", "http://", "", "http://[::1"])
def test_a_wrong_address_is_named(url):
    """What is no http address is refused at once, with an example of one."""

    async def run():
        async with open_session() as session:
            Server(session, url)

    with pytest.raises(ModelError, match="is not an address") as caught:
        asyncio.run(run())
    assert "http://127.0.0.1:8000" in caught.value.hint


@pytest.mark.parametrize(("answers", "tries"), [(1, 5), (0, 2)], ids=["kept-too-long", "never-answers"])
def test_a_connection_that_was_closed_meanwhile_is_no_failure(answers, tries):
    """A kept connection may be closed just when the next request is sent: that one is sent once more, at once. A server
    that closes new connections too has failed."""
    opened = []

    async def serve(reader, writer):
        opened.append(writer)
        for number in range(answers + 1):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            if number < answers:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def run():
        async with await asyncio.start_server(serve, "127.0.0.1") as there, open_session() as session:
            server = Server(session, f"http://127.0.0.1:{there.sockets[0].getsockname()[1]}")
            for _ in range(5):
                await server.post("/x", {})

    if answers:
        asyncio.run(run())
    else:
        with pytest.raises(TransientError):
            asyncio.run(run())
    assert len(opened) == tries
