"""Training for real, with a tiny model: it learns, it can be interrupted, and its folder tells what it is."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from kun_training.contracts import stage_options
from kun_training.job import HELD_OUT_FILE, TRAINED_FILE, check_folder, read_record
from kun_training.presets import PRESETS, lora_config, settings_for, sft_config
from kun_training.request import make_job, read_seeds
from kun_training.seeds import read_pairs
from kun_training.sft import clear_checkpoints, last_checkpoint, train
from places import KUN_BUILD
from tiny_models import QUICK, pairs, section, train_tiny, write_lines

from kun_builder.errors import TrainingError
from kun_builder.prompt_contract import read_contract
from kun_builder.status import Status

pytestmark = pytest.mark.timeout(900)  # a busy machine is no failure


@pytest.mark.slow
def test_it_learns(label_model):
    """After training, held-out instructions are likelier by more than 2 nats per token than before."""
    record = read_record(label_model)
    assert record.finished
    assert record.held_out_after < record.held_out_before - 2
    assert record.pairs["held_out"] > 5
    points = json.loads((label_model / "losses.json").read_text())
    assert {point["of"] for point in points} == {"training", "held-out"}
    assert (label_model / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_held_out_pairs_are_never_trained_on(label_model):
    """The two seed files in the folder share no pair, and no checkpoint is left behind."""
    train_side = {pair.digest for pair in read_pairs([label_model / TRAINED_FILE], [])}
    held_out = {pair.digest for pair in read_pairs([label_model / HELD_OUT_FILE], [])}
    assert held_out
    assert not train_side & held_out
    assert not (label_model / "checkpoints").exists()


@pytest.mark.slow
def test_the_folder_is_a_model_with_its_prompt_and_card(label_model, registry):
    """The folder loads as a model, holds the label stage's own prompt, and its card shows it without a local path."""
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(label_model).num_parameters() > 1.5e6
    prompt = stage_options(registry)["label"]["completion_prompt"]
    assert read_contract(str(label_model)).prompts == {"label": {"completion_prompt": prompt.text}}
    card = (label_model / "README.md").read_text("utf-8")
    assert prompt.text.strip() in card
    assert str(label_model) not in card
    assert "held-out loss, before and after" in card


@pytest.mark.slow
def test_the_chat_model_learns_all_tasks(chat_model):
    """The chat model is trained on answers, polished texts and judgements, and its loss falls."""
    record = read_record(chat_model)
    assert tuple(record.tasks) == ("answer", "polish", "score")
    assert record.examples > 3 * record.pairs["train"]
    assert record.held_out_after < record.held_out_before - 2
    assert set(read_contract(str(chat_model)).prompts) == {"polish", "score"}


@pytest.mark.slow
def test_a_finished_training_is_not_repeated(label_model, seed_file, registry):
    """The same job again does nothing and says so; another one does not touch the folder."""
    said = []
    training = section(seed_file)
    job = make_job("label", training, stage_options(registry), read_seeds(training, Path()), label_model)
    before = (label_model / "model.safetensors").stat().st_mtime_ns
    assert train(job, Status(say=said.append)).finished
    assert "nothing to do" in said[0]
    assert (label_model / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(TrainingError, match="other seeds"):
        train_tiny("label", seed_file, registry, label_model, settings={"learning_rate": 1e-4})


@pytest.mark.slow
def test_lora_is_merged(label_model, tmp_path, registry):
    """LoRA trains adapters only; the folder holds plain weights that differ from the base, and the adapter beside."""
    from safetensors.torch import load_file

    seeds = write_lines(tmp_path / "seeds.jsonl", pairs(40))
    settings = {"max_steps": 3, "learning_rate": 1e-2, "eval_strategy": "no", "eval_on_start": False, "max_length": 512}
    settings |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "lora.r": 4}
    training = section(seeds, base=str(label_model)).model_copy(update={"preset": "lora", "settings": settings})
    job = make_job("label", training, stage_options(registry), read_seeds(training, Path()), tmp_path / "model")
    assert train(job).steps == 3
    base, merged = (load_file(folder / "model.safetensors") for folder in (label_model, tmp_path / "model"))
    assert base.keys() == merged.keys()
    assert any((base[name] != merged[name]).any() for name in base)
    adapter = load_file(tmp_path / "model" / "adapter" / "adapter_model.safetensors")
    assert all("lora" in name for name in adapter)


