"""The prompt contract: a trained model is asked in the words that it was trained with."""

import asyncio
import os
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from kun_training.contracts import contract_for, prompts_of, stage_options, verdicts_of
from served_models import models as serving
from servers.scripted_chat import chat

from kun_builder.errors import TrainingError
from kun_builder.prompt_contract import CONTRACT_FILE, PromptContract, check_contracts, read_contract
from kun_builder.prompts import Prompt
from kun_builder.types import ModelSpec

TRAINED = PromptContract("completion", {"label": {"completion_prompt": "读文章：\n{text}\n指令："}})


@dataclass
class Step:
    stage: object
    models: tuple = ("m",)
    options: dict = field(default_factory=dict)


def step(prompt, stage="label"):
    return Step(SimpleNamespace(name=stage), options={"completion_prompt": Prompt(prompt)})


def models(tmp_path, **spec):
    return {"m": ModelSpec(name="m", model=str(tmp_path), **spec)}


def test_another_prompt_is_refused_with_the_difference(tmp_path):
    """A stage with other words than the model was trained with stops the run, and the message shows both lines."""
    TRAINED.write(tmp_path)
    with pytest.raises(TrainingError) as caught:
        check_contracts([step("读文章：\n{text}\n问题：")], models(tmp_path))
    assert "-指令：" in caught.value.message
    assert "+问题：" in caught.value.message
    assert "`m`" in caught.value.message


def test_the_same_prompt_passes(tmp_path):
    """White space around the prompt makes no difference; stages the model was not trained for are free."""
    TRAINED.write(tmp_path)
    check_contracts([step("读文章：\n{text}\n指令：\n\n"), step("别的", "polish")], models(tmp_path))


def test_another_word_in_the_prompt_is_refused(tmp_path):
    """The judge's words belong to its prompt."""
    PromptContract("chat", {"score": {"prompt": "{good}？", "good": "好", "bad": "差"}}).write(tmp_path)
    asking = Step(SimpleNamespace(name="score"), options={"prompt": Prompt("{good}？"), "good": "是", "bad": "差"})
    with pytest.raises(TrainingError, match="`good`"):
        check_contracts([asking], models(tmp_path))


def test_a_server_must_be_asked_in_the_trained_style(tmp_path):
    """A model behind an address is asked as the recipe says: chat prompts for a completion model are an error."""
    TRAINED.write(tmp_path)
    with pytest.raises(TrainingError) as caught:
        check_contracts([step("读文章：\n{text}\n指令：")], models(tmp_path, endpoints=("http://127.0.0.1:1",)))
    assert "prompt: completion" in caught.value.hint


def test_stages_hear_for_which_of_them_a_model_was_trained(tmp_path):
    """They then ask it with the prompt of their option, which the contract was checked against, and with no other."""
    TRAINED.write(tmp_path)

    async def main():
        async with chat(lambda body: "答") as server:
            async with serving(tmp_path, server, model=str(tmp_path)) as trained:
                assert trained.info("chat").trained_for == ("label",)
            async with serving(tmp_path, server) as plain:
                assert plain.info("chat").trained_for == ()

    asyncio.run(main())


def test_models_without_a_contract_are_free(tmp_path, monkeypatch):
    """A folder, file or Hub id without `kun_prompt.json` is no error, also where the Hub cannot be asked."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert read_contract(str(tmp_path)) is None
    assert read_contract(str(tmp_path / "a.gguf")) is None
    assert read_contract("") is None
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert read_contract("org/model") is None


def test_a_contract_is_read_once_until_it_changes(tmp_path):
    """The check before a run, the engine and the stages have one and the same contract; another file is another one."""
    TRAINED.write(tmp_path)
    first = read_contract(str(tmp_path))
    assert first == TRAINED
    assert read_contract(str(tmp_path)) is first
    chat_style = PromptContract("chat", TRAINED.prompts)
    chat_style.write(tmp_path)
    os.utime(tmp_path / CONTRACT_FILE, ns=(1, 1))
    assert read_contract(str(tmp_path)) == chat_style


def test_a_damaged_contract_names_the_model(tmp_path):
    """A contract that cannot be read stops the run with the model's name."""
    (tmp_path / CONTRACT_FILE).write_text('{"style": "chat"}')
    with pytest.raises(TrainingError, match=str(tmp_path)):
        read_contract(str(tmp_path))


def test_it_holds_the_built_in_stages_own_prompts(registry):
    """Training takes the defaults of the stages: completion for the label model, chat for the others."""
    options = stage_options(registry)
    label, chat = contract_for("label", options), contract_for("chat", options)
    assert label.style == "completion"
    assert label.prompts["label"] == {"completion_prompt": options["label"]["completion_prompt"].text}
    assert set(chat.prompts) == {"polish", "score"}
    assert verdicts_of(chat) == (options["score"]["good"], options["score"]["bad"])
    assert {stage: prompt.text for stage, prompt in prompts_of(chat).items()} == {
        stage: options[stage]["prompt"].text for stage in ("polish", "score")
    }
