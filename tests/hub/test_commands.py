"""The commands around a finished run, in processes of their own: build and push, report, explain, reproduce."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from finished_runs import make_run
from hub.conftest import ALICE
from places import KUN_BUILD, STAGES
from servers.hub import HubServer
from servers.llm_simulator import simulator

pytestmark = pytest.mark.slow

CLOSED = """
from kun_builder import Source, hookimpl

kun_api = 1


@hookimpl
def kun_sources():
    return [Source(name="closed", parse=lambda record: record["text"])]
"""
"""A corpus that declares no licence."""


class Shell:
    """Runs kun-build in a folder of its own, with a Hub and a model server; keeps all that it says."""

    def __init__(self, folder: Path, hub: HubServer, **env: str) -> None:
        self.folder = folder
        self.env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", **env}
        self.env |= {"HF_HOME": str(folder / "hf"), "KUN_CACHE": str(folder / "cache"), "USE_TORCH": "0"}
        self.said = ""

    def __call__(self, *arguments: object, code: int = 0) -> str:
        command = [str(KUN_BUILD), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=200)
        self.said += done.stdout + done.stderr
        assert done.returncode == code, done.stderr[-3000:]
        assert "Traceback" not in done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory, hub_server):
    """A recipe that was built and published: its corpus declares no licence, so its text stays at home."""
    folder = tmp_path_factory.mktemp("shell")
    lines = [
        json.dumps({"text": f"第{number}段文字，讲的是{number}件事。"}, ensure_ascii=False) for number in range(24)
    ]
    lines[3], lines[5] = lines[2], '{"text": "bad"}'
    for name in ("data", "plugins"):
        (folder / name).mkdir()
    (folder / "plugins/closed.py").write_text(CLOSED)
    (folder / "data/a.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    with simulator(speed=50.0) as server:
        (folder / "recipe.yaml").write_text(
            f"name: web\nmodels: {{chat: {{engine: openai, endpoints: ['{server.url}'], wait: 5}}}}\n"
            "splits: {web: {source: closed, path: data/a.jsonl}}\n"
            f"plugins: {{dirs: ['{STAGES}', plugins]}}\n"
            "stages: [clean, same, ask, {judge: {threshold: 0.2}}, rewrite]\n"
            "publish: {repo: alice/web, license: cc-by-4.0, license_acknowledged: true}\n"
        )
        started = Shell(folder, hub_server)
        started.endpoint = server.url
        started("recipe.yaml", "--output", "run")
        started.published = json.loads(started("push", "run", "--token", ALICE, "--tag", "v1", "--json"))
        yield started


def test_published(shell, hub_server):
    """The command says what it did, and the Hub has it."""
    done = shell.published
    assert done["verified"]
    assert done["changed"]
    assert hub_server.repo("alice/web").tags == {"v1": done["commit"]}
    report = json.loads((shell.folder / "run/report.json").read_text())
    assert done["rows"] == {"web": report["splits"]["web"]["kept"]}
    again = json.loads(
        shell("recipe.yaml", "--output", "run", "--push-to-hub", "alice/web", "--token", ALICE, "--json")
    )
    assert not again["changed"]
    assert again["commit"] == done["commit"]


def test_text_without_licence_stays_at_home(shell, zygote, hub_server):
    """The provenance of a corpus without a licence has a digest and a position where the text was."""
    rows = zygote.run("publish_worker:load", repo="alice/web", config="provenance", token=ALICE)["web"]
    assert rows
    assert all("text" not in row and len(row["text_sha256"]) == 64 for row in rows)
    assert {row["position"] for row in rows} <= set(range(24))
    card = hub_server.read("alice/web", "README.md").decode()
    assert "the licence of its source is **not declared**" in card
    assert "has acknowledged" in card
    assert "讲的是" not in json.dumps(rows, ensure_ascii=False) + card


def test_token_is_nowhere(shell):
    """The token is in no file of the run, the caches or the user's folders, and in nothing that was printed."""
    files = [path for path in shell.folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if ALICE.encode() in path.read_bytes()]
    assert ALICE not in shell.said


