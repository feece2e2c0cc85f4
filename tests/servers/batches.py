"""A batch API on 127.0.0.1, in a thread: OpenAI's `/v1/files`, `/v1/batches` and `/v1/chat/completions`.

An answer is a function of the request. `plan` says, by the number of the batch, how it ends; what was asked is counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web

Ending = str
"""`completed`, `expired` (every other request answered), `failed:CODE`, `cancelled`, or `never`."""


class BatchAPI:
    """The state of the server. `lines` are the requests of all batches, `singles` those asked directly."""

    def __init__(self, answer: Callable[[dict[str, Any]], tuple[int, Any]], plan: Sequence[Ending] = ()) -> None:
        self.answer, self.plan = answer, list(plan)
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.lines: list[dict[str, Any]] = []
        self.singles: list[dict[str, Any]] = []
        self.kill = 0
        """A process that is killed once a batch is made, before it hears of it."""
        self.polls = 0
        self.refuses = self.down = False
        self.url = ""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path == "/v1/models":
            return web.json_response({"data": [{"id": "m", "max_model_len": 4096}]})
        if path == "/v1/chat/completions":
            self.singles.append(await request.json())
            status, body = self.answer(self.singles[-1])
            return web.json_response(body, status=status)
        if path == "/v1/files" and self.refuses:
            return web.json_response({"error": {"message": "no files today"}}, status=413)
        if path == "/v1/files":
            return web.json_response({"id": await self._uploaded(request)})
        if found := re.fullmatch(r"/v1/files/([\w-]+)/content", path):
            return web.Response(body=self.files[found[1]])
        if path == "/v1/batches":
            return self._made(await request.json()) if request.method == "POST" else self._listed(request)
        if (found := re.fullmatch(r"/v1/batches/([\w-]+)", path)) and found[1] in self.batches:
            self.polls += 1
            if self.down:
                return web.json_response({}, status=503)
            batch = self.batches[found[1]]
            if batch["status"] == "validating" and batch["plan"] != "never":
                self._end(batch)
            return web.json_response(batch)
        return web.json_response({"error": {"message": "no such thing"}}, status=404)

    async def _uploaded(self, request: web.BaseRequest) -> str:
        request._client_max_size = 1 << 28  # files are larger than what aiohttp takes by itself
        form = await web.Request.post(request)  # type: ignore[arg-type]
        assert form["purpose"] == "batch"
        file = f"file-{len(self.files)}"
        self.files[file] = form["file"].file.read()  # type: ignore[union-attr]
        return file

    def _made(self, asked: dict[str, Any]) -> web.StreamResponse:
        assert asked["completion_window"] == "24h"
        number = len(self.batches)
        plan = self.plan[number] if number < len(self.plan) else "completed"
        batch = {"id": f"batch-{number}", "object": "batch", "status": "validating", "plan": plan, **asked}
        batch["created_at"] = 4_000_000_000 + number
        self.batches[batch["id"]] = batch
        if not plan.startswith("failed"):
            lines = self.files[asked["input_file_id"]].splitlines()
            assert all(json.loads(line)["url"] == asked["endpoint"] for line in lines)
            self.lines += [json.loads(line)["body"] for line in lines]
        if self.kill:
            os.kill(self.kill, signal.SIGKILL)
            self.kill = 0
        return web.json_response(batch)

    def _listed(self, request: web.BaseRequest) -> web.StreamResponse:
        newest = sorted(self.batches.values(), key=lambda batch: -batch["created_at"])
        after = request.query.get("after")
        start = next((at + 1 for at, batch in enumerate(newest) if batch["id"] == after), 0)
        page = newest[start : start + 2]  # however many were asked for
        return web.json_response({"data": page, "has_more": start + 2 < len(newest)})

    def _end(self, batch: dict[str, Any]) -> None:
        batch["status"], _, code = batch["plan"].partition(":")
        if code:
            batch["errors"] = {"data": [{"code": code, "message": "so it is", "line": 1}]}
            return
        outputs, errors = [], []
        for number, line in enumerate(map(json.loads, self.files[batch["input_file_id"]].splitlines())):
            result = {"id": f"r{number}", "custom_id": line["custom_id"], "response": None, "error": None}
            if batch["status"] != "completed" and number % 2:
                errors.append({**result, "error": {"code": "batch_expired", "message": "too late"}})
                continue
            status, body = self.answer(line["body"])
            result["response"] = {"status_code": status, "request_id": "r", "body": body}
            (outputs if status == 200 else errors).append(result)
        if batch["status"] == "cancelled":
            errors = []
        for name, results in (("output_file_id", outputs[::-1]), ("error_file_id", errors)):
            if results:
                batch[name] = f"file-{len(self.files)}"
                self.files[batch[name]] = "".join(json.dumps(result) + "\n" for result in results).encode()


@contextmanager
def batch_api(answer: Callable[[dict[str, Any]], tuple[int, Any]], plan: Sequence[Ending] = ()) -> Iterator[BatchAPI]:
    """A running batch API."""
    api, loop = BatchAPI(answer, plan), asyncio.new_event_loop()

    async def start() -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(api), shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        api.url = f"http://{host}:{port}"
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
