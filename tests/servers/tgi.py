"""Text Generation Inference's protocol, with a real model behind it: TGI itself comes as a container only.

Each request is translated for a llama.cpp server and its answer back. Limits, refusals, status codes and headers are
those of TGI 3's router. With an OpenAPI description at hand, every request and every answer is checked against it, and
what breaks it is kept in `faults`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from jsonschema import ValidationError
from servers.openapi import Api

MAX_STOP, MAX_TOP, MAX_INPUT, MAX_TOTAL = 4, 5, 1000, 1024
MODEL, SHA = "Qwen/Qwen2.5-Coder-0.5B-Instruct", "0123456789abcdef0123456789abcdef01234567"
EOS = 151643
"""Qwen's ids from here on are control tokens."""


class Refused(Exception):
    """An answer other than 200: status, TGI's error type, message."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error": message, "error_type": kind}


@dataclass
class TGI:
    """The server's state: what it is told to do wrong, and what it has seen."""

    behind: str
    """Address of the llama.cpp server."""
    api: Api | None = None
    limit: int = 128
    """Requests at once; more are refused with 429."""
    url: str = ""
    requests: list[tuple[str, Any]] = field(default_factory=list)
    answers: list[tuple[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    grammar: bool = True
    busy: int = 0

    def check(self, schema: str, value: Any) -> None:
        """Check against the description; in the schema's own words if it does not fit."""
        if self.api is None:
            return
        try:
            self.api.check(schema, value)
        except ValidationError as error:
            self.faults.append(f"{schema}: {error.message} at {error.json_path}")

    async def ask(self, path: str, body: Any) -> Any:
        """Ask llama.cpp."""
        async with aiohttp.ClientSession() as session, session.post(self.behind + path, json=body) as answer:
            if answer.status != 200:
                raise Refused(424, "generation", await answer.text())
            return await answer.json()

    async def tokens(self, text: str) -> list[dict[str, Any]]:
        """Tokens with their place in the text, in characters."""
        body = {"content": text, "parse_special": True, "with_pieces": True}
        raw, at = text.encode(), 0
        found = []
        for token in (await self.ask("/tokenize", body))["tokens"]:
            piece = token["piece"].encode() if isinstance(token["piece"], str) else bytes(token["piece"])
            start = len(raw[:at].decode("utf-8", "ignore"))
            at += len(piece)
            stop = len(raw[:at].decode("utf-8", "replace"))
            found.append({"id": token["id"], "text": text[start:stop], "start": start, "stop": stop})
        return found

    async def generate(self, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """One generation: the answer and its headers."""
        given = {name: value for name, value in (body.get("parameters") or {}).items() if value is not None}
        size = len(await self.tokens(body["inputs"]))
        self.validate(body["inputs"], given, size)
        self.busy += 1
        try:
            if self.busy > self.limit:
                raise Refused(429, "overloaded", "Model is overloaded")
            answer = await self.ask("/completion", _translate(body["inputs"], given))
        finally:
            self.busy -= 1
        return _answer(answer, given, body["inputs"]), {
            "x-prompt-tokens": str(size),
            "x-generated-tokens": str(answer["tokens_predicted"]),
        }

    def validate(self, inputs: str, given: dict[str, Any], size: int) -> None:
        """What TGI's router refuses before it asks the model."""
        top_p = given.get("top_p", 0.5)
        wrong = [
            (not inputs, "`inputs` cannot be empty"),
            (given.get("temperature", 1) <= 0, "`temperature` must be strictly positive"),
            (not 0 < top_p < 1, "`top_p` must be > 0.0 and < 1.0"),
            (given.get("repetition_penalty", 1) <= 0, "`repetition_penalty` must be strictly positive"),
            (given.get("max_new_tokens", 1) <= 0, "`max_new_tokens` must be strictly positive"),
            (len(given.get("stop", ())) > MAX_STOP, f"`stop` supports up to {MAX_STOP} stop sequences"),
            (given.get("top_n_tokens", 0) > MAX_TOP, f"`top_n_tokens` must be >= 0 and <= {MAX_TOP}"),
            (size > MAX_INPUT, f"`inputs` must have less than {MAX_INPUT} tokens. Given: {size}"),
            (size + given.get("max_new_tokens", 0) > MAX_TOTAL, f"`inputs` + `max_new_tokens` must be <= {MAX_TOTAL}"),
            ("grammar" in given and not self.grammar, "grammar is not supported"),
        ]
        for is_wrong, message in wrong:
            if is_wrong:
                raise Refused(422, "validation", f"Input validation error: {message}")


def _translate(inputs: str, given: dict[str, Any]) -> dict[str, Any]:
    sampling = given.get("do_sample") or "temperature" in given
    body = {
        "prompt": inputs,
        "n_predict": given.get("max_new_tokens", 1024),
        "temperature": given.get("temperature", 1.0) if sampling else 0,
        "top_p": given.get("top_p", 1.0),
        "top_k": given.get("top_k", 0),
        "min_p": 0,
        "repeat_penalty": given.get("repetition_penalty", 1.0),
        "stop": given.get("stop", []),
        "n_probs": max(1, given.get("top_n_tokens", 0)),
        "return_tokens": True,
    }
    if "seed" in given:
        body["seed"] = given["seed"]
    if "grammar" in given:
        body |= _grammar(given["grammar"])
    return body


def _grammar(grammar: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp calls a JSON schema, or a regular expression that is a list of strings, `(a|b)`."""
    if grammar["type"] == "json":
        return {"json_schema": grammar["value"]}
    if grammar["type"] != "regex":
        raise Refused(422, "validation", "this test server knows no grammars of this type")
    choices = grammar["value"].removeprefix("(").removesuffix(")").replace("\\", "").split("|")
    return {"grammar": "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)}


def _answer(answer: dict[str, Any], given: dict[str, Any], inputs: str) -> dict[str, Any]:
    text = answer["content"] + (answer["stopping_word"] if answer["stop_type"] == "word" else "")
    if given.get("return_full_text"):
        text = inputs + text
    if not given.get("details", True):
        return {"generated_text": text}
    reason = {"eos": "eos_token", "word": "stop_sequence", "limit": "length"}[answer["stop_type"]]
    probabilities = answer.get("completion_probabilities", [])
    details = {
        "finish_reason": reason,
        "generated_tokens": answer["tokens_predicted"],
        "seed": given.get("seed"),
        "prefill": [],
        "tokens": [_token(token) for token in probabilities],
    }
    if top := given.get("top_n_tokens"):
        details["top_tokens"] = [[_token(t) for t in token["top_logprobs"][:top]] for token in probabilities]
    return {"generated_text": text, "details": details}


def _token(token: dict[str, Any]) -> dict[str, Any]:
    return {"id": token["id"], "text": token["token"], "logprob": token["logprob"], "special": token["id"] >= EOS}


@asynccontextmanager
async def serve_tgi(tgi: TGI) -> AsyncIterator[TGI]:
    """Serve on a free port of 127.0.0.1."""
    app = web.Application(middlewares=[_errors])
    app[STATE] = tgi
    for path in ("/", "/generate"):
        app.router.add_post(path, _generate)
    app.router.add_post("/tokenize", _tokenize)
    app.router.add_post("/v1/chat/completions", _chat)
    for path, handler in (("/info", _info), ("/health", _health), ("/metrics", _metrics), ("/v1/models", _models)):
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    tgi.url = f"http://{host}:{port}"
    try:
        yield tgi
    finally:
        await runner.cleanup()


STATE = web.AppKey("state", TGI)


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    tgi = request.app[STATE]
    try:
        return await handler(request)
    except Refused as error:
        tgi.check("ErrorResponse", error.body)
        return web.json_response(error.body, status=error.status)


async def _generate(request: web.Request) -> web.Response:
    tgi, body, plain = request.app[STATE], await request.json(), request.path == "/generate"
    tgi.requests.append((request.path, body))
    tgi.check("GenerateRequest" if plain else "CompatGenerateRequest", body)
    answer, headers = await tgi.generate(body)
    tgi.check("GenerateResponse", answer)
    tgi.answers.append((request.path, answer))
    return web.json_response(answer if plain else [answer], headers=headers)


async def _tokenize(request: web.Request) -> web.Response:
    tgi, body = request.app[STATE], await request.json()
    tokens = await tgi.tokens(body["inputs"])
    tgi.check("TokenizeResponse", tokens)
    return web.json_response(tokens)


async def _chat(request: web.Request) -> web.Response:
    tgi, body = request.app[STATE], await request.json()
    tgi.requests.append((request.path, body))
    tgi.check("ChatRequest", body)
    if body.get("top_logprobs", 0) > MAX_TOP:
        raise Refused(422, "validation", f"Input validation error: `top_n_tokens` must be >= 0 and <= {MAX_TOP}")
    answer = _as_tgi_chat(await tgi.ask("/v1/chat/completions", {**body, "stream": False}))
    tgi.check("ChatCompletion", answer)
    tgi.answers.append((request.path, answer))
    return web.json_response(answer)


def _as_tgi_chat(answer: dict[str, Any]) -> dict[str, Any]:
    """What TGI says of a chat, and no more."""
    choices = [
        {
            "index": choice["index"],
            "message": {"role": "assistant", "content": choice["message"]["content"]},
            "finish_reason": choice["finish_reason"],
            "logprobs": {"content": [_chat_token(token) for token in (choice["logprobs"] or {}).get("content", ())]}
            if choice.get("logprobs")
            else None,
        }
        for choice in answer["choices"]
    ]
    usage = {name: answer["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    head = {"id": "", "created": answer["created"], "model": MODEL, "system_fingerprint": "3.3.6-dev0-native"}
    return {**head, "choices": choices, "usage": usage}


def _chat_token(token: dict[str, Any]) -> dict[str, Any]:
    tops = [{"token": top["token"], "logprob": top["logprob"]} for top in token.get("top_logprobs", ())]
    return {"token": token["token"], "logprob": token["logprob"], "top_logprobs": tops}


async def _info(request: web.Request) -> web.Response:
    tgi = request.app[STATE]
    info = {
        "model_id": MODEL,
        "model_sha": SHA,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": tgi.limit,
        "max_best_of": 2,
        "max_stop_sequences": MAX_STOP,
        "max_input_tokens": MAX_INPUT,
        "max_total_tokens": MAX_TOTAL,
        "validation_workers": 2,
        "max_client_batch_size": 4,
        "router": "text-generation-router",
        "version": "3.3.6-dev0",
        "sha": None,
        "docker_label": None,
    }
    tgi.check("Info", info)
    return web.json_response(info)


async def _models(request: web.Request) -> web.Response:
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}
    request.app[STATE].check("ModelInfo", model)
    return web.json_response({"object": "list", "data": [model]})


async def _health(request: web.Request) -> web.Response:
    return web.Response()


async def _metrics(request: web.Request) -> web.Response:
    tgi = request.app[STATE]
    return web.Response(text=f"# TYPE tgi_queue_size gauge\ntgi_queue_size {max(0, tgi.busy - 2)}\n")
