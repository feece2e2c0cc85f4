"""Requests by way of a batch API: collected into files, uploaded, waited for, and answered out of files.

The protocol is OpenAI's `/v1/files` and `/v1/batches`, which many others speak. The id of a batch is on disk before
anything waits for it. A batch that was made but not noted is found again by its metadata, so that none is paid twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from kun_builder.engines.batch_wave import ID_LENGTH, Wave, left_behind
from kun_builder.engines.http import Server
from kun_builder.errors import FatalError, KunError, RejectedError, RequestError, TransientError

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
"""What one file may have: OpenAI's limits, 50,000 requests and 200 MB."""
_MARK = "kun_builder"
_WINDOW = "24h"
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})
_LATER = frozenset({"token_limit_exceeded", "rate_limit_exceeded"})
"""Codes of batches that were refused because too many tokens are queued: the same file is tried again."""
_PASSING = frozenset({"batch_expired", "batch_cancelled", "server_error", "rate_limit_exceeded"})
_PAGE, _DAY = 100, 86_400


class Batches:
    """Carries requests of one endpoint. `async with` takes over what a killed process has left."""

    def __init__(
        self, server: Server, folder: Path, *, most: int = MOST_REQUESTS, linger: float, poll: float, wait: float
    ) -> None:
        """most: requests of a batch. linger: seconds without another request after which a batch is sent. poll: seconds
        between looks at it. wait: seconds for which the API may be out of reach."""
        self._server, self._folder = server, folder
        self._most, self._linger, self._poll, self._wait = min(most, MOST_REQUESTS), linger, poll, wait
        self._waves: list[Wave] = []
        self._open: dict[str, Wave] = {}
        self._lines: dict[str, Wave] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Batches:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for wave in left_behind(self._folder):
            self._waves.append(wave)
            self._lines.update(dict.fromkeys(wave.results, wave))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wave in self._waves:
            wave.close()

    async def post(self, path: str, body: Mapping[str, object], *, limit: int = 0) -> tuple[Any, Mapping[str, str]]:
        """The answer to `body` as `Server.post` gives it, once its batch has it; hours may pass.

        `limit` has no effect in batches."""
        data = orjson.dumps(body)
        line_id = hashlib.blake2b(path.encode() + data, digest_size=ID_LENGTH // 2).hexdigest()
        while True:
            wave = self._lines.get(line_id) or self._collect(path, line_id, data)
            if wave.idle:
                wave.idle = False
                log.warning(
                    "%s: going on with a batch of an earlier run: %s", self._server.url, wave.batch or wave.name
                )
                self._start(self._bring_back(wave))
            result = await asyncio.shield(wave.results[line_id])
            if self._lines.get(line_id) is wave:  # the first of those who wait for it
                wave.left -= 1
                del self._lines[line_id]
            if isinstance(result, RequestError):
                raise result
            if result is not None:
                return self._read(path, result), {}

    def _collect(self, path: str, line_id: str, data: bytes) -> Wave:
        wave = self._open.get(path)
        if wave is not None and wave.size + len(data) > MOST_BYTES:
            self._send(wave)
            wave = None
        if wave is None:
            wave = self._open[path] = Wave.begin(self._folder, path)
            self._waves.append(wave)
            self._start(self._send_when_quiet(wave))
        wave.add(line_id, data)
        self._lines[line_id] = wave
        if len(wave.results) >= self._most:
            self._send(wave)
        return wave

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_when_quiet(self, wave: Wave) -> None:
        while (rest := wave.last + self._linger - time.monotonic()) > 0:  # noqa: ASYNC110  # each request defers it
            await asyncio.sleep(rest)
        self._send(wave)

    def _send(self, wave: Wave) -> None:
        if self._open.get(wave.route) is wave:
            del self._open[wave.route]
            self._start(self._bring_back(wave))

    # --- one wave ----------------------------------------------------------------------------------------------

    async def _bring_back(self, wave: Wave) -> None:
        """Take a wave from collected lines to results. Whatever happens, all of its futures are done in the end."""
        try:
            if wave.path.suffix == ".part":
                wave.seal()
            known = wave.over
            while True:
                if not wave.batch:
                    wave.batch = await self._create(wave)
                    wave.note()
                about = await self._ended(wave)
                if about is None or not await self._is_refused_for_now(about):
                    break
                wave.batch = ""
            rest = await self._results(wave, about) if about else None
            if not known:
                wave.over = True
                wave.note()
            wave.settle_all(None if known else rest)
        except KunError as error:  # the disk, or the API refuses the file or the batch: no fault of any row
            status = error.status if isinstance(error, RequestError) else 0
            hint = error.hint or "what was answered is kept: mend the cause and run the same command again"
            wave.settle_all(FatalError(error.message, status=status, endpoint=self._server.url, hint=hint))

    async def _create(self, wave: Wave) -> str:
        """The id of the wave's batch, which is created unless the API has it already."""
        batch = await self._patiently(lambda: self._listed(wave)) if wave.doubtful else ""
        if batch:
            return batch
        uploaded = await self._patiently(lambda: self._server.upload("/v1/files", wave.path, purpose="batch"))
        asked = {
            "input_file_id": uploaded["id"],
            "endpoint": wave.route,
            "completion_window": _WINDOW,
            "metadata": {_MARK: wave.name},
        }

        async def create() -> str:
            if wave.doubtful and (there := await self._listed(wave)):
                return there
            wave.doubtful = True
            return str((await self._server.post("/v1/batches", asked))[0]["id"])

        batch = await self._patiently(create)
        log.warning("%s: batch %s of %d requests; may take a day", self._server.url, batch, len(wave.results))
        return batch

    async def _listed(self, wave: Wave) -> str:
        """The id of the batch at the API that carries the wave's name; empty if there is none."""
        after = ""
        while True:
            page = await self._server.get(f"/v1/batches?limit={_PAGE}" + (f"&after={after}" if after else ""))
            batches = [batch for batch in page.get("data") or () if isinstance(batch, dict)]
            for batch in batches:
                if (batch.get("metadata") or {}).get(_MARK) == wave.name and _status(batch) != "failed":
                    return str(batch["id"])
            made = batches[-1].get("created_at") if batches else 0
            older = isinstance(made, int | float) and made < wave.born - _DAY
            if not batches or older or not page.get("has_more"):
                return ""
            after = batches[-1]["id"]

    async def _ended(self, wave: Wave) -> dict[str, Any] | None:
        """Wait until the batch has ended and return it; None if the API does not know it any more."""
        while True:
            try:
                about: dict[str, Any] = await self._patiently(lambda: self._server.get(f"/v1/batches/{wave.batch}"))
            except FatalError as error:
                if error.status == 404:
                    return None
                raise
            if _status(about) in _OVER:
                return about
            log.info(
                "%s: batch %s is %s: %s", self._server.url, wave.batch, _status(about), about.get("request_counts")
            )
            await asyncio.sleep(self._poll)

    async def _is_refused_for_now(self, about: Mapping[str, Any]) -> bool:
        """Whether the batch was refused only because too much is queued before it; if so, waits before it returns."""
        if _status(about) != "failed" or not _codes(about) & _LATER:
            return False
        log.warning("%s: %s; tried again", self._server.url, self._reason(about))
        await asyncio.sleep(5 * self._poll)
        return True

    async def _results(self, wave: Wave, about: Mapping[str, Any]) -> RequestError:
        """Hand out the results in the batch's files; returns the error for the requests that are in none of them."""
        for kind in ("output_file_id", "error_file_id"):
            if about.get(kind):
                await self._patiently(lambda kind=kind: self._take(wave, str(about[kind])))  # type: ignore[misc]
        status, url = _status(about), self._server.url
        if status in ("completed", "expired"):
            return TransientError(f"{url}: batch {wave.batch} is {status} without this request", endpoint=url)
        hint = "run the same command again: what was answered is kept, the rest goes into a new batch"
        return FatalError(f"{url}: batch {wave.batch} was {status}: {self._reason(about)}", endpoint=url, hint=hint)

    async def _take(self, wave: Wave, file: str) -> None:
        with tempfile.TemporaryFile(dir=self._folder) as target:
            await self._server.download(f"/v1/files/{file}/content", target)
            target.seek(0)
            for number, line in enumerate(target):
                try:
                    wave.settle(str(orjson.loads(line)["custom_id"]), line)
                except (orjson.JSONDecodeError, LookupError, TypeError):
                    log.warning("%s: line %d of file %s is no result", self._server.url, number + 1, file)
                if number % 64 == 0:
                    await asyncio.sleep(0)  # rows go on, and their answers are written, meanwhile

    def _read(self, path: str, line: bytes) -> Any:
        """The body in a line of an output or error file. Raises the errors that a single request would."""
        found = orjson.loads(line)
        response, error = found.get("response") or {}, found.get("error") or {}
        status = response.get("status_code") or 0
        if status and not 200 <= status < 300:
            raise self._server.failure(status, path, orjson.dumps(response.get("body")), {})
        if status and not error:
            return response.get("body")
        said = self._server.shown(f"{error.get('code', '')} {error.get('message', '')}".strip() or "no response")
        kind = TransientError if error.get("code") in _PASSING else RejectedError
        raise kind(f"{self._server.url}: in a batch: {said}", endpoint=self._server.url)

    def _reason(self, about: Mapping[str, Any]) -> str:
        errors = (about.get("errors") or {}).get("data") or ()
        said = "; ".join(
            f"{error.get('code', '')}: {error.get('message', '')}"
            + (f" (line {error['line']})" if error.get("line") is not None else "")
            for error in errors[:3]
        )
        return self._server.shown(said or "no reason given")

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of `call`, repeated after transient errors for at most the model's `wait`; then FatalError."""
        began, pause = time.monotonic(), 0.5
        while True:
            try:
                return await call()
            except TransientError as error:
                if time.monotonic() - began > self._wait:
                    raise FatalError(
                        f"the batch API is out of reach for {self._wait:g} s: {error.message}",
                        status=error.status,
                        endpoint=self._server.url,
                        hint="run the same command again: batches under way go on without it, and none is paid twice",
                    ) from error
                await asyncio.sleep(max(pause, error.retry_after or 0))
                pause = min(2 * pause, 30.0)


def _status(batch: Mapping[str, Any]) -> str:
    return str(batch.get("status")).lower()


def _codes(batch: Mapping[str, Any]) -> set[str]:
    return {str(error.get("code")) for error in (batch.get("errors") or {}).get("data") or ()}
