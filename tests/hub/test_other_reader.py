"""What we publish, served by a Hub that is not ours: `olah` gives readers the same rows."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub.conftest import ALICE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

READ = """
import json, sys
from datasets import load_dataset
from huggingface_hub import snapshot_download
repo = sys.argv[1]
loaded = {config: load_dataset(repo, config) for config in ("default", "provenance")}
found = {config: {split: list(rows) for split, rows in splits.items()} for config, splits in loaded.items()}
found["streaming"] = {s: list(load_dataset(repo, split=s, streaming=True)) for s in found["default"]}
found["snapshot"] = snapshot_download(repo, repo_type="dataset")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def olah(request) -> Path:
    """`olah-cli`, in an environment of its own: it needs older packages than ours. Made once."""
    folder = Path(request.config.cache.mkdir("olah"))
    command = folder / "bin/olah-cli"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "olah==0.5.4"]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"olah cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    return command


@pytest.fixture
def mirror(olah, hub, template, tmp_path) -> Iterator[str]:
    """Address of an olah that serves what the test Hub holds, exported to a git repository."""
    repo = tmp_path / "mirrors/datasets" / template
    for path, entry in hub.files(template).items():
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(hub.store.blob(entry.sha256), repo / path)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    for step in (["init", "-q", "-b", "main"], ["add", "-A", "-f"], ["commit", "-q", "-m", "export"]):
        subprocess.run([*git, *step], cwd=repo, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    basic = {
        "host": "127.0.0.1",
        "port": port,
        "repos-path": str(tmp_path / "cache"),
        "log-path": str(tmp_path / "log"),
    }
    basic |= {"mirror-netloc": f"127.0.0.1:{port}", "mirror-lfs-netloc": f"127.0.0.1:{port}"}
    lines = [
        f"{name} = {json.dumps(value)}"
        for name, value in {**basic, "mirrors-path": [str(tmp_path / "mirrors")]}.items()
    ]
    config = tmp_path / "olah.toml"
    config.write_text("\n".join(["[basic]", *lines, "[accessibility]", "offline = true", ""]))
    with (tmp_path / "olah.log").open("wb") as log:
        server = subprocess.Popen([olah, "--config", config], cwd=tmp_path, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/api/datasets/{template}/revision/main", server, tmp_path / "olah.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(2000):
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"olah does not answer: {log.read_text()[-2000:]}")


def test_same_rows(mirror, zygote, template, tmp_path):
    """`load_dataset`, streaming and `snapshot_download` through olah give what they give through the test Hub."""
    env = {**os.environ, "HF_ENDPOINT": mirror, "HF_HOME": str(tmp_path / "hf"), "USE_TORCH": "0"}
    done = subprocess.run(
        [sys.executable, "-c", READ, template], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    for config in ("default", "provenance"):
        ours = zygote.run("publish_worker:load", repo=template, config=config, token=ALICE)
        assert theirs[config] == ours
    assert theirs["streaming"] == theirs["default"]
    assert (Path(theirs["snapshot"]) / "plots/funnel.png").exists()
