"""The loop: two rounds of train and build, killed twice on the way."""

import json
import os
import shutil
import signal
import subprocess
import time

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from kun_training.align import provenance, round_recipe
from kun_training.job import read_record
from kun_training.seeds import read_pairs
from places import KUN_BUILD
from tiny_models import POLISH, QUICK, TOPICS, section, write_lines

from kun_builder.errors import TrainingError
from kun_builder.prompt_contract import read_contract
from kun_builder.recipe.recipe import load_recipe

NEW = ("黄豆", "芝麻", "花生", "核桃", "山药", "冬瓜")


def recipe_file(folder, seed_file):
    """A recipe for tiny models, over texts about things that no seed is about."""
    texts = [{"text": text.format(x=thing)} for thing in NEW for text in TOPICS.values()]
    write_lines(folder / "data" / "texts.jsonl", texts)
    training = section(seed_file)
    path = folder / "recipe.yaml"
    recipe = {
        "name": "loop",
        "models": {"chat": {}},
        "splits": {"web": {"source": "generic", "path": "data/texts.jsonl"}},
        "stages": [
            {"label": {"temperature": 0.0, "max_new_tokens": 40}},
            {"score": {"threshold": 0.0}},  # a model of this size cannot tell good from bad
            {"polish": {"max_new_tokens": 160, "prompt": POLISH.text}},
        ],
        "training": {
            "seeds": [str(seed_file)],
            "preset": "tiny",
            "settings": dict(QUICK),
            "chat": {"settings": training.chat.settings},
            "select": {"min_score": 0.0, "max_pairs": 12},
        },
    }
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), "utf-8")
    return path


def start(recipe, out):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "KUN_CACHE": str(out.parent / "cache")}
    command = [str(KUN_BUILD), "align", str(recipe), "--rounds", "2", "--output", str(out), "--json"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_when(process, found, seconds=600):
    """`kill -9` once `found()`; its servers must be gone soon after."""
    end = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not psutil.wait_procs(children, timeout=100)[1], "a server outlived the loop"


@pytest.fixture(scope="module")
def loop(tmp_path_factory, seed_file, label_model, chat_model):
    """The folder of two finished rounds, and what the loop printed; round 1 was trained by an earlier run."""
    folder = tmp_path_factory.mktemp("loop")
    recipe, out = recipe_file(folder, seed_file), folder / "out"
    for name, model in (("label-model", label_model), ("chat-model", chat_model)):
        shutil.copytree(model, out / "round-1" / name)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    kill_when(start(recipe, out), lambda: (out / "round-1" / "build").exists())
    checkpoints = out / "round-2" / "label-model" / "checkpoints"
    kill_when(start(recipe, out), lambda: any(checkpoints.glob("checkpoint-*/trainer_state.json")))
    process = start(recipe, out)
    printed, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    assert all(path.stat().st_mtime_ns == then for path, then in before.items()), "round 1 was trained again"
    return recipe, out, json.loads(printed), errors


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_rounds_come_out_of_two_kills(loop, label_model):
    """The table of the rounds: yield, mean score, diversity, likelihood; the second is trained on seeds and rows."""
    _, out, rounds, errors = loop
    assert [one["number"] for one in rounds] == [1, 2]
    assert all(one["read"] == len(NEW) * len(TOPICS) for one in rounds)
    assert all(one["kept"] > 0 and 0 < one["distinct_2"] <= 1 and 0 <= one["mean_score"] <= 1 for one in rounds)
    assert rounds[0]["augmented"] == 0
    assert rounds[1]["augmented"] == rounds[0]["selected"] > 0
    untrained = -read_record(label_model).held_out_before
    assert all(one["held_out"] > untrained + 2 for one in rounds)
    assert "Traceback" not in errors
    assert read_record(out / "round-2" / "label-model").finished


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_each_round_is_a_run_like_any_other(loop, tmp_path):
    """A round's build loads as a dataset, says who made it, and its selected rows are tagged and unlike every seed."""
    _, out, rounds, _ = loop
    for one in rounds:
        run = out / f"round-{one['number']}" / "build"
        # A cache of its own: that of `datasets` does not tell two folders with the same splits apart.
        loaded = load_dataset(str(run / "dataset"), split="web", cache_dir=str(tmp_path / run.parent.name))
        assert len(loaded) == one["kept"]
        report = json.loads((run / "report.json").read_text())
        assert {info["id"] for info in report["models"].values()} == {"label-model", "chat-model"}
        rejected = pq.read_table(run / "rejected" / "web.parquet").num_rows
        assert one["kept"] + rejected == one["read"]
    selected = list(read_pairs([out / "round-1" / "selected.jsonl"], []))
    texts = {row["text"] for row in provenance(out / "round-1" / "build")}
    assert {pair.tag for pair in selected} == {"augmented"}
    assert all(pair.text in texts for pair in selected)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_second_chat_model_knows_the_tags(loop):
    """Once there are polished answers, the two kinds are told apart by their system messages."""
    _, out, _, _ = loop
    assert "answer" not in read_contract(str(out / "round-1" / "chat-model")).prompts
    assert set(read_contract(str(out / "round-2" / "chat-model")).prompts["answer"]) == {"seed", "augmented"}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_finished_loop_does_nothing(loop):
    """Run once more, the loop trains nothing, asks nothing, and prints the same table."""
    recipe, out, rounds, _ = loop
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    process = start(recipe, out)
    printed, errors = process.communicate(timeout=600)
    assert json.loads(printed) == rounds
    assert errors.count("nothing to do") == 6
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before


def test_only_the_methods_stages_ask_the_trained_models(tmp_path, seed_file, registry):
    """label asks the trained label model, score and polish the trained chat model; the recipe itself is untouched."""
    recipe = load_recipe(recipe_file(tmp_path, seed_file), registry)
    made = round_recipe(recipe, registry, tmp_path / "round-1")
    assert [spec.options["model"] for spec in made.stages] == ["label_model", "chat_model", "chat_model"]
    assert made.models["label_model"].prompt == "completion"
    assert made.output == tmp_path / "round-1" / "build"
    assert [spec.options["model"] for spec in recipe.stages] == ["chat"] * 3


def test_a_recipe_without_training_is_an_error(tmp_path, seed_file, registry):
    """The loop needs seeds."""
    from kun_training.align import align

    path = recipe_file(tmp_path, seed_file)
    path.write_text("\n".join(path.read_text("utf-8").split("training:")[:1]), "utf-8")
    with pytest.raises(TrainingError, match="training"):
        align(load_recipe(path, registry), registry, 1)
