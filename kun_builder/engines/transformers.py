"""The `transformers` engine: a folder with safetensors, such as a trained one, in transformers' own server.

It is slower than any other server, answers one request after the other, and gives no log-probabilities; but it serves
every model that transformers loads, from the very folder that training wrote, without conversion. For many rows, serve
the folder with vLLM or TGI instead.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kun_builder.cache import digest
from kun_builder.engines import openai
from kun_builder.engines.child_server import Child, cores, in_thread, shared_server
from kun_builder.engines.http import Server, open_session
from kun_builder.engines.openai import OpenAIEndpoint
from kun_builder.engines.tokenizers import token_counter
from kun_builder.errors import ModelError
from kun_builder.hookspecs import hookimpl
from kun_builder.prompt_contract import read_contract
from kun_builder.types import Completion, Endpoint, Engine, ModelInfo, ModelSpec, Request

kun_api = 1

_HINT = (
    "install `kun-builder[train]`, and check that the folder holds a whole model (config.json, safetensors, tokenizer)"
)


@asynccontextmanager
async def connect(spec: ModelSpec, *, threads: int = 0) -> AsyncIterator[Sequence[Endpoint]]:
    """Start the server, yield its endpoint, stop it.

    `model` is a folder or a Hub id; `threads` 0 means one per physical core. A trained model is asked in the style that
    it was trained in, whatever `prompt` says. With `endpoints` given nothing is started.
    """
    if spec.endpoints:
        async with openai.connect(spec) as endpoints:
            yield endpoints
        return
    if not spec.model:
        raise ModelError(
            f"model {spec.name!r} names no `model`", hint="give the folder that training wrote, or a Hub id"
        )
    where, facts = await in_thread(partial(_about, spec))
    setup = {"model": where, "threads": threads or cores()}
    child = Child.of("kun_builder.engines.transformers_child", setup, path=where, hint=_HINT)
    async with shared_server(child, spec.wait) as url, open_session() as session:
        server = Server(session, url, timeout=spec.timeout)
        endpoint = OpenAIEndpoint(server, replace(spec, model=where, revision=""), facts, asked=False)
        yield [TransformersEndpoint(endpoint, facts["tokenizer"])]


def is_model_folder(model: str) -> bool:
    """Whether `model` is a folder in the form of transformers."""
    return bool(model) and (Path(os.path.expanduser(model)) / "config.json").is_file()


def _about(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """What to load, and the facts that are known before it is loaded. The revision of a folder is its files' digest."""
    contract = read_contract(spec.model, spec.revision)
    facts: dict[str, Any] = {"prompt": contract.style if contract else spec.prompt}
    if not is_model_folder(spec.model):
        where = f"{spec.model}@{spec.revision}" if spec.revision else spec.model
        return where, facts | {"revision": spec.revision, "tokenizer": spec.tokenizer or spec.model}
    folder = Path(os.path.expanduser(spec.model)).resolve()
    settings = json.loads((folder / "config.json").read_bytes())
    return str(folder), facts | {
        "id": folder.name,
        "revision": folder_digest(folder),
        "context_length": spec.context_length or int(settings.get("max_position_embeddings") or 0),
        "tokenizer": spec.tokenizer or str(folder),
    }


def folder_digest(folder: Path) -> str:
    """SHA-256 over the weights, tokenizer and settings in a model's folder."""
    sha = hashlib.sha256()
    for path in sorted(path for pattern in ("*.safetensors", "*.json", "*.jinja") for path in folder.glob(pattern)):
        if not path.name.startswith(("kun_training", "losses")):  # records of how it came about
            sha.update(f"{path.name}\0{digest(path)}\0".encode())
    return sha.hexdigest()


class TransformersEndpoint:
    """An OpenAI-style endpoint whose tokens are counted here: transformers' server has no route for it."""

    def __init__(self, endpoint: OpenAIEndpoint, tokenizer: str) -> None:
        self.url = endpoint.url
        self._endpoint = endpoint
        self._name = tokenizer
        self._count: Callable[[str], int] | None = None

    async def info(self) -> ModelInfo:
        """Who answers here."""
        return await self._endpoint.info()

    async def healthy(self) -> bool:
        """Whether requests can be sent now."""
        return await self._endpoint.healthy()

    async def queued(self) -> int | None:
        """Always None: the server does not tell."""
        return None

    async def complete(self, request: Request) -> Completion:
        """One request."""
        return await self._endpoint.complete(request)

    async def count_tokens(self, text: str) -> int:
        """Tokens of `text`, special ones not counted."""
        if self._count is None:
            self._count = await in_thread(partial(token_counter, self._name))
        return self._count(text)


@hookimpl
def kun_engines() -> list[Engine]:
    """Models in the form of transformers, served here."""
    return [Engine(name="transformers", connect=connect)]
