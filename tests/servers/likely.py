"""Servers that tell how likely a prompt is, as vLLM and as Text Generation Inference do, with a model that a test can
reckon by itself: a token is the likelier the more often it has occurred before."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

VOCABULARY = 5_000
"""Tokens that the model knows of; any of them can come first."""
MODEL = "org/likely"
_PIECES = re.compile(r"\n\n| ?[A-Za-z]+|.", re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """A token: what it is, and what it looks like alone."""

    key: str
    text: str
    logprob: float | None = None


def pieces(text: str, *, begin: bool = False) -> list[Piece]:
    """The tokens of a text: words, single characters, and halves of rare ones; with `begin`, behind a special token.

    The first one has no log-probability, since nothing is before it.
    """
    keys = [Piece("<s>", "<s>")] if begin else []
    for piece in _PIECES.findall(text):
        rare = piece > "\uffff"
        keys += [Piece(f"{piece}/{half}", "\ufffd") for half in (1, 2)] if rare else [Piece(piece, piece)]
    seen: Counter[str] = Counter()
    found = []
    for at, piece in enumerate(keys):
        logprob = math.log((1 + seen[piece.key]) / (VOCABULARY + at)) if at else None
        found.append(Piece(piece.key, piece.text, logprob))
        seen[piece.key] += 1
    return found


@dataclass
class Likely:
    """The server's state; it speaks both protocols."""

    begin: bool = False
    """Whether every prompt begins with a special token."""
    prefill: bool = True
    """Whether TGI was started with `--enable-prefill-logprobs`."""
    owner: str = "vllm"
    says: str = "是"
    spoil: Any = None
    """A function that changes an answer before it is sent."""
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": MODEL, "owned_by": self.owner, "max_model_len": 65_536}]})
        if request.path == "/info":
            return web.json_response({"model_id": MODEL, "model_sha": "0" * 40, "max_total_tokens": 65_536})
        if request.method == "GET":
            return web.Response(status=200 if request.path == "/health" else 404)
        body = json.loads(await request.text())
        self.asked.append(body)
        if request.path == "/generate":
            return web.json_response(self.generated(body), headers={"x-prompt-tokens": "9"})
        status, answer = self.completed(body)
        return web.json_response(self.spoil(answer) if self.spoil else answer, status=status)

    def completed(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """vLLM's answer, at the chat route or that of completions."""
        most = body.get("prompt_logprobs")
        if most is not None and (not isinstance(most, int) or most < -1):
            return 400, {"error": {"message": "`prompt_logprobs` must be a positive value or -1.", "code": 400}}
        said = pieces(body["prompt"] if "prompt" in body else rendered(body["messages"]), begin=self.begin)
        told = None if most is None else [None, *(_position(piece, most) for piece in said[1:])]
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        usage = {"prompt_tokens": len(said), "completion_tokens": 1, "total_tokens": len(said) + 1}
        if "prompt" in body:
            return 200, {"choices": [{**choice, "text": self.says, "prompt_logprobs": told}], "usage": usage}
        message = {"role": "assistant", "content": self.says}
        return 200, {"choices": [{**choice, "message": message}], "usage": usage, "prompt_logprobs": told}

    def generated(self, body: dict[str, Any]) -> dict[str, Any]:
        """TGI's answer."""
        said = pieces(body["inputs"], begin=self.begin)
        prefill = [{"id": _id(piece), "text": piece.text, "logprob": piece.logprob} for piece in said]
        wanted = self.prefill and body["parameters"].get("decoder_input_details")
        details = {"finish_reason": "length", "generated_tokens": 1, "seed": None, "tokens": []}
        return {"generated_text": self.says, "details": {**details, "prefill": prefill if wanted else []}}


def rendered(messages: list[dict[str, str]]) -> str:
    """A chat as the model's template writes it."""
    return "".join(f"<{turn['role']}>{turn['content']}\n" for turn in messages) + "<assistant>"


def _position(piece: Piece, others: int) -> dict[str, Any]:
    """One position of vLLM's list: the token itself, then the most likely ones."""
    own = {str(_id(piece)): {"logprob": piece.logprob, "rank": others + 1, "decoded_token": piece.text}}
    return own | {str(-n): {"logprob": -0.5 * n, "rank": n, "decoded_token": "是"} for n in range(1, others + 1)}


def _id(piece: Piece) -> int:
    return sum(ord(char) * 31**at for at, char in enumerate(piece.key)) % VOCABULARY
