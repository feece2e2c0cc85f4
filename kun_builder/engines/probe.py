"""What servers tell about themselves: model, context length, queue, token counts. Each of these routes is an extension
of the common protocol by some servers, so it is normal that a server lacks it; and what a server has there may be of
another shape, which counts as if it were not there."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kun_builder.engines.answers import count, mapping
from kun_builder.engines.http import Server
from kun_builder.errors import FatalError, ModelError, RejectedError, RequestError
from kun_builder.types import ModelInfo, ModelSpec

log = logging.getLogger(__name__)

_NEXT = 2  # requests that wait for a slot; llama.cpp has four threads for connections more than slots, earlier two more
_NOT_OURS = frozenset({401, 403, 404, 405})
"""Statuses which say that the server lacks the route, or that the key does not open it."""
_WAITING = ("tgi_queue_size", "vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred")
_RUNNING = (
    "tgi_batch_current_size",
    "vllm:num_requests_running",
    "sglang:num_running_reqs",
    "llamacpp:requests_processing",
)
_GAUGES = re.compile(rf"^({'|'.join(_WAITING + _RUNNING)})(?:\{{[^}}\n]*\}})? +([0-9.eE+]+)", re.MULTILINE)


class Facts(NamedTuple):
    """Who answers at a server; whose software it is (`owned_by`: `vllm`, `sglang`, `llamacpp`, ...); how many requests
    it works on at once, 0 where it does not tell."""

    info: ModelInfo
    owner: str = ""
    slots: int = 0


async def model_facts(server: Server, spec: ModelSpec) -> Facts:
    """What an OpenAI-style server says of itself at `/v1/models` and, where they exist, `/props` and `/info`.

    Raises ModelError if several models are served and the recipe names none, and whatever `/v1/models` raises.
    """
    entry = _pick(await _models(server, spec), spec, server.url)
    meta, root = mapping(entry.get("meta")), text_of(entry.get("root"))
    props = await optional(server, "/props") if entry.get("owned_by") == "llamacpp" else {}
    about = await optional(server, "/info") if not props else {}
    slot = mapping(props.get("default_generation_settings")).get("n_ctx")
    told = (entry.get(name) for name in ("max_model_len", "context_length", "context_window"))
    contexts = (spec.context_length, *told, meta.get("n_ctx"), slot)
    info = ModelInfo(
        id=entry["id"],
        revision=spec.revision or text_of(about.get("model_sha")),
        context_length=first_count(*contexts, about.get("max_total_tokens"), meta.get("n_ctx_train")),
        prompt=spec.prompt,
        tokenizer=spec.tokenizer or root or spec.model or entry["id"],
    )
    return Facts(info, text_of(entry.get("owned_by")), count(props.get("total_slots")))


def text_of(value: object) -> str:
    """What a server says where a text belongs; nothing if it is none."""
    return value if isinstance(value, str) else ""


def first_count(*values: object) -> int:
    """The first of the numbers of tokens that a server tells which can be one; 0 without."""
    return next(filter(None, map(count, values)), 0)


def enough_for(slots: int) -> int:
    """How many requests keep a server of so many slots busy; 0 if it does not tell.

    llama.cpp has a thread for each open request and few more of them than slots: where requests in flight hold them
    all, nobody is told of its health or its queue."""
    return slots + _NEXT if slots else 0


async def _models(server: Server, spec: ModelSpec) -> list[dict[str, Any]]:
    try:
        body = await server.get("/v1/models")
    except RequestError as error:
        # A server with one fixed model need not list it, a key need not permit the list; `transformers serve` fails to
        # where there is no Hub cache. Where the model is named, the chat itself tells whether it can be used.
        # 200: something else than a list, such as a gateway's page.
        if error.status in {200, 401, 403, 404, 405, 500, 501} and spec.model:
            return []
        raise
    forms = [body, *(mapping(body).get(name) for name in ("data", "models"))]  # gateways leave out what is around it
    listed = next((form for form in forms if isinstance(form, list)), [])
    entries = [{"id": entry} if isinstance(entry, str) else entry for entry in listed]
    return [entry for entry in entries if text_of(mapping(entry).get("id"))]


def _pick(listed: list[dict[str, Any]], spec: ModelSpec, url: str) -> dict[str, Any]:
    names = [entry["id"] for entry in listed]
    if not spec.model:
        if len(listed) == 1:
            return listed[0]
        raise ModelError(
            f"{url} serves {len(names)} models and the recipe names none for {spec.name!r}",
            hint="set `model` to one of: " + ", ".join(names[:10]) if names else "set `model`",
        )
    for name in (spec.model, spec.model.partition(":")[0]):  # the Inference Providers take `org/model:provider`
        if name in names:
            return {**listed[names.index(name)], "id": spec.model}
    if names:
        log.warning("%s lists %s, not %s", url, ", ".join(names[:5]), spec.model)
    only = listed[0] if len(listed) == 1 else {}
    return {**only, "id": spec.model, "root": ""}


async def optional(server: Server, path: str) -> dict[str, Any]:
    """The answer of a route that a server may lack; empty then."""
    try:
        body = await server.get(path)
    except RequestError:
        return {}
    return body if isinstance(body, dict) else {}


async def is_healthy(server: Server) -> bool:
    """Whether `/health`, or `/v1/models` where it is not for us, answers with success. A server that has neither for us
    is alive: it answers."""
    for path in ("/health", "/v1/models"):
        try:
            await server.text(path)
        except FatalError as error:
            if error.status not in _NOT_OURS:
                return False
        except RequestError:
            return False
        else:
            return True
    return True


async def load_of(server: Server) -> tuple[int | None, int]:
    """Requests that wait at the server by its own `/metrics`, and those that it works on, over all its engines; None
    and 0 where it does not tell.

    Lines of one name are the server's engines. Another name is the same figure in the words of another software, which
    servers and gateways offer to those who watch them: it is counted once.
    """
    try:
        found = _GAUGES.findall(await server.text("/metrics"))
    except RequestError:
        return None, 0
    sums: dict[str, float] = {}
    for name, value in found:
        sums[name] = sums.get(name, 0.0) + _number(value)
    return _most(sums, _WAITING), _most(sums, _RUNNING) or 0


def _most(sums: Mapping[str, float], names: Sequence[str]) -> int | None:
    most = max((sums[name] for name in names if name in sums), default=math.nan)
    return int(most) if math.isfinite(most) else None


def _number(word: str) -> float:
    """A number as metrics have it; not a number for what only looks like one."""
    try:
        return float(word)
    except ValueError:
        return math.nan


async def token_count(server: Server, text: str, model: str) -> int | None:
    """Tokens of `text` by the server's `/tokenize`, in the shape of vLLM, SGLang, llama.cpp or TGI; None without one.

    The servers name the same thing differently and overlook each other's names, so one request has them all.
    """
    body: dict[str, object] = {"model": model, "prompt": text, "content": text, "inputs": text}
    body |= {"add_special_tokens": False, "add_special": False, "parse_special": False}
    try:
        answer, _ = await server.post("/tokenize", body, aside=True)
    except (RejectedError, FatalError):
        return None
    tokens = answer.get("tokens") if isinstance(answer, dict) else answer
    if not isinstance(tokens, list):
        return None
    # TGI adds special tokens, which cover no text.
    places = [(count(token.get("start")), count(token.get("stop", 1))) for token in tokens if isinstance(token, dict)]
    return len(tokens) - sum(stop <= start for start, stop in places)
