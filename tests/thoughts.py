"""A question to a thinking model, its thought and its answer."""

import asyncio

from servers.loopback import loopback

from kun_builder import ModelSpec, Request
from kun_builder.engines import openai

THOUGHT = "用户问茶叶，我先想一想。"


ANSWER = "茶叶要放在阴凉干燥的地方。"


CHAT = ({"role": "user", "content": "茶叶怎么保存？"},)


def logprobs(*texts):
    return {"content": [{"token": t, "logprob": -0.1, "top_logprobs": [{"token": t, "logprob": -0.1}]} for t in texts]}


def ask(server, **options):
    """The answer to a question with room for ten tokens, and who was met."""

    async def inner():
        async with (
            loopback(server) as url,
            openai.connect(ModelSpec(name="m", endpoints=(url,)), **options) as (endpoint,),
        ):
            about = await endpoint.info()
            return await endpoint.complete(Request(CHAT, max_new_tokens=10)), about

    return asyncio.run(inner())
