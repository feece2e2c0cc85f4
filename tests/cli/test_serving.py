"""What a user sees of the models at work: figures while it runs, the report afterwards, the cache, an estimate."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import time
from urllib.request import urlopen

import pytest
from places import KUN_BUILD, STAGES
from servers.llm_server import Faults
from servers.llm_simulator import simulator

from kun_builder.cli.output import Output
from kun_builder.cli.progress import progress
from kun_builder.status import Status

ROWS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a recipe that has prices, and limits that nothing reaches."""
    folder = tmp_path_factory.mktemp("serving")
    rows = (json.dumps({"text": f"第{number}段文字"}) + "\n" for number in range(ROWS))
    (folder / "rows.jsonl").write_text("".join(rows), "utf-8")
    (folder / "recipe.yaml").write_text(
        "name: small\njournal: journal\n"
        "models: {chat: {cost: {input: 2, output: 8}, limits: {tokens_per_minute: 1e+9}}}\n"
        "splits: {web: {source: lines, path: rows.jsonl}}\n"
        f"plugins: {{dirs: ['{STAGES}']}}\nstages: [ask, judge: {{threshold: 0}}, rewrite]\n"
    )
    return folder


def kun(folder, *args):
    return subprocess.run([KUN_BUILD, *args], capture_output=True, text=True, cwd=folder)


