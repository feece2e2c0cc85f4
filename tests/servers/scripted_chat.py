"""A chat server that is one function: it is given each request and says what to answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiohttp import web
from servers.loopback import loopback

Said: TypeAlias = "str | dict[str, Any] | web.Response"
"""A text, a whole choice, or a response of any kind."""


class Chat:
    """The server's state: the bodies of the requests, but for the questions of the start."""

    def __init__(self, say: Callable[[dict[str, Any]], Said], model: str) -> None:
        self.asked: list[dict[str, Any]] = []
        self.url = ""
        self.healthy = True
        self.loading = 0
        """Requests of any kind that are still to be answered with 503."""
        self._say, self._model = say, model

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        if self.loading:
            self.loading -= 1
            return web.Response(status=503)
        if request.path == "/health":
            return web.Response(status=200 if self.healthy else 503)
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": self._model, "owned_by": "test", "max_model_len": 4096}]})
        if request.path != "/v1/chat/completions":
            return web.Response(status=404)
        body = json.loads(await request.text())
        if "Say yes." not in body["messages"][-1]["content"]:  # no question of the start
            self.asked.append(body)
            said = self._say(body)
        else:
            said = "ready"
        if isinstance(said, web.Response):
            return said
        choice = said if isinstance(said, dict) else {"message": {"content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
        return web.json_response({"choices": [choice], "usage": usage})


@asynccontextmanager
async def chat(say: Callable[[dict[str, Any]], Said], model: str = "org/model") -> AsyncIterator[Chat]:
    """A server at `.url` that answers what `say` returns for the body of a request."""
    server = Chat(say, model)
    async with loopback(server.handle) as server.url:
        yield server
