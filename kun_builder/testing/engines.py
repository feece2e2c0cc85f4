"""`check_engine`: an engine against a server on 127.0.0.1 that behaves, refuses, hangs and breaks off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Literal

from aiohttp import web

from kun_builder.errors import FatalError, RejectedError, RequestError, TransientError
from kun_builder.testing.faults import declared, expect
from kun_builder.types import Completion, Endpoint, Engine, ModelSpec, Request

Reply = Callable[[str, Any], Any]
"""What a healthy server answers: path and JSON body (None without one) to JSON, or to a pair of JSON and headers."""

_CLASSES: dict[str | int, type[RequestError]] = {
    **dict.fromkeys((424, 429, 500, 502, 503, 504), TransientError),
    **dict.fromkeys((400, 413, 422), RejectedError),
    **dict.fromkeys((401, 403, 404), FatalError),
}
_PROMPT = "床前明月光"
_HASTE, _PATIENCE = 0.5, 60.0  # seconds for an answer of a server that hangs, and of one that only has a busy machine
_SOON = 5.0  # seconds within which a cancelled request has to end


def check_engine(
    engine: Engine,
    reply: Reply,
    *,
    prompt: Literal["chat", "completion"] = "completion",
    tokenizer: str = "",
    **options: Any,
) -> Completion:
    """Check `engine` against the protocol that `reply` speaks; returns the answer to one good request.

    Checked: who it says is there; an answer, with the log-probabilities that it claims to have; the class of error for
    each status, with the server's `Retry-After`; a broken connection, an answer that is none, a server that hangs: all
    are worth another attempt; cancelling, which must reach the server; health and queue, which never raise; nothing
    left behind. Raises AssertionError.
    """
    declared("engine", engine)
    spec = {"name": "test", "engine": engine.name, "prompt": prompt, "tokenizer": tokenizer, "options": options}
    return asyncio.run(_check(engine, _Server(reply), spec))


class _Server:
    """A server whose `mode` can be changed: `good`, a status, `hang`, `break` or `garbage`.

    Statuses that blame the input come only for the prompt of the test: an engine may ask something else to find out
    what it is that the server refuses.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.mode: str | int = "good"
        self.reached, self.left = asyncio.Event(), asyncio.Event()
        """Set when a request has come while the server hangs, and when its client has closed the connection."""
        self.hanging = 0
        """Requests that wait for nothing at present."""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        asked = json.loads(body) if body else None
        blamed = _CLASSES.get(self.mode) is not RejectedError or _PROMPT in json.dumps(asked, ensure_ascii=False)
        if isinstance(self.mode, int) and blamed:  # what is refused as wrong input is wrong in itself
            return web.json_response({"error": "as asked"}, status=self.mode, headers={"Retry-After": "7"})
        if self.mode == "hang":
            self.hanging += 1
            self.reached.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.hanging -= 1
                self.left.set()
        if self.mode == "break" and request.transport is not None:
            request.transport.abort()
        if self.mode == "garbage":
            return web.Response(text="<html>", content_type="text/html")
        answer = self._reply(request.path, asked)
        value, headers = answer if isinstance(answer, tuple) else (answer, {})
        return web.json_response(value, headers=headers)


@asynccontextmanager
async def _serve(server: _Server) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(server, handler_cancellation=True), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def _check(engine: Engine, server: _Server, facts: dict[str, Any]) -> Completion:
    request = Request(_PROMPT if facts["prompt"] == "completion" else ({"role": "user", "content": _PROMPT},))
    async with _serve(server) as url:
        before = asyncio.all_tasks()
        spec = ModelSpec(**facts, endpoints=(url,), timeout=_PATIENCE)
        async with engine.connect(spec, **spec.options) as endpoints:
            expect(len(endpoints) == 1, f"engine `{engine.name}`: {len(endpoints)} endpoints for one address")
            completion = await _good(engine, endpoints[0], request)
            await _statuses(engine, server, endpoints[0], request)
            await _failure(engine, server, endpoints[0], request, "break", "a broken connection")
            await _failure(engine, server, endpoints[0], request, "garbage", "an answer that is no JSON")
        async with engine.connect(replace(spec, timeout=_HASTE), **spec.options) as endpoints:
            with suppress(RequestError):  # a busy machine
                await endpoints[0].info()
            await _failure(engine, server, endpoints[0], request, "hang", "a time-out")
        async with engine.connect(spec, **spec.options) as endpoints:
            await _cancelled(engine, server, endpoints[0], request)
        left = [task for task in asyncio.all_tasks() - before if task.get_coro().__qualname__ not in _AIOHTTP]  # type: ignore[union-attr]
        expect(not left, f"engine `{engine.name}` leaves tasks behind: {left}")
    return completion


