"""A Hub of our own on loopback, for the real `huggingface_hub` and `datasets` clients: `HF_ENDPOINT=server.url`.

It speaks the routes that reading and writing repositories needs, with the Hub's status codes and headers. Large files
go to a second port, as they go to another host in life, so that a test can see whose credentials travel where.

    with HubServer(tmp_path, tokens={"hf_alice": {"alice", "lab"}}) as hub:
        hub.fail("commit", status=503)                   # the next commit is refused
        hub.fail("tag", nth=2, drop=True, after=True)    # the second tag is made, and the connection cut
        hub.fail("preupload", call=process.kill)         # the client dies while it asks

`hub.calls` lists every request that came, in order.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from servers.hub_access import add_routes
from servers.hub_reading import Reading
from servers.hub_store import FileEntry, Repo, Store
from servers.hub_writing import Writing


@dataclass(frozen=True)
class Call:
    """One request: the route's name, and what it carried."""

    route: str
    method: str
    path: str
    token: str
    storage: bool
    """Whether it came to the storage port."""


@dataclass
class Fault:
    """What goes wrong at the `nth` request of a route, counted from when the fault was planted."""

    route: str
    nth: int = 1
    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    call: Callable[[], object] | None = None
    after: bool = False
    """The request is carried out first; only the answer is lost."""
    answered: bool = False
    """With `after`: the answer is not lost either; nothing goes wrong but what `call` does."""
    seen: int = 0

    def hits(self) -> bool:
        """Count one request; whether this is the one."""
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


class HubServer:
    """The server, in a thread of its own. `tokens` maps each token to the namespaces it may write to."""

    def __init__(
        self,
        root: Path,
        tokens: Mapping[str, set[str]],
        *,
        xet: bool = False,
        page_size: int = 1000,
        part_size: int = 0,
    ) -> None:
        self.store = Store(root)
        self.tokens = tokens
        self.xet = xet
        self.page_size = page_size
        self.part_size = part_size
        """Above 0: large files are uploaded in parts of this many bytes."""
        self.readers: set[str] = set()
        """Tokens that may only read."""
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.url = self.storage_url = ""
        self.pages_url = ""
        self.verify_url = ""
        """Where further pages of listings are said to be, if not at `url`."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(100):
            raise RuntimeError("the test Hub did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    # --- for tests

    def fail(self, route: str, **fault: Any) -> Fault:
        """Plant a fault; see `Fault`."""
        planted = Fault(route, **fault)
        self.faults.append(planted)
        return planted

    def counts(self) -> Counter[str]:
        """How often each route was asked."""
        return Counter(call.route for call in self.calls)

    def forget(self) -> None:
        """Drop all faults and the list of calls."""
        self.faults.clear()
        self.calls.clear()

    def repo(self, repo_id: str, kind: str = "dataset") -> Repo:
        """A repository that exists."""
        repo = self.store.repo(kind, repo_id)
        assert repo is not None, f"{repo_id} does not exist"
        return repo

    def files(self, repo_id: str, revision: str = "main") -> dict[str, FileEntry]:
        """The tree of a revision."""
        oid = self.repo(repo_id).resolve(revision)
        assert oid is not None, f"{repo_id} has no {revision}"
        return self.store.files(oid)

    def read(self, repo_id: str, path: str, revision: str = "main") -> bytes:
        """A file's content."""
        return self.store.blob(self.files(repo_id, revision)[path].sha256).read_bytes()

    def commits(self, repo_id: str, revision: str = "main") -> list[str]:
        """Commit ids, newest first."""
        return [oid for oid, _ in self.store.history(self.repo(repo_id).resolve(revision))]

    def write(self, repo_id: str, files: Mapping[str, bytes | None], title: str = "by hand") -> str:
        """Commit as somebody else would, past the protocol; None deletes."""
        with self.store.lock:
            repo = self.repo(repo_id)
            tree = self.store.files(repo.branches["main"])
            for path, data in files.items():
                if data is None:
                    del tree[path]
                else:
                    tree[path] = self.store.entry(data)
            repo.branches["main"] = self.store.commit(repo.branches["main"], title, "", tree)
            self.store.save(repo)
            return repo.branches["main"]

    # --- the server

    def _run(self) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=1)
        self._loop.run_until_complete(self._start(runner))
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _start(self, runner: web.AppRunner) -> None:
        await runner.setup()
        for _ in range(2):
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports = [address[1] for address in runner.addresses]
        self.url, self.storage_url = (f"http://127.0.0.1:{port}" for port in ports)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._watch], client_max_size=2**31)
        add_routes(app, Reading(self))
        add_routes(app, Writing(self))
        return app

    @web.middleware
    async def _watch(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        """Note the request, and let happen what was planned for it."""
        route = (request.match_info.route.name or "unknown").removesuffix("-head")
        storage = request.url.port is not None and self.storage_url.endswith(f":{request.url.port}")
        token = request.headers.get("Authorization", "")
        self.calls.append(Call(route, request.method, request.path_qs, token, storage))
        fault = next((fault for fault in self.faults if fault.route in (route, "*") and fault.hits()), None)
        if fault is None or fault.after:
            try:
                response: web.StreamResponse = await handler(request)
            except web.HTTPException as refusal:
                response = refusal
            if fault is None and isinstance(response, web.HTTPException):
                raise response
            return response if fault is None else self._break(request, fault, response)
        return self._break(request, fault, web.Response(status=500))

    def _break(self, request: web.Request, fault: Fault, response: web.StreamResponse) -> web.StreamResponse:
        if fault.call is not None:
            fault.call()
        if fault.answered:
            if isinstance(response, web.HTTPException):
                raise response
            return response
        if fault.status:
            return web.Response(status=fault.status, headers=fault.headers, text="<html>an outage page</html>")
        if request.transport is not None:
            request.transport.abort()
        return response
