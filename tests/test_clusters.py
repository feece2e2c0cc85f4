"""The scripts of docs/clusters, run without a cluster: a simulator is vLLM, `scontrol` and `hf` are stand-ins."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from places import STAGES
from simulated_builds import answers_in

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "docs/clusters"
ROWS = 150
VLLM = """#!{python}
import signal, subprocess, sys
assert sys.argv[1:3] == ["serve", "simulated/model"]
port = sys.argv[sys.argv.index("--port") + 1]
server = subprocess.Popen(["{python}", "{simulator}", port, '{{"slots": 8, "speed": 3}}'], stdin=subprocess.PIPE)
signal.signal(signal.SIGTERM, lambda *_: (server.kill(), sys.exit(0)))
sys.exit(server.wait())
"""
SCONTROL = '#!/bin/sh\necho "$@" >> scontrol.log\n'
HF = '#!/bin/sh\n[ "$1 $2" = "buckets sync" ] || exit 9\ncp -r "$(echo $3 | sed s#hf://buckets#$BUCKETS#)/." "$(echo $4 | sed s#hf://buckets#$BUCKETS#)"\n'  # fmt: skip  # noqa: E501
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("flock") and shutil.which("curl")), reason="needs flock and curl"),
]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with a recipe, and the programs of a cluster in PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    vllm = VLLM.format(python=sys.executable, simulator=ROOT / "tests/servers/llm_server.py")
    for name, text in (("vllm", vllm), ("scontrol", SCONTROL), ("hf", HF)):
        (programs / name).write_text(text, "utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    for name, value in (("MODEL", "simulated/model"), ("ENDPOINTS", str(tmp_path / "endpoints.txt")), ("DRAIN", "6")):
        monkeypatch.setenv(f"KUN_{name}", value)
    monkeypatch.setenv("KUN_TIME_LIMIT", "10m")
    monkeypatch.setenv("SLURMD_NODENAME", "127.0.0.1")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


def write(folder):
    folder.joinpath("data").mkdir(parents=True)
    rows = (json.dumps({"text": f"第{number}段文字"}) + "\n" for number in range(ROWS))
    (folder / "data/rows.jsonl").write_text("".join(rows), "utf-8")
    (folder / "recipe.yaml").write_text(
        "models: {chat: {endpoints_file: endpoints.txt, model: simulated/model, revision: one, wait: 60}}\n"
        "journal: journal\nshard_rows: 50\nsplits: {web: {source: lines, path: data/rows.jsonl}}\n"
        f"plugins: {{dirs: ['{STAGES}']}}\nstages: [ask, judge: {{threshold: 0}}, rewrite]\n"
    )


def start(script, *args):
    """Run a script as Slurm does: in a copy, elsewhere."""
    copy = Path("spool")
    copy.mkdir(exist_ok=True)
    path = shutil.copy(SCRIPTS / script, copy)
    return subprocess.Popen(["bash", path, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def listed():
    """The addresses in the file."""
    path = Path("endpoints.txt")
    return path.read_text().split() if path.exists() else []


def until(happens):
    end = time.monotonic() + 200
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


def reach_limit(script):
    """Bring the time limit of the build that a script runs to its end now."""
    below = psutil.Process(script.pid).children(recursive=True)
    [build] = [one for one in below if one.cmdline()[-2:] == ["--time-limit", "10m"]]
    build.send_signal(signal.SIGALRM)


def generations(folder):
    shown = subprocess.run(["kun-build", "cache", "--journal", folder, "--json"], capture_output=True)
    return json.loads(shown.stdout)["generations"]


def test_servers_come_and_go_and_the_build_goes_on(cluster):
    """Two servers enter the file; the first build ends by its time and is put into the queue again; one server leaves
    while the second one is under way, which finishes, and nobody asks for what is known."""
    servers = [start("servers.sbatch"), start("servers.sbatch")]
    try:
        until(lambda: len(listed()) == 2)
        first = start("build.sbatch", "recipe.yaml")
        until(lambda: len(answers_in(cluster / "journal")) > 20)
        reach_limit(first)
        said, _ = first.communicate(timeout=100)
        assert first.returncode == 75, said
        assert (cluster / "scontrol.log").read_text() == "requeue 17\n"
        assert 0 < generations("journal") < 3 * ROWS

        known = len(answers_in(cluster / "journal"))
        second = start("build.sbatch", "recipe.yaml")
        until(lambda: len(answers_in(cluster / "journal")) > known + 20)
        servers[0].send_signal(signal.SIGTERM)
        until(lambda: len(listed()) == 1)
        assert second.poll() is None
        said, _ = second.communicate(timeout=200)
        assert second.returncode == 0, said
        assert "Traceback" not in said
        servers[0].communicate(timeout=60)
        assert generations("journal") == 3 * ROWS
        assert (cluster / "scontrol.log").read_text() == "requeue 17\n"
    finally:
        for server in servers:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)
    assert listed() == []


def test_a_build_that_is_preempted_is_put_into_the_queue_again(cluster):
    """The script hands SIGTERM on, waits for the end in order, and asks for a new start."""
    server = start("servers.sbatch")
    try:
        until(listed)
        build = start("build.sbatch", "recipe.yaml")
        until(lambda: len(answers_in(cluster / "journal")) > 20)
        build.send_signal(signal.SIGTERM)
        said, _ = build.communicate(timeout=200)
        assert build.returncode == 75, said
        assert "nothing more is asked" in said
        assert (cluster / "scontrol.log").read_text() == "requeue 17\n"
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)


def test_a_job_brings_back_what_it_has_done(cluster, monkeypatch):
    """The bucket has journal and run folder after a job that ended early; the next one finishes with them."""
    write(cluster / "buckets/org/kun")
    recipe = cluster / "buckets/org/kun/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("endpoints_file: endpoints.txt, ", ""))
    monkeypatch.setenv("BUCKETS", str(cluster / "buckets"))
    monkeypatch.setenv("KUN_BUCKET", "org/kun")
    for number, code in enumerate((75, 0)):
        monkeypatch.setenv("KUN_WORK", str(cluster / f"work{number}"))
        monkeypatch.setenv("KUN_PORT", str(free_port()))
        job = start("hf-job.sh", "recipe.yaml", "--output", "run")
        if code:
            until(lambda: len(answers_in(cluster / "work0/journal")) > 20)
            reach_limit(job)
        said, _ = job.communicate(timeout=200)
        assert job.returncode == code, said
        known = generations(str(cluster / "buckets/org/kun/journal"))
        assert 0 < known < 3 * ROWS if code else known == 3 * ROWS
    assert (cluster / "buckets/org/kun/run/report.json").exists()


def free_port():
    """A port that nobody has now."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.iterdir()))
def test_a_script_is_sound(script):
    """ShellCheck has nothing to say, and the page shows the script."""
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), SCRIPTS / script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert f"(clusters/{script})" in (ROOT / "docs/clusters.md").read_text("utf-8")