@pytest.fixture(scope="module")
def run(folder):
    """A build at a server with faults, and what its metrics said meanwhile."""
    with simulator(slots=8, speed=4.0, faults=Faults(http_429=0.03)) as server:
        command = [KUN_BUILD, "--endpoint", server.url, "--metrics-port", "0", "--log-format", "json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
        first = json.loads(process.stderr.readline())
        url = first["message"].removeprefix("metrics: ")
        scraped = ""
        while "kun_requests_total 0\n" in scraped or not re.search(
            r"^kun_requests_in_flight [1-9]", scraped, re.MULTILINE
        ):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
            with urlopen(url) as answer:
                scraped = answer.read().decode()
        _, said = process.communicate()
    assert process.returncode == 0, said
    return server.url, scraped, said


def test_metrics_of_a_running_build(run):
    """`--metrics-port` serves the figures of the build while it runs."""
    _, scraped, _ = run
    figures = dict(line.rsplit(" ", 1) for line in scraped.splitlines() if not line.startswith("#"))
    assert int(figures["kun_requests_in_flight"]) > 0
    assert int(figures["kun_requests_total"]) > 0


def test_json_log(run):
    """With `--log-format json` every line on stderr is an object; those of progress count up to the end."""
    lines = [json.loads(line) for line in run[2].splitlines()]
    assert [line for line in lines if line.get("phase") == "ask > judge > rewrite"]
    progress = [line for line in lines if "phase" in line]
    assert progress[-1]["phase"] == "write"
    assert progress[-1]["requests"] == max(line["requests"] for line in progress) > 2 * ROWS
    assert all("message" in line or "warning" in line for line in lines if line not in progress)


def test_the_report_shows_the_models_at_work(folder, run):
    """Retries, cached prompt tokens, tokens and money per step, and each window over time are in report.json and in
    report.html."""
    report = json.loads((folder / "runs/small/report.json").read_bytes())
    usage = {one["stage"]: one for one in report["usage"]}
    rewrite = usage["rewrite"]
    assert rewrite["requests"] == ROWS
    assert rewrite["cost"] == pytest.approx((2 * rewrite["prompt_tokens"] + 8 * rewrite["completion_tokens"]) / 1e6)
    assert 0 < rewrite["cached_prompt_tokens"] < rewrite["prompt_tokens"]
    retries = {one["stage"]: one["retries"] for one in report["serving"]["usage"]}
    assert sum(retries.values()) > 0
    (endpoint,) = report["serving"]["endpoints"]["chat"]
    assert (endpoint["answered"], endpoint["failed"]) == (3 * ROWS, sum(retries.values()))
    assert len(endpoint["window"]) > 2

    page = (folder / "runs/small/report.html").read_text("utf-8")
    row = re.search(r"<tr><td>rewrite</td><td>chat</td>.*?</tr>", page)[0]
    cells = re.findall(r'class="number">([^<]*)<', row)
    assert cells[0] == f"{ROWS}"
    assert cells[2] == str(retries["rewrite"])
    assert cells[6] == f"{rewrite['cached_prompt_tokens'] / rewrite['prompt_tokens']:.1%}"
    assert cells[8] == "0"  # tokens of thinking
    assert cells[9] == f"{rewrite['cost']:,.4f}"
    row = re.search(rf"<tr><td>chat</td><td>{re.escape(run[0])}</td>.*?</tr>", page)[0]
    points = [tuple(map(float, point.split(","))) for point in re.search(r'points="([^"]*)"', row)[1].split()]
    assert (points[0][0], points[-1][0]) == (0.0, 240.0)
    assert {y >= 0 for _, y in points} == {True}
    assert f"up to {max(limit for _, limit in endpoint['window'])} in " in row
    assert "at most 1,000,000,000 tokens per minute" in row


def test_the_plan_says_the_limits(folder):
    """What each endpoint of a model may be sent per minute is in the plan."""
    assert "each at most 1,000,000,000 tokens per minute" in kun(folder, "plan").stdout
    plan = json.loads(kun(folder, "plan", "--json").stdout)
    assert plan["models"]["chat"]["limits"] == {"tokens_per_minute": 1e9}


def test_cache(folder, run):
    """`kun-build cache` tells the size of the journal; `--prune` asks, then forgets what nothing was added to."""
    shown = json.loads(kun(folder, "cache", "--journal", "journal", "--json").stdout)
    assert (shown["generations"], shown["files"]) == (3 * ROWS, 1)
    assert shown["bytes"] > 0
    refused = kun(folder, "cache", "--journal", "journal", "--prune", "0")
    assert refused.returncode != 0
    kept = kun(folder, "cache", "--journal", "journal", "--prune", "30", "--yes")
    assert f"generations: {3 * ROWS}" in kept.stdout
    gone = kun(folder, "cache", "--journal", "journal", "--prune", "0", "--yes")
    assert (gone.returncode, "generations: 0" in gone.stdout) == (0, True), gone.stderr
    assert list((folder / "journal").glob("*.log")) == []


def test_an_estimate_from_a_sample(folder, run):
    """`plan --sample N` builds N rows and reckons requests, tokens and money of the whole, with an interval."""
    with simulator(speed=50.0) as server:
        done = kun(folder, "plan", "--sample", "30", "--endpoint", server.url, "--json")
        assert done.returncode == 0, done.stderr
        assert server.counts()["different"] == 90
    found = json.loads(done.stdout)
    assert (found["records"], found["sampled"]) == (ROWS, 30)
    figures = found["models"]["chat"]
    assert figures["requests"]["value"] == 3 * ROWS
    whole = json.loads((folder / "runs/small/report.json").read_bytes())["usage"]
    cost = sum(one["cost"] for one in whole)
    # An interval of 95 % misses one time in twenty; twice its width is surely wide enough.
    margin = figures["cost"]["high"] - figures["cost"]["low"]
    assert 0 < margin < cost
    assert abs(figures["cost"]["value"] - cost) < margin


def test_what_modules_log_reaches_the_user_once(capsys):
    """A warning of one of our modules is a warning on stderr, in every mode; other records are messages."""
    log = logging.getLogger("kun_builder.engines.field_support")
    for out in (Output(), Output(json_log=True), Output("quiet")):
        with progress(Status(), out):
            log.warning("it refuses %s", "seed")
            log.info("fetching %s", "weights")
            log.debug("nobody wants to know")
    assert capsys.readouterr().err.splitlines() == [
        "Warning: it refuses seed",
        "fetching weights",
        '{"warning": "it refuses seed", "hint": ""}',
        '{"message": "fetching weights"}',
        "Warning: it refuses seed",
    ]


@pytest.mark.parametrize("there", [True, False])
def test_a_server_that_names_its_model_is_enough(tmp_path, there):
    """`--endpoint` suffices: who the model is, and with which tokenizer to count, is asked of the server; where that
    tokenizer cannot be had, the error says what to set."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if there:
        tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # each character a token
        tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = [{"text": "候鸟从南方飞回北方。" * times} for times in (4, 10, 40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "name: small\nmodels: {chat: {}}\nsplits: {web: {source: lines, path: rows.jsonl}}\njournal: journal\n"
        f"plugins: {{dirs: ['{STAGES}']}}\nstages: [length: {{min_tokens: 50, max_tokens: 200}}, ask, rewrite]\n"
    )
    with simulator(speed=50.0, model=str(tmp_path if there else tmp_path / "nowhere.gguf")) as server:
        done = kun(tmp_path, "--endpoint", server.url, "--json")
    if there:
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["splits"]["web"]["kept"] == 1
    else:
        assert done.returncode == 1
        assert "nowhere.gguf" in done.stderr
        assert "`tokenizer`" in done.stderr


@pytest.mark.slow
def test_with_no_endpoint_left_the_run_says_so_and_stops_resumable(tmp_path):
    """When nobody answers for as long as `wait` allows, the build ends with what to do; the same command goes on, asks
    nothing again, and the rows are in the order of the input."""
    rows = [{"text": f"第{number}段文字"} for number in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with simulator(slots=8, speed=4.0, faults=Faults(slow=0.05)) as server:
        (tmp_path / "recipe.yaml").write_text(
            f"name: small\nmodels: {{chat: {{endpoints: ['{server.url}'], wait: 1}}}}\nshard_rows: 50\n"
            "splits: {web: {source: lines, path: rows.jsonl}}\njournal: journal\n"
            f"plugins: {{dirs: ['{STAGES}']}}\nstages: [ask, judge: {{threshold: 0}}, rewrite]\n"
        )
        process = subprocess.Popen([KUN_BUILD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        while server.counts()["answered"] < 100:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        server.kill()
        _, said = process.communicate(timeout=200)
        assert process.returncode == 1
        assert f"model `chat`: {server.url} does not answer; waiting up to 1 s for it" in said
        assert f"Error: model `chat`: no endpoint has answered for 1 s: {server.url}" in said
        assert "run the same command again" in said
        known = json.loads(kun(tmp_path, "cache", "--journal", "journal", "--json").stdout)["generations"]
        server.revive()
        done = kun(tmp_path, "--json")
        assert done.returncode == 0, done.stderr
        assert server.counts()["different"] == 3 * len(rows) - known
        assert known > 80
    import pyarrow.parquet as pq

    (path,) = (tmp_path / "runs/small/dataset/provenance").glob("*.parquet")
    positions = pq.read_table(path, columns=["position"])["position"].to_pylist()
    assert len(positions) == len(rows)
    assert positions == sorted(positions)
