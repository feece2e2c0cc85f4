"""Commands over a run in a bucket, on a real S3 server: what people say of it goes back there; it can be published.

Another machine is another cache (`KUN_CACHE`), since nothing else of a run stays on a machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers.hub import HubServer

from kun_builder.cache import mirror_folder
from kun_builder.run import mirror, remote_hold

ALICE = "hf_alice_0123456789"
PLUGIN = """
from kun_builder import RowStage, hookimpl

kun_api = 1


async def pair(row, generate):
    return {**row, "instruction": f"什么是{row['text'][:6]}？", "output": row["text"] * 2}


@hookimpl
def kun_stages():
    return [RowStage(name="pair", run=pair, adds={"instruction": "string", "output": "string"})]
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Seconds are short here."""
    monkeypatch.setattr(mirror, "EVERY", 0.2)
    monkeypatch.setattr(remote_hold, "SETTLE", 0.1)


@pytest.fixture
def pairs(tmp_path):
    """A recipe of ten pairs that need no model, and whose licence is acknowledged."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/pairing.py").write_text(PLUGIN, "utf-8")
    lines = [json.dumps({"text": f"第{number}篇说的是别的事。"}, ensure_ascii=False) for number in range(10)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: pairs\nsplits: {{one: {{source: generic, path: '{tmp_path}/in.jsonl'}}}}\nstages: [pair]\n"
        f"plugins: {{dirs: ['{tmp_path}/plugins']}}\npublish: {{license_acknowledged: true}}\n"
    )
    return recipe


def test_verdicts_go_back_to_the_address(kun, pairs, bucket, machine, tmp_path):
    """Those of two reviewers on two machines, neither of which has the run; a third one counts both."""
    address, objects = bucket
    machine("builds")
    assert kun(pairs, "--output", address)[0] == 0
    finished = objects()
    for number, reviewer in enumerate(("wang", "li")):
        machine(reviewer)
        page = tmp_path / f"{reviewer}.html"
        assert kun("review", address, "--file", page)[0] == 0
        (kept,) = (mirror_folder(address) / "kept").glob("*.parquet")
        verdict = {"id": _ids(kept)[number], "good": reviewer == "wang", "stratum": "kept", "stratum_rows": 10}
        (tmp_path / f"{reviewer}.jsonl").write_text(json.dumps(verdict) + "\n", "utf-8")
        code, _, err = kun("review", address, "--take", tmp_path / f"{reviewer}.jsonl")
        assert code == 0, err
    there = objects()
    for reviewer in ("wang", "li"):
        assert there.pop(f"verdicts/{reviewer}.jsonl") == (tmp_path / f"{reviewer}.jsonl").read_bytes()
    assert there == finished  # nothing else has changed, and nobody holds it any more
    machine("counts")
    code, out, err = kun("review", address, "--take", tmp_path / "wang.jsonl", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["read"], found["good"]) == (2, 1)


def _ids(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["id"])["id"].to_pylist()


def test_a_run_in_a_bucket_is_checked_against_the_hub(kun, pairs, bucket, machine, tmp_path):
    """Another machine brings it, finds that the dataset loads and what a push would write, and changes nothing, neither
    on the Hub nor in the bucket."""
    address, objects = bucket
    machine("builds")
    assert kun(pairs, "--output", address)[0] == 0
    before = objects()
    with HubServer(tmp_path / "hub", {ALICE: {"alice"}}) as hub:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "KUN_CACHE": str(tmp_path / "pushes")}
        command = [Path(sys.executable).parent / "kun-build", "push", address, "alice/new", "--token", ALICE]
        done = subprocess.run([*command, "--dry-run", "--json"], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        published = json.loads(done.stdout)
        assert published["dry_run"]
        assert published["rows"] == {"one": 10}
        assert any(name.startswith("data/one-") for name in published["added"])
        assert {call.method for call in hub.calls} <= {"GET", "HEAD"}
    assert objects() == before
