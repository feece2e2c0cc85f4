"""Training over several processes: the shipped configurations, launched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import kun_training
import pytest
import yaml
from kun_training.job import read_record
from tiny_models import pairs, write_lines

CONFIGURATIONS = Path(kun_training.__file__).parent / "accelerate"
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.timeout(900)  # a busy machine is no failure


def launch(*command, **variables):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
        **variables,
    }
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    return done


def train_command(folder, *settings):
    seeds = write_lines(folder / "seeds.jsonl", pairs(24))
    command = [BIN / "kun-build", "train", "label", "--seeds", seeds, "--preset", "tiny", "--output", folder / "m"]
    for setting in ("max_steps=2", "eval_strategy=no", "eval_on_start=false", *settings):
        command += ["--set", setting]
    return [*command, "--json"]


@pytest.mark.parametrize("name", ["fsdp.yaml", "deepspeed_zero3.yaml"])
def test_accelerate_understands_the_configurations(name):
    """Each file is one that `accelerate launch` takes, key by key."""
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig.from_yaml_file(CONFIGURATIONS / name)
    written = yaml.safe_load((CONFIGURATIONS / name).read_text())
    assert config.num_processes == written["num_processes"]
    part = "fsdp_config" if name == "fsdp.yaml" else "deepspeed_config"
    assert getattr(config, part) == written[part]


@pytest.mark.slow
def test_the_shipped_configuration_launches(tmp_path):
    """`accelerate launch` with it trains a model, here on one CPU."""
    accelerate = (BIN / "accelerate", "launch", "--config_file", CONFIGURATIONS / "fsdp.yaml")
    done = launch(*accelerate, "--cpu", "--num_processes", "1", *train_command(tmp_path))
    assert json.loads(done.stdout)["steps"] == 2


@pytest.mark.slow
def test_two_processes_share_a_model(tmp_path):
    """Two processes that share the model by FSDP write one whole model, and one of them reports."""
    settings = yaml.safe_load((CONFIGURATIONS / "fsdp.yaml").read_text())["fsdp_config"]
    variables = {name.upper(): str(value).lower() for name, value in settings.items()}
    variables |= {name: settings[name.lower()] for name in ("FSDP_AUTO_WRAP_POLICY", "FSDP_STATE_DICT_TYPE")}
    torchrun = (BIN / "torchrun", "--nproc_per_node", "2", "--master_port", "0", "--rdzv_backend", "c10d")
    done = launch(
        *torchrun, *train_command(tmp_path, "use_cpu=true"), ACCELERATE_USE_FSDP="true", **variables
    )  # fmt: skip
    assert json.loads(done.stdout)["steps"] == 2
    assert read_record(tmp_path / "m").finished
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "m").num_parameters() > 1.5e6
