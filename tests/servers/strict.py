"""A server that is strict about the fields of a request, and an `openai` endpoint at it."""

from __future__ import annotations

import asyncio

from aiohttp import web
from servers.loopback import loopback

from kun_builder import ModelSpec
from kun_builder.engines import openai

CHAT = ({"role": "user", "content": "茶叶怎么保存？"},)


class Strict:
    """A server that answers 422 to a field it does not know, as `transformers serve` does; keeps what it was asked."""

    def __init__(self, *known, status=422, check=lambda body: True, answer=None):
        self.known = {"model", "messages", "prompt", "max_tokens", *known}
        self.status, self.check, self.answer = status, check, answer or self.plain
        self.bodies = []

    def plain(self, body):
        return {"choices": [{"message": {"content": "是。也是。"}, "finish_reason": "stop"}]}

    async def __call__(self, request):
        if request.method == "GET":
            return web.json_response({"data": [{"id": "tiny", "max_model_len": 2048}]})
        body = await request.json()
        self.bodies.append(body)
        if body.keys() - self.known or not self.check(body):
            return web.json_response({"detail": "Unexpected fields"}, status=self.status)
        return web.json_response(self.answer(body))


def run(server, work, **spec):
    """What `work(endpoint)` gives at a server."""

    async def inner():
        async with (
            loopback(server) as url,
            openai.connect(ModelSpec(name="m", endpoints=(url,), **spec)) as (endpoint,),
        ):
            return await work(endpoint)

    return asyncio.run(inner())
