"""A trained model on the Hub: one commit with the model, its contract and card, and without the seeds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kun_training.job import RECORD_FILE, TrainingRecord
from servers.hub import HubServer

from kun_builder.prompt_contract import CONTRACT_FILE, PromptContract

TOKEN = "hf_alice_0123456789"
LOAD = """
import json, sys
from kun_builder.prompt_contract import read_contract
from kun_builder.errors import KunError
from kun_builder.hub.retry import Retry
from kun_training.push import push_model
from pathlib import Path
try:
    url = push_model(Path(sys.argv[1]), sys.argv[2], token=sys.argv[3], retry=Retry(wait=0.02))
except KunError as error:
    print(json.dumps({"error": error.message}))
else:
    print(json.dumps({"url": url, "prompts": read_contract(sys.argv[2]).prompts}))
"""


@pytest.fixture
def folder(tmp_path):
    """What training leaves, small."""
    folder = tmp_path / "label"
    (folder / "seeds").mkdir(parents=True)
    (folder / "base").mkdir()
    (folder / "adapter").mkdir()
    for name in ("model.safetensors", "config.json", "seeds/train.jsonl", "base/model.safetensors", "loss.png"):
        (folder / name).write_bytes(b"{}" + name.encode())
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n# Label model\n")
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"1")
    PromptContract("completion", {"label": {"completion_prompt": "{text}"}}).write(folder)
    record = TrainingRecord(
        task="label", base="b", revision="", preset="lora", signature="s", settings={}, tasks=("label",), pairs={},
        refused={}, finished=True,
    )  # fmt: skip
    record.write(folder)
    return folder


def push(hub, folder, repo="alice/label"):
    """Push in a process of its own, whose Hub is the test's."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(folder.parent / "hf")}
    command = [sys.executable, "-c", LOAD, str(folder), repo, TOKEN]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with HubServer(tmp_path_factory.mktemp("hub"), {TOKEN: {"alice"}}) as server:
        yield server


def names(hub, repo="alice/label"):
    return set(hub.store.files(hub.repo(repo, "model").resolve("main")))


@pytest.mark.slow
def test_the_model_is_one_commit_without_the_seeds(hub, folder):
    """All of the model goes up at once; seeds, checkpoints and the tiny base stay. Its contract is read from there."""
    result = push(hub, folder)
    assert hub.counts()["commit"] == 1
    found = names(hub)
    assert {"model.safetensors", "README.md", CONTRACT_FILE, RECORD_FILE, "loss.png"} <= found
    assert "adapter/adapter_model.safetensors" in found
    assert not [name for name in found if name.startswith(("seeds/", "base/", "checkpoints/"))]
    assert result["prompts"] == {"label": {"completion_prompt": "{text}"}}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [{"status": 409}, {"status": 412}, {"after": True}], ids=str)
def test_a_commit_is_made_once(hub, folder, fault):
    """Where somebody else wrote at the same time, or the answer was lost, there is one commit in the end."""
    repo = f"alice/once-{len(str(fault))}-{fault.get('status', 0)}"
    hub.forget()
    hub.fail("commit", **fault)
    assert "error" not in push(hub, folder, repo)
    titles = [commit["title"] for _, commit in hub.store.history(hub.repo(repo, "model").resolve("main"))]
    assert titles.count("The label model of kun-builder") == 1
    assert hub.counts()["commit"] == (1 if fault.get("after") else 2)


@pytest.mark.slow
def test_a_second_push_changes_nothing(hub, folder):
    """A model that is there already makes no second commit, and no error."""
    assert push(hub, folder, "alice/twice")["url"] == push(hub, folder, "alice/twice")["url"]


@pytest.mark.slow
def test_the_token_goes_nowhere_else(hub, folder, monkeypatch):
    """Where the Hub names another server to report an upload to, that server gets no token."""
    hub.forget()
    monkeypatch.setattr(hub, "verify_url", hub.storage_url)
    (folder / "loss.png").write_bytes(b"not uploaded before")
    assert push(hub, folder, "alice/elsewhere")["error"] == "upload the model: the Hub answered 401"
    assert {call.token for call in hub.calls if call.storage and call.route == "verify"} == {""}


@pytest.mark.slow
def test_a_repository_that_never_rests_is_an_error(hub, folder):
    """Where every commit meets somebody else's, the end is an error that says so, and no traceback."""
    hub.forget()
    hub.fail("commit", status=412, times=99)
    assert "could not commit to alice/busy in 6 attempts" in push(hub, folder, "alice/busy")["error"]
    hub.forget()


@pytest.mark.slow
def test_an_unfinished_model_is_not_published(hub, folder):
    """A training that was interrupted must go to its end first."""
    record = json.loads((folder / RECORD_FILE).read_text())
    (folder / RECORD_FILE).write_text(json.dumps({**record, "finished": False}))
    assert "no finished model" in push(hub, folder, "alice/other")["error"]
    assert hub.store.repo("model", "alice/other") is None


def test_the_test_is_about_our_folder_names():
    """The folders that stay at home are those that training makes."""
    from kun_training.job import HELD_OUT_FILE, TRAINED_FILE, UNPUBLISHED

    assert {Path(name).parts[0] for name in (HELD_OUT_FILE, TRAINED_FILE)} <= set(UNPUBLISHED)
