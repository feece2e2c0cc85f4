"""From a model of the recipe to its pool: engines connected, endpoints asked who they are, and compared."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from kun_builder.engines.origin import notice_changes, origins
from kun_builder.errors import ModelError, TransientError
from kun_builder.models.control import Guard, guard_of
from kun_builder.models.pool import Pool
from kun_builder.models.roster import Roster
from kun_builder.prompt_contract import read_contract
from kun_builder.recipe.registry import Engines
from kun_builder.status import Status
from kun_builder.types import Endpoint, Engine, ModelInfo, ModelSpec

_ABSENT = 4.0  # seconds to wait, at the start, for a server that nobody answers at
_NOT_STARTING = (0, 200)  # nobody answers, or somebody else does: waiting makes it no better
_NO_REVISION = (
    "model `{model}`: {url} tells no revision, so its answers are kept under {where}; "
    "`revision:` of the model keeps them wherever it is served"
)
_KIND = re.compile(r"([\w-]+)\+(?=https?://)")


@asynccontextmanager
async def connect(
    spec: ModelSpec, engines: Engines, status: Status, notes: Path, sharers: int = 1
) -> AsyncIterator[tuple[ModelInfo, Pool, tuple[str, ...], Guard]]:
    """Yield who the model is, the pool of its endpoints, its origins (`engines/origin.py`), the guard of its messages
    (`control.py`).

    notes: folder in which is remembered what servers have said of themselves.
    sharers: how many processes of the run ask the same endpoints, this one included.

    An endpoint of another kind than the model's `engine` is written `tgi+http://host:port`. Endpoints that do not
    answer yet are set aside as long as one does; those of an `endpoints_file` come and go with their lines. Raises
    ModelError for an unknown engine, a model that no endpoint serves, and endpoints that serve different models.
    """
    async with AsyncExitStack() as stack:
        roster = None
        if spec.endpoints_file:
            roster = await stack.enter_async_context(Roster(spec, partial(_open_one, spec, engines), status))
            known = await roster.first()
            endpoints = [endpoint for endpoint, _ in known]
        else:
            endpoints = await _open(stack, spec, engines)
            known = await _known(spec, endpoints, status)
        first, info = max(known, key=lambda pair: bool(pair[1].revision))  # the one that tells most
        for endpoint, other in known:
            _agree(spec, first, info, endpoint, other)

        if contract := await asyncio.to_thread(read_contract, spec.model, spec.revision):
            info = replace(info, trained_for=tuple(sorted(contract.prompts)))
        await asyncio.to_thread(notice_changes, notes, spec, known, status.say)
        keys = origins(spec, info, endpoints)
        if keys[0] != info.revision:
            where = "the name of `endpoints_file`" if roster else "its address"
            status.say(_NO_REVISION.format(model=spec.name, url=first.url, where=where))

        async def check(endpoint: Endpoint) -> None:
            returned = await endpoint.info()
            _agree(spec, first, info, endpoint, returned)
            await asyncio.to_thread(notice_changes, notes, spec, [(endpoint, returned)], status.say)

        absent = {endpoint.url for endpoint in endpoints} - {endpoint.url for endpoint, _ in known}
        sharing = partial(Pool, concurrency=spec.concurrency, sharers=sharers, limits=spec.limits, wait=spec.wait)
        pool = sharing(spec.name, endpoints, status, check=check, absent=absent)
        await stack.enter_async_context(pool)
        if roster:
            await stack.enter_async_context(roster.following(pool, check))
        yield info, pool, keys, await asyncio.to_thread(guard_of, spec)


async def _open(stack: AsyncExitStack, spec: ModelSpec, engines: Engines) -> list[Endpoint]:
    """Open all endpoints of the spec, each by its engine. They are closed with the stack."""
    return [
        endpoint
        for part, engine in _kinds(spec, engines)
        for endpoint in await stack.enter_async_context(
            engine.connect(part, **(spec.options if part.engine == spec.engine else {}))
        )
    ]


async def _open_one(spec: ModelSpec, engines: Engines, stack: AsyncExitStack, url: str) -> Endpoint:
    (endpoint,) = await _open(stack, replace(spec, endpoints=(url,)), engines)
    return endpoint


async def _known(spec: ModelSpec, endpoints: Sequence[Endpoint], status: Status) -> list[tuple[Endpoint, ModelInfo]]:
    """The endpoints that answer, each with the model that it says it serves. Raises ModelError if none answers."""
    answers = await asyncio.gather(*(_introduced(spec, endpoint, status) for endpoint in endpoints))
    known = [(one, answer) for one, answer in zip(endpoints, answers, strict=True) if isinstance(answer, ModelInfo)]
    if not known:
        raise _nobody(spec, endpoints, answers)
    return known


def _kinds(spec: ModelSpec, engines: Engines) -> list[tuple[ModelSpec, Engine]]:
    """The spec divided in parts by the kinds of its endpoints, each with the engine that speaks with that kind."""
    urls: dict[str, list[str]] = {} if spec.endpoints else {spec.engine: []}
    for url in spec.endpoints:
        found = _KIND.match(url)
        urls.setdefault(found[1] if found else spec.engine, []).append(url[found.end() :] if found else url)
    for name in urls:
        if name not in engines:
            known = ", ".join(sorted(engines))
            raise ModelError(f"model `{spec.name}`: there is no engine `{name}`", hint=f"engines: {known}")
    return [(replace(spec, engine=name, endpoints=tuple(part)), engines[name].value) for name, part in urls.items()]


def collects(specs: Iterable[ModelSpec], engines: Engines) -> bool:
    """Whether requests to any of these models wait for each other (`Engine.collects`)."""
    return any(engine.collects for spec in specs for _, engine in _kinds(spec, engines))


def _nobody(spec: ModelSpec, endpoints: Sequence[Endpoint], answers: Sequence[object]) -> ModelError:
    urls = ", ".join(endpoint.url for endpoint in endpoints)
    who = "nobody" if not getattr(answers[0], "status", 0) else "no model"
    return ModelError(
        f"model `{spec.name}`: {who} answers at {urls}: {answers[0]}",
        hint=getattr(answers[0], "hint", "") or "start the server, or correct `endpoints` in the recipe",
    )


async def _introduced(spec: ModelSpec, endpoint: Endpoint, status: Status) -> ModelInfo | TransientError:
    """Which model the endpoint serves, or the error if it does not answer.

    A server that is just starting is waited for as long as the recipe allows, one that is not there only for a moment.
    """
    began, said = time.monotonic(), False
    while True:
        try:
            return await endpoint.info()
        except TransientError as error:
            patience = spec.wait if error.status not in _NOT_STARTING else _ABSENT
            if time.monotonic() - began >= patience:
                return error
            if error.status not in _NOT_STARTING and not said:
                status.say(f"model `{spec.name}`: {endpoint.url} is not ready ({error.status}); waiting for it")
                said = True
            await asyncio.sleep(min(1.0, patience / 4))


def _agree(spec: ModelSpec, first: Endpoint, info: ModelInfo, endpoint: Endpoint, other: ModelInfo) -> None:
    """Raises ModelError unless both endpoints serve the same model at the same revision, where they tell it."""
    same = info.id == other.id and (info.revision == other.revision or not (info.revision and other.revision))
    if not same:
        mine, theirs = (f"{i.id}@{i.revision}" if i.revision else i.id for i in (info, other))
        raise ModelError(
            f"model `{spec.name}`: {first.url} serves {mine}, but {endpoint.url} serves {theirs}",
            hint="all `endpoints` of a model must serve the same one; give the other a name of its own",
        )