def test_explain(shell):
    """A kept row shows each step with its prompts and answers; a rejected one shows where and why it ended."""
    first = pq.read_table(shell.folder / "run/kept").to_pylist()[0]
    kept = json.loads(shell("explain", "run", first["id"], "--json"))
    assert kept["outcome"]["outcome"] == "kept"
    asked = [request for step in kept["steps"] for request in step["requests"]]
    assert asked
    assert all(request["answer"] for request in asked)
    assert f"第{first['position']}段" in json.dumps(asked, ensure_ascii=False)
    unread = json.loads(shell("explain", "run", "web/a.jsonl:5", "--json"))
    assert unread["outcome"]["outcome"] == "dropped"
    assert (unread["outcome"]["stage"] == "read") == (unread["steps"] == []), "reading comes before all steps"
    dead = json.loads(shell("explain", "run", "web/a.jsonl:3", "--json"))
    assert dead["outcome"]["reason"] == "duplicate"
    assert dead["steps"][-1]["step"] == dead["outcome"]["stage"]
    assert dead["place"]["position"] == 3
    said = shell("explain", "run", "web/a.jsonl:0")
    assert "第0段" in said
    assert "answer" in said


def test_explain_unknown(shell):
    """An unknown id is said to be unknown, with the nearest one."""
    shell("explain", "run", "web/a.jsonl:999", code=1)
    shell("explain", "run", "nowhere/a.jsonl:1", code=1)
    assert "an id starts with one of: web" in shell.said


def test_explain_reads_what_it_shows_and_names_a_damaged_file(shell):
    """For one row not every file is read; one that cannot be read is named, with the cure."""
    copy = shell.folder / "copy"
    shutil.copytree(shell.folder / "run", copy)
    (published,) = copy.glob("dataset/data/*")
    (kept,) = copy.glob("kept/*")
    content, row = kept.read_bytes(), pq.read_table(kept, columns=["id"])["id"][0].as_py()
    whole = published.read_bytes()
    published.write_bytes(whole + b"0")
    shell("explain", "copy", row)
    published.write_bytes(whole)
    zeroed = len(content) // 2
    kept.write_bytes(bytes(zeroed) + content[zeroed:])
    shell("explain", "copy", row, code=1)
    assert "is not as the run wrote it: it is damaged, or was changed" in shell.said


def test_report(shell):
    """`report` writes the page anew and prints where it is."""
    (shell.folder / "run/report.html").unlink()
    assert shell("report", "run", "--no-open").strip() == "run/report.html"
    assert (shell.folder / "run/report.html").stat().st_size > 10_000
    assert (shell.folder / "run/dataset/plots/funnel.png").read_bytes().startswith(b"\x89PNG")


def test_reproduce(shell):
    """A published dataset is built again from its lock file, row for row; a changed input is found out."""
    shell("reproduce", "alice/web", "--token", ALICE, "--recipe", "recipe.yaml", "--path", "web=", code=2)
    mine = ("--plugins-dir", STAGES, "--plugins-dir", "plugins", "--endpoint", shell.endpoint)
    where = (*mine, "--token", ALICE, "--json")
    shell("reproduce", "alice/web", "--output", "again", *where, code=1)
    assert "split `web`: where is its input here? It was built from ['data/a.jsonl']" in shell.said
    own = ("--recipe", "recipe.yaml", "--token", ALICE, "--json")
    same = json.loads(shell("reproduce", "alice/web", "--revision", "v1", "--output", "again", *own))
    assert "- judge:" in shell.said, "what will be built is shown"
    assert list((shell.folder / "again").glob("*/journal/*")), "the answers are in a journal of their own"
    assert same["identical"]
    assert same["splits"][0]["same"] == same["splits"][0]["published"] > 0
    other = shell.folder / "other/a.jsonl"
    other.parent.mkdir(exist_ok=True)
    text = (shell.folder / "data/a.jsonl").read_text("utf-8").replace("第7段", "第七段").splitlines()
    other.write_text("\n".join(text[:20]) + "\n", "utf-8")
    found = json.loads(shell("reproduce", "alice/web", "--output", "changed", "--path", f"web={other}", *where, code=1))
    assert not found["identical"]
    assert found["splits"][0]["missing"] > 0


def test_jsonl(shell, zygote, hub_server):
    """A dataset in JSONL is published, read back and explained like one in Parquet; the two do not mix."""
    recipe = (shell.folder / "recipe.yaml").read_text("utf-8")
    (shell.folder / "lines.yaml").write_text(recipe + "format: jsonl\n", "utf-8")
    push = ("--push-to-hub", "alice/lines", "--token", ALICE, "--json")
    done = json.loads(shell("lines.yaml", "--output", "lines", *push))
    assert done["verified"]
    assert {"web.jsonl", "provenance/web.jsonl"} <= set(done["added"])
    for config in ("default", "provenance"):
        there = zygote.run("publish_worker:load", repo="alice/lines", config=config, token=ALICE)["web"]
        same = zygote.run("publish_worker:load", repo="alice/web", config=config, token=ALICE)["web"]
        assert [row["output"] for row in there] == [row["output"] for row in same]
    assert "text_sha256" in there[0]
    assert not json.loads(shell("lines.yaml", "--output", "lines", *push))["changed"]
    assert json.loads(shell("explain", "lines", "web/a.jsonl:5", "--json"))["outcome"]["outcome"] == "dropped"
    (shell.folder / "other.yaml").write_text(recipe.replace("splits: {web:", "splits: {more:"), "utf-8")
    shell("other.yaml", "--output", "other-run", "-q")
    shell("push", "other-run", "alice/lines", "--token", ALICE, code=1)
    assert "one dataset, one format" in shell.said


