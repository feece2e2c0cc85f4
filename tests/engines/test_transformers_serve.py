"""`transformers serve`, a server that refuses unknown fields with 422 and overlooks `logprobs`, with a tiny model."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from byte_tokenizers import byte_level
from tokenizers import Tokenizer

from kun_builder import ModelSpec, Request
from kun_builder.engines import openai
from kun_builder.errors import FatalError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = ({"role": "user", "content": "绿茶怎么保存？"},)


def build_model(folder):
    """A random Llama of 0.1 million parameters with a tokenizer trained on three sentences."""
    torch = pytest.importorskip("torch", reason="needs the `train` extra")
    pytest.importorskip("uvicorn", reason="needs the `train` extra")
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = ["绿茶怎么保存？", "user assistant system", "放在阴凉干燥的地方。"] * 9
    tokenizer = byte_level(texts, 400, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address and model name of a running `transformers serve`."""
    folder = tmp_path_factory.mktemp("serve") / "tiny"
    build_model(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "hf"), "OMP_NUM_THREADS": "1"}
    with (folder.parent / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url, process, log)
            yield url, str(folder)
        finally:
            process.kill()
            process.wait()


def wait_for(url, process, log):
    for _ in range(1200):
        try:
            with urllib.request.urlopen(url + "/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.2)
    log.seek(0)
    pytest.fail("transformers serve did not start: " + log.read()[-2000:])


def run(server, work, model=None):
    """What `work(endpoint)` gives."""
    url, folder = server

    async def inner():
        spec = ModelSpec(name="m", engine="openai", endpoints=(url,), model=model or folder, context_length=512)
        async with openai.connect(spec) as (endpoint,):
            return await work(endpoint)

    return asyncio.run(inner())


def test_ignored_logprobs_are_noticed(server):
    """The server takes `logprobs` without a word and answers without any: `info` says so."""
    info = run(server, lambda endpoint: endpoint.info())
    assert (info.id, info.logprobs, info.context_length) == (server[1], False, 512)


def test_refused_fields_cost_no_row(server, caplog):
    """A penalty, which the server answers with 422, is left out after one warning, and every row is answered."""
    caplog.set_level(logging.WARNING, logger="kun_builder")

    async def work(endpoint):
        full = Request(
            CHAT, 4, temperature=0.7, top_p=0.9, repetition_penalty=1.1, seed=3, stop=("。",), top_logprobs=2
        )
        return await asyncio.gather(*(endpoint.complete(full) for _ in range(4)))

    answers = run(server, work)
    assert [(answer.completion_tokens <= 4, answer.prompt_tokens > 5) for answer in answers] == [(True, True)] * 4
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("kun_builder")]
    assert warning.endswith("refuses repetition_penalty: left out from now on")


def test_completions_and_choices_are_answered(server):
    """Raw text is answered too, and a choice that this server cannot enforce is just a request."""

    async def work(endpoint):
        return [
            await endpoint.complete(Request("绿茶", 4)),
            await endpoint.complete(Request(CHAT, 2, choices=("好", "差"))),
            await endpoint.count_tokens("绿茶"),
            await endpoint.queued(),
            await endpoint.healthy(),
        ]

    raw, chosen, count, queued, healthy = run(server, work)
    assert 1 <= raw.completion_tokens <= 4
    assert 1 <= chosen.completion_tokens <= 2
    assert (count, queued, healthy) == (
        len(Tokenizer.from_file(server[1] + "/tokenizer.json").encode("绿茶").ids),
        None,
        True,
    )


def test_a_server_pinned_to_another_model_stops_the_run(server):
    """It answers 400 to every row; that is no row's fault."""
    with pytest.raises(FatalError, match="refuses even a short question"):
        run(server, lambda endpoint: endpoint.complete(Request(CHAT, 4)), model="another")