_AIOHTTP = {"RequestHandler.start"}
"""Tasks of the test's own server."""


async def _good(engine: Engine, endpoint: Endpoint, request: Request) -> Completion:
    info = await endpoint.info()
    expect(info.id, f"engine `{engine.name}`: `info` does not say which model answers")
    expect(await endpoint.healthy(), f"engine `{engine.name}`: a server that answers is healthy")
    queued = await endpoint.queued()
    expect(queued is None or queued >= 0, f"engine `{engine.name}`: `queued` is {queued}")
    completion = await endpoint.complete(request)
    expect(completion.text, f"engine `{engine.name}`: the answer has no text")
    expect(completion.finish_reason in ("stop", "length"), f"finish_reason is {completion.finish_reason!r}")
    counts = (completion.prompt_tokens, completion.completion_tokens)
    expect(all(count > 0 for count in counts), f"engine `{engine.name}`: tokens in and out are {counts}: ask for usage")
    if info.logprobs:
        tokens = (await endpoint.complete(Request(request.prompt, max_new_tokens=1, top_logprobs=5))).tokens
        expect(tokens, f"engine `{engine.name}` says that it has log-probabilities, but there is none")
        good = all(token.logprob <= 0 and token.text in dict(token.top) for token in tokens)
        expect(
            good,
            f"engine `{engine.name}`: a token is among its own alternatives, with the log of its probability: {tokens}",
        )
    if info.prompt_logprobs:
        asked = Request(request.prompt, max_new_tokens=1, prompt_logprobs=True)
        told = (await endpoint.complete(asked)).prompt_logprobs
        expect(told, f"engine `{engine.name}` says that it can tell how likely a prompt is, and does not")
        expect(all(token.logprob <= 0 for token in told), f"engine `{engine.name}`: no log-probabilities: {told}")
    return completion


async def _statuses(engine: Engine, server: _Server, endpoint: Endpoint, request: Request) -> None:
    for status, kind in _CLASSES.items():
        server.mode = status
        error = await _error(engine, endpoint, request, f"status {status}")
        expect(
            type(error) is kind,
            f"engine `{engine.name}`: status {status} raises {type(error).__name__}, not {kind.__name__}",
        )
        expect(error.status == status, f"engine `{engine.name}`: an error for {status} has `status` {error.status}")
        expect(error.endpoint, f"engine `{engine.name}`: an error for {status} does not name its endpoint")
        if kind is TransientError:
            expect(
                error.retry_after == 7, f"engine `{engine.name}` does not hear `Retry-After: 7`: {error.retry_after}"
            )
    server.mode = "good"


async def _failure(engine: Engine, server: _Server, endpoint: Endpoint, request: Request, mode: str, what: str) -> None:
    server.mode = mode
    error = await _error(engine, endpoint, request, what)
    expect(
        type(error) is TransientError,
        f"engine `{engine.name}`: {what} raises {type(error).__name__}, not TransientError",
    )
    await endpoint.queued()
    expect(
        not await endpoint.healthy() or mode == "garbage",
        f"engine `{engine.name}`: after {what} it is still healthy",
    )
    server.mode = "good"


async def _error(engine: Engine, endpoint: Endpoint, request: Request, what: str) -> RequestError:
    try:
        await endpoint.complete(request)
    except RequestError as error:
        return error
    except Exception as error:  # whatever else it raises is the finding
        raise AssertionError(f"engine `{engine.name}`: {what} raises {error!r}: it must be a RequestError") from error
    raise AssertionError(f"engine `{engine.name}`: {what} raises nothing")


async def _cancelled(engine: Engine, server: _Server, endpoint: Endpoint, request: Request) -> None:
    """Check that a cancelled request ends at once, at the server too, which else would go on for nobody."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SOON):
            while server.hanging:  # noqa: ASYNC110  # those of the time-out, whose clients have gone
                await asyncio.sleep(0)
    server.mode = "hang"
    server.reached.clear()
    server.left.clear()
    task = asyncio.ensure_future(endpoint.complete(request))
    with suppress(TimeoutError):
        await asyncio.wait_for(server.reached.wait(), _SOON)
    task.cancel()
    with suppress(asyncio.CancelledError, TimeoutError):
        await asyncio.wait_for(task, _SOON)
    expect(task.cancelled(), f"engine `{engine.name}` goes on when it is cancelled")
    with suppress(TimeoutError):
        await asyncio.wait_for(server.left.wait(), _SOON)
    expect(server.left.is_set(), f"engine `{engine.name}`: the server does not notice that a request was cancelled")
    server.mode = "good"
