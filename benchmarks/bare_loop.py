"""The yardstick: the same requests by a bare asyncio and aiohttp loop that is told the right concurrency.

It keeps nothing, retries nothing and writes nothing.  `bare_loop.py URL ROWS CONCURRENCY`
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import orjson

sys.path.insert(0, str(Path(__file__).parent / "plugins"))
from three_requests import REQUESTS, messages

TEXT = "文" * 300


def text(number: int) -> str:
    """The text of a row."""
    return f"第{number}篇。{TEXT}"


async def _row(session: aiohttp.ClientSession, url: str, number: int) -> None:
    before = text(number)
    for name, _, tokens in REQUESTS:
        prompt = messages(name, text(number), before)
        body = {"model": "simulated/model", "messages": prompt, "max_tokens": tokens, "temperature": 0.0}
        headers = {"Content-Type": "application/json"}
        async with session.post(f"{url}/v1/chat/completions", data=orjson.dumps(body), headers=headers) as answer:
            before = orjson.loads(await answer.read())["choices"][0]["message"]["content"]


async def _worker(session: aiohttp.ClientSession, url: str, numbers: Iterator[int]) -> None:
    for number in numbers:
        await _row(session, url, number)


async def main(url: str, rows: int, concurrency: int) -> None:
    """All rows, so many at once."""
    numbers = iter(range(rows))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(_worker(session, url, numbers) for _ in range(concurrency)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