def test_refused_before_it_is_built(shell):
    """What would end the publishing ends the command before anything is built; mended, nothing is built twice."""
    recipe = (shell.folder / "recipe.yaml").read_text("utf-8")
    careless = shell.folder / "careless.yaml"
    careless.write_text(recipe.replace(", license_acknowledged: true", ""), "utf-8")
    push = ("careless.yaml", "--output", "careless", "--push-to-hub", "alice/careless", "--token")
    shell(*push, ALICE, code=1)
    assert "license_acknowledged: true" in shell.said
    careless.write_text(recipe, "utf-8")
    shell(*push, "hf_wrong", code=1)
    assert "the Hub answered 401" in shell.said
    assert not (shell.folder / "careless").exists()


def test_what_a_recipe_says_of_publishing_needs_no_build(shell, hub_server):
    """A new `publish:` of a finished run takes effect with the next command, and no row is made again."""
    recipe = (shell.folder / "recipe.yaml").read_text("utf-8")
    other = shell.folder / "licence.yaml"
    other.write_text(recipe.replace("license: cc-by-4.0, license_acknowledged: true", "license: mit"), "utf-8")
    shell("licence.yaml", "--output", "licence", "-q")
    built = (shell.folder / "licence/report.json").read_bytes()
    shell("push", "licence", "alice/licence", "--token", ALICE, code=1)
    other.write_text(recipe.replace("cc-by-4.0", "cc0-1.0"), "utf-8")
    shell("licence.yaml", "--output", "licence", "--push-to-hub", "alice/licence", "--token", ALICE)
    assert (shell.folder / "licence/report.json").read_bytes() == built
    assert "license: cc0-1.0" in hub_server.read("alice/licence", "README.md").decode()
    assert "cc0-1.0" in (shell.folder / "licence/dataset/README.md").read_text("utf-8")


def test_xet(tmp_path, first_run):
    """Large files go by Xet where the Hub has it: the same dataset, uploaded once."""
    with HubServer(tmp_path / "hub", {ALICE: {"alice"}}, xet=True) as hub:
        shell = Shell(tmp_path, hub)
        del shell.env["HF_HUB_DISABLE_XET"]
        done = json.loads(shell("push", first_run, "alice/xet", "--token", ALICE, "--json"))
        assert done["verified"]
        assert hub.counts()["xet-token"]
        assert not hub.counts()["put"] + hub.counts()["batch"]
        again = json.loads(shell("push", first_run, "alice/xet", "--token", ALICE, "--json"))
        assert not again["changed"]
        assert not [call for call in hub.calls if call.storage and call.token]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: (run / "report.json").unlink(), "report.json does not exist"),
        (lambda run: (run / "recipe.lock.yaml").unlink(), "no recipe.lock.yaml"),
        (lambda run: (run / "dataset/data/wudao-00000-of-00001.parquet").unlink(), "is missing"),
        (lambda run: (run / "dataset/data/wudao-00000-of-00001.parquet").write_bytes(b"PAR1 PAR1"), "damaged"),
    ],
)
def test_incomplete_run(tmp_path, hub_server, break_it, message):
    """A run that is not whole is not published, and the message says what is missing."""
    run = make_run(tmp_path / "run", {"wudao": 4})
    break_it(run)
    shell = Shell(tmp_path, hub_server)
    shell("push", "run", "alice/broken", "--token", ALICE, code=1)
    assert message in shell.said


def test_licence_not_acknowledged(tmp_path, hub_server):
    """A corpus whose text may not be passed on is not published before the user has said to know it."""
    run = make_run(tmp_path / "run", {"wudao": 4}, sources={"wudao": {"redistributable": False, "license": "other"}})
    shell = Shell(tmp_path, hub_server)
    shell("push", run, "alice/licence", "--token", ALICE, code=1)
    assert "license_acknowledged: true" in shell.said