def test_checkpoints_of_others_stay(tmp_path):
    """Only what the trainer makes is removed: torn checkpoints before it goes on, at the end all and its card."""
    for name in ("checkpoint-3", "checkpoint-4", "checkpoint-best", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.bin").write_bytes(b"1")
    (tmp_path / "checkpoint-3/trainer_state.json").write_text('{"global_step": 3}')
    (tmp_path / "README.md").write_text("by the trainer")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "checkpoint-3", "checkpoint-best", "mine"]
    clear_checkpoints(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-best", "mine"]
    for name in ("checkpoint-best", "mine"):
        shutil.rmtree(tmp_path / name)
    clear_checkpoints(tmp_path)
    assert not tmp_path.exists()


def test_a_folder_with_checkpoints_of_others_is_refused(tmp_path, registry):
    """`--output` into a folder that no training of ours has made is an error before anything is written there."""
    (tmp_path / "m/checkpoints/checkpoint-1").mkdir(parents=True)
    training = section(write_lines(tmp_path / "seeds.jsonl", pairs(40)))
    job = make_job("label", training, stage_options(registry), read_seeds(training, Path()), tmp_path / "m")
    with pytest.raises(TrainingError, match="is not empty, and no training of ours"):
        check_folder(job)


def run_cli(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [str(KUN_BUILD), *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def wait_for(found, process, seconds=200):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("nothing happened")


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_last_checkpoint(tmp_path):
    """After `kill -9`, the same command goes on from the last whole checkpoint; a torn one is thrown away."""
    seeds = write_lines(tmp_path / "seeds.jsonl", pairs(60))
    command = ("train", "label", "--seeds", seeds, "--preset", "tiny", "--output", tmp_path / "m")
    options = ("--set", "max_steps=12", "--set", "save_steps=3", "--set", "eval_strategy=no", "--json")
    options += ("--set", "eval_on_start=false", "--set", "logging_steps=1")
    first = run_cli(*command, *options)
    try:
        wait_for(lambda: (tmp_path / "m/checkpoints/checkpoint-3/trainer_state.json").is_file(), first)
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert not read_record(tmp_path / "m").finished
    reached = int(last_checkpoint(tmp_path / "m" / "checkpoints").name.split("-")[1])
    torn = tmp_path / "m" / "checkpoints" / "checkpoint-11"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    second = run_cli(*command, *options)
    out, errors = second.communicate(timeout=250)
    assert second.returncode == 0, errors
    assert json.loads(out)["steps"] == 12
    logged = [point["step"] for point in json.loads((tmp_path / "m" / "losses.json").read_text())]
    assert sorted(set(logged)) == list(range(1, 13))
    assert "Traceback" not in errors
    shown = [int(step) for step in re.findall(r"train label: (\d+)/", errors)]
    assert min(shown) >= reached


# --- settings ----------------------------------------------------------------------------------------------------


def test_the_published_preset():
    """`kun` is full fine-tuning with learning rate 1e-5, 6 epochs for the label model and 4 for the chat model."""
    label, chat = (settings_for(task, "kun", {}) for task in ("label", "chat"))
    assert (label["learning_rate"], label["num_train_epochs"], chat["num_train_epochs"]) == (1e-5, 6, 4)
    assert lora_config(label) is None


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_configuration(tmp_path, preset):
    """Presets make an SFTConfig, and a LoraConfig where they use LoRA."""
    settings = settings_for("label", preset, {"learning_rate": 3e-4})
    config = sft_config(settings, tmp_path, evaluate=True)
    assert config.learning_rate == 3e-4
    assert (lora_config(settings) is not None) == (preset == "lora")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"learning_rat": 1}, "did you mean `learning_rate`"),
        ({"output_dir": "x"}, "--output"),
        ({"push_to_hub": True}, "--push-to-hub"),
        ({"completion_only_loss": False}, "completion"),
    ],
)
def test_a_wrong_setting_is_refused(setting, said):
    """Unknown settings are refused with the nearest name, those that are decided elsewhere with the place."""
    with pytest.raises(TrainingError, match=said):
        settings_for("label", "lora", setting)


def test_settings_that_do_not_go_together_are_an_error(tmp_path):
    """What TRL refuses is one line, not a traceback."""
    with pytest.raises(TrainingError, match="do not go together"):
        sft_config(settings_for("label", "tiny", {"eval_strategy": "sometimes"}), tmp_path, evaluate=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path, seed_file, registry):
    """Training never writes into a folder that holds anything else."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="not empty"):
        train_tiny("label", seed_file, registry, tmp_path)


def test_a_base_that_is_not_there_is_an_error(tmp_path, seed_file, registry):
    """A base model that cannot be loaded is named, with the forms that are known."""
    with pytest.raises(TrainingError, match="nowhere") as caught:
        train_tiny("label", seed_file, registry, tmp_path / "m", base=str(tmp_path / "nowhere"))
    assert "Hub id" in caught.value.hint


def test_quick_settings_are_fields_of_the_configuration():
    """The tests' own settings are real ones."""
    assert settings_for("label", "tiny", QUICK)["num_train_epochs"] == QUICK["num_train_epochs"]
