"""Inputs on the Hub by their addresses, `hf://datasets/...`, as the real client reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import HfApi
from servers.hub import HubServer

READ = """
import json, sys
from kun_builder.errors import SourceError
from kun_builder.readers import Records, find_files, name_inputs
from kun_builder.readers.places import look
try:
    found = find_files(sys.argv[1], ("*.jsonl",), "wiki")
except SourceError as error:
    sys.exit(f"{error.message} | {error.hint}")
rows = [[record.data["n"] for record in Records(path)] for path in found]
print(json.dumps([found, list(name_inputs(found, 1)), rows, [look(path).stamp for path in found]]))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with a private dataset of three files."""
    with HubServer(tmp_path_factory.mktemp("hub"), {"hf_alice": {"alice"}}) as server:
        api = HfApi(server.url, token="hf_alice")
        api.create_repo("alice/data", repo_type="dataset", private=True)
        for name, count in (("data/1.jsonl", 1000), ("data/2.jsonl", 5), ("README.md", 1)):
            lines = b"".join(b'{"n": %d}\n' % number for number in range(count))
            api.upload_file(path_or_fileobj=lines, path_in_repo=name, repo_id="alice/data", repo_type="dataset")
        yield server


def _read(hub, folder, path, token="hf_alice"):
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder), "HF_TOKEN": token}
    return subprocess.run([sys.executable, "-c", READ, path], env=env, capture_output=True, text=True, timeout=100)


def test_files_of_a_dataset_are_read_by_their_address(hub, tmp_path):
    """A glob over a private dataset finds, names and reads its files; their stamps are those of their content."""
    done = _read(hub, tmp_path, "hf://datasets/alice/data/data/*.jsonl")
    assert done.returncode == 0, done.stderr
    found, names, rows, stamps = json.loads(done.stdout)
    assert [path.rpartition("/")[2] for path in found] == names == ["1.jsonl", "2.jsonl"]
    assert rows == [list(range(1000)), list(range(5))]
    assert all(len(stamp) == 2 for stamp in stamps)
    assert stamps[0] != stamps[1]


@pytest.mark.parametrize("path", ["hf://datasets/alice/data/data/*.jsonl", "hf://datasets/alice/data/data/1.jsonl"])
def test_a_private_dataset_needs_a_token(hub, tmp_path, path):
    """Without one, the error has the address and the variable."""
    done = _read(hub, tmp_path, path, token="")
    assert done.returncode == 1
    assert path in done.stderr
    assert "Traceback" not in done.stderr
    assert "HF_TOKEN" in done.stderr
