"""A trained folder is used as `model:` at once: served by transformers' own server, which is gone when we are."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from kun_training.bases import load_model, load_tokenizer
from kun_training.contracts import prompts_of
from kun_training.evaluation.generating import Sampling, generate
from kun_training.examples import encode, label_examples
from kun_training.seeds import Pair
from kun_training.serving import ways_to_serve
from tiny_models import TOPICS

from kun_builder import ModelSpec, Request
from kun_builder.engines import llamacpp, transformers
from kun_builder.errors import ModelError
from kun_builder.prompt_contract import PromptContract, read_contract
from kun_builder.status import Status

pytestmark = pytest.mark.timeout(900)  # a busy machine is no failure


@pytest.fixture(scope="module")
def served(label_model):
    """The trained label model, behind the embedded engine."""
    with asyncio.Runner() as runner:
        connection = llamacpp.connect(ModelSpec(name="labeler", model=str(label_model)), threads=1)
        (endpoint,) = runner.run(connection.__aenter__())
        try:
            yield endpoint, runner.run
        finally:
            runner.run(connection.__aexit__(None, None, None))


@pytest.mark.slow
def test_the_embedded_engine_serves_a_trained_folder(served, label_model):
    """It says who it is: the folder's name, the digest of its files, the style it was trained in, no logprobs."""
    endpoint, run = served
    info = run(endpoint.info())
    assert (info.id, info.revision) == (label_model.name, transformers.folder_digest(label_model))
    assert (info.prompt, info.logprobs, info.context_length) == ("completion", False, 2048)
    assert run(endpoint.healthy())


@pytest.mark.slow
def test_it_writes_what_the_model_writes(served, label_model):
    """Asked in its own prompt, greedily, the server gives the text that the model gives without one, and ends it."""
    endpoint, run = served
    prompt = prompts_of(read_contract(str(label_model)))["label"]
    example = next(label_examples([Pair("?", TOPICS["保存"].format(x="绿茶"))], prompt))
    answer = run(endpoint.complete(Request(example.prompt, max_new_tokens=40)))
    model, tokenizer = load_model(str(label_model)), load_tokenizer(str(label_model))
    (direct,) = generate(model, tokenizer, [encode(tokenizer, example)], Sampling(40), status=Status())
    assert answer.text.strip() == direct.text != ""
    assert (answer.finish_reason, direct.ended) == ("stop", True)
    assert run(endpoint.complete(Request(example.prompt, max_new_tokens=2))).finish_reason == "length"


@pytest.mark.slow
def test_sampling_is_on_where_it_is_asked_for(served):
    """With a temperature answers differ by seed, and a seed gives the same answer again."""
    endpoint, run = served
    ask = [Request("绿茶", max_new_tokens=12, temperature=2.0, seed=seed) for seed in (1, 2, 3, 1)]
    texts = [run(endpoint.complete(request)).text for request in ask]
    assert texts[0] == texts[3]
    assert len(set(texts)) > 1


@pytest.mark.slow
def test_tokens_are_counted_with_its_own_tokenizer(served, label_model):
    """Counting needs no server: it is the folder's tokenizer."""
    endpoint, run = served
    text = "请说明绿茶的用途。"
    assert run(endpoint.count_tokens(text)) == len(load_tokenizer(str(label_model))(text)["input_ids"])


@pytest.mark.slow
def test_a_killed_parent_leaves_no_server_behind(label_model):
    """After `kill -9` of the process that started it, the server is gone within seconds."""
    code = (
        "import asyncio\nfrom kun_builder import ModelSpec\nfrom kun_builder.engines.transformers import connect\n"
        "async def main():\n"
        f"    async with connect(ModelSpec(name='m', model={str(label_model)!r})) as (endpoint,):\n"
        "        print(endpoint.url, flush=True)\n        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ})
    try:
        assert parent.stdout.readline().startswith(b"http://127.0.0.1:")
        children = psutil.Process(parent.pid).children()
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    assert children
    assert not psutil.wait_procs(children, timeout=100)[1], "the server outlived its parent"


@pytest.mark.slow
def test_a_folder_without_weights_is_an_error(label_model, tmp_path):
    """A folder that cannot be loaded ends in one error with the folder and the server's own words."""
    folder = tmp_path / "half"
    folder.mkdir()
    shutil.copy(label_model / "config.json", folder)
    started = time.monotonic()

    async def start():
        async with transformers.connect(ModelSpec(name="m", model=str(folder), wait=300)):
            pass

    with pytest.raises(ModelError, match="half"):
        asyncio.run(start())
    assert time.monotonic() - started < 250


def test_the_digest_is_that_of_the_model_alone(tmp_path):
    """Another weight or prompt is another revision; the record of the training and the card are not."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = transformers.folder_digest(tmp_path)
    (tmp_path / "kun_training.json").write_text("{}")
    (tmp_path / "README.md").write_text("card")
    assert transformers.folder_digest(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"22")
    assert transformers.folder_digest(tmp_path) != first


def test_commands_for_servers(tmp_path):
    """The commands for vLLM and TGI name the folder, shell-safe, and the recipe's entry the style of the prompts."""
    import shlex

    import yaml

    folder = tmp_path / "my model"
    ways = ways_to_serve(folder, PromptContract("completion", {}), "labeler")
    assert [way.title for way in ways] == ["kun-build itself, on this machine", "vLLM", "Text Generation Inference"]
    for way in ways[1:]:
        assert any(str(folder) in word for word in shlex.split(way.command))
        assert yaml.safe_load(f"{{{way.entry}}}")["labeler"]["prompt"] == "completion"
    assert yaml.safe_load(f"{{{ways[0].entry}}}")["labeler"]["model"] == str(folder)
    assert json.dumps([way.command for way in ways_to_serve("org/model", PromptContract("chat", {}), "chat")])
