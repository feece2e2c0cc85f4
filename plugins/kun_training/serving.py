"""How a trained folder is served: here, or by the usual servers; the commands to copy."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kun_builder.prompt_contract import PromptContract

TGI_IMAGE = "ghcr.io/huggingface/text-generation-inference:3.3.6"


@dataclass(frozen=True)
class Way:
    """One way to serve a model: a title, the command (empty if none is needed), and the entry under `models:`."""

    title: str
    command: str
    entry: str


def ways_to_serve(model: str | Path, contract: PromptContract, name: str) -> tuple[Way, ...]:
    """Ways to serve `model`, a folder or a Hub id, as the recipe's model `name`."""
    where = str(Path(model).expanduser().resolve()) if isinstance(model, Path) else model
    style: Literal["", ", prompt: completion"] = ", prompt: completion" if contract.style == "completion" else ""
    quoted = shlex.quote(where)
    mount, inside = (f"-v {quoted}:/model ", "/model") if isinstance(model, Path) else ("", quoted)
    return (
        Way("kun-build itself, on this machine", "", f"{name}: {{engine: transformers, model: {where}}}"),
        Way(
            "vLLM",
            f"vllm serve {quoted} --port 8000",
            f'{name}: {{engine: openai, endpoints: ["http://127.0.0.1:8000"], model: {where}{style}}}',
        ),
        Way(
            "Text Generation Inference",
            f"docker run --gpus all --shm-size 1g -p 8080:80 {mount}{TGI_IMAGE} --model-id {inside}",
            f'{name}: {{engine: tgi, endpoints: ["http://127.0.0.1:8080"], model: {where}{style}}}',
        ),
    )
