"""A repository is a stranger: nothing in it makes `reproduce` or `push` read, run, ask or write what the user did not
name."""

from __future__ import annotations

import json
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import orjson
import pytest
import yaml
from hub.conftest import ALICE
from hub.test_commands import Shell
from hypothesis import given
from hypothesis import strategies as st

from kun_builder.declarations import Quantity
from kun_builder.errors import PublishError
from kun_builder.hub.published_recipe import (
    UserSettings,
    is_place,
    read_lock,
    read_user_settings,
    recipe_lines,
    take_recipe,
)
from kun_builder.report import StepFacts
from kun_builder.result.manifest import read_manifest

LOCK = {
    "name": "web",
    "seed": 3,
    "models": {"chat": {"engine": "openai", "model": "org/chat"}},
    "splits": {"wudao": {"source": "generic", "path": ["data/a.jsonl"]}},
    "stages": ["normalize", {"length": {"min_tokens": 8}}],
    "lock": {"limit": 5},
}
MINE = UserSettings(paths={"wudao": ["/here/a.jsonl"]})


def taken(registry, mine=MINE, **changes):
    return take_recipe(read_lock(yaml.safe_dump({**LOCK, **changes}).encode()), ["wudao"], mine, registry)


def test_what_is_taken(registry):
    """Stages, options, models and numbers come from the repository, inputs from the user."""
    recipe = taken(registry)
    assert recipe["stages"] == [{"normalize": {}}, {"length": {"min_tokens": 8}}]
    assert recipe["models"] == LOCK["models"]
    assert recipe["splits"] == {"wudao": {"source": "generic", "path": ["/here/a.jsonl"]}}
    assert recipe["seed"] == 3


def test_what_is_left(registry):
    """Addresses, keys, headers, plugins, journals, places to publish and anything else are not taken."""
    model = {"endpoints": ["http://127.0.0.1:9"], "api_key": "${AWS_SECRET_ACCESS_KEY}", "headers": {"x": "${HOME}"}}
    recipe = taken(
        registry,
        models={"chat": {**LOCK["models"]["chat"], **model}},
        plugins={"dirs": ["/home/me/plugins"], "disable": ["kun-clean"]},
        journal="/home/me/journal",
        publish={"repo": "evil/data"},
        training={"seeds": "/etc/passwd"},
        output="/home/me",
    )
    assert set(recipe) == {"name", "seed", "journal", "models", "splits", "stages"}
    assert recipe["models"] == LOCK["models"]
    assert recipe["journal"] == "journal"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stages": [{"label": {"chat_prompt": "/home/me/private.txt"}}]}, "/home/me/private.txt"),
        ({"stages": [{"label": {"completion_prompt": "private.txt"}}]}, "private.txt"),
        ({"stages": [{"decontaminate": {"benchmarks": ["~/private.jsonl"]}}]}, "~/private.jsonl"),
        ({"stages": [{"perplexity": {"model": "../private.bin"}}]}, "../private.bin"),
        ({"stages": [{"length": {"tokenizer": "/home/me/t.json"}}]}, "/home/me/t.json"),
        ({"models": {"chat": {"model": "/home/me/weights.gguf"}}}, "/home/me/weights.gguf"),
        ({"models": {"chat": {"model": "https://evil.example/weights.gguf"}}}, "evil.example"),
        ({"models": {"chat": {"tokenizer": "../../t"}}}, "../../t"),
        ({"splits": {"other": {"source": "generic", "path": "x"}}}, "says nothing of the split `wudao`"),
    ],
)
def test_places_are_refused(registry, changes, named):
    """Whatever would make something read a file or an address that the repository names is refused, with the cure."""
    with pytest.raises(PublishError, match=r"another machine|says nothing") as refused:
        taken(registry, **changes)
    assert named in refused.value.message
    assert "--recipe" in refused.value.hint


def test_input_is_the_users(registry):
    """The input that the repository names is said, but never read."""
    with pytest.raises(PublishError, match="where is its input here"):
        taken(registry, UserSettings())


def test_own_recipe_gives_the_rest(registry, tmp_path):
    """What only the user can say comes from the user's own recipe, by the same names."""
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "mine.yaml").write_text(
        "models: {chat: {endpoints: ['http://127.0.0.1:8000'], api_key: '${MY_KEY}'}}\n"
        "splits: {wudao: {source: generic, path: a.jsonl}}\n"
        "plugins: {dirs: [plugins]}\n"
        "stages: [{decontaminate: {benchmarks: [mine.jsonl]}}]\n"
    )
    mine = read_user_settings(tmp_path / "mine.yaml", {}, (Path("more"),))
    recipe = taken(registry, mine, stages=[{"decontaminate": {"benchmarks": ["theirs.jsonl"]}}])
    assert recipe["models"]["chat"]["endpoints"] == ["http://127.0.0.1:8000"]
    assert recipe["models"]["chat"]["model"] == "org/chat"
    assert recipe["splits"]["wudao"]["path"] == [str(tmp_path / "a.jsonl")]
    assert recipe["stages"] == [{"decontaminate": {"benchmarks": ["mine.jsonl"]}}]
    assert mine.dirs == (tmp_path / "plugins", Path("more"))
    assert read_user_settings(tmp_path / "mine.yaml", {"wudao": "/b"}, ()).paths == {"wudao": ["/b"]}


@given(st.text(max_size=300))
def test_places_of_any_name(name):
    """A name that is taken as no place names nothing that is here, and steers no terminal."""
    if not is_place(name):
        assert name.isprintable()
        assert not name.startswith(("/", "~", "."))
        assert not Path(name).exists()


def test_lock_file_that_unfolds(registry):
    """A few anchors that stand for a billion values, and nesting without end, are refused at once."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    with pytest.raises(PublishError, match="values"):
        read_lock(f"{bomb}splits: {{}}\n".encode())
    with pytest.raises(PublishError, match="not YAML"):
        read_lock(b"a: " + b"[" * 20_000)
    with pytest.raises(PublishError, match="not YAML"):
        read_lock(b"a: &a [*a]\nsplits: {}\n")
    for content in (b"", b"- 1\n", b"splits: 3\n"):
        with pytest.raises(PublishError, match="no `splits`"):
            read_lock(content)


def test_shown_steers_no_terminal(registry):
    """Prompts and options are shown with escapes for whatever would move the cursor or turn the line round."""
    recipe = taken(registry, stages=[{"label": {"chat_prompt": "\x1b[2J{text}\u202e\n"}}])
    lines = recipe_lines(recipe)
    assert all(line.isprintable() for line in lines)
    assert any("{text}" in line for line in lines)


BINS = {"edges": [1, 2, 4], "counts": [0, 1]}
STATS = {"rows": 1, "instruction_length": BINS, "output_length": BINS, "examples": [], "measures": {}}
RELEASE = {"run": "0" * 16, "name": "a", "created": "", "splits": {}, "recipe": []}
RUN = {
    "name": "a",
    "version": "1",
    "created": "",
    "seed": 0,
    "limit": None,
    "lock": "recipe.lock.yaml",
    "steps": [],
    "models": {},
}
MANIFEST = {
    "format": 1,
    "files": {"data/wudao-0.parquet": {"sha256": "0" * 64, "git": "0" * 40, "size": 1, "split": "wudao"}},
    "splits": {
        "wudao": {
            "run": "0" * 16,
            "report": {"source": "generic", "read": 1, "kept": 1, "stages": []},
            "stats": STATS,
            "withheld": False,
            "license": "mit",
            "files": ["data/wudao-0.parquet"],
            "configs": {},
        }
    },
    "runs": {"0" * 16: RUN},
    "releases": [RELEASE],
}


def test_manifest_with_steps():
    """A step of a manifest is read with its quantities, or with little; one that is none is refused in one line."""
    full = StepFacts(label="a", stage="a", adds={"x": "double"}, quantities={"x": Quantity(least="y")}, models=("m",))
    for step in (full.to_json(), {"label": "a", "stage": "a", "options": {}}):
        manifest = {**MANIFEST, "runs": {"0" * 16: {**RUN, "steps": [orjson.loads(orjson.dumps(step))]}}}
        assert read_manifest(orjson.dumps(manifest)) == orjson.loads(orjson.dumps(manifest))
    for step in ({"label": "a"}, {"label": 3, "stage": "a"}, 5):
        with pytest.raises(PublishError, match="steps") as refused:
            read_manifest(orjson.dumps({**MANIFEST, "runs": {"0" * 16: {**RUN, "steps": [step]}}}))
        assert "\n" not in refused.value.message


def test_manifest_as_it_should_be():
    """A manifest with all that is used is read as it is."""
    assert read_manifest(orjson.dumps(MANIFEST)) == MANIFEST


def _renamed(run):
    return {
        "runs": {run: RUN},
        "splits": {"wudao": {**MANIFEST["splits"]["wudao"], "run": run}},
    }


def _measured(stats):
    return {"splits": {"wudao": {**MANIFEST["splits"]["wudao"], "stats": stats}}}


@pytest.mark.parametrize(
    "changes",
    [
        _renamed("../../escaped"),
        _renamed("/escaped"),
        {"splits": {"../../x": MANIFEST["splits"]["wudao"]}},
        {"splits": {"*": MANIFEST["splits"]["wudao"]}},
        {"splits": {"wudao": {**MANIFEST["splits"]["wudao"], "files": ["data/../../x"]}}},
        {"splits": {"wudao": {**MANIFEST["splits"]["wudao"], "files": []}}},
        {"splits": {"wudao": {**MANIFEST["splits"]["wudao"], "run": "1" * 16}}},
        {"splits": {"wudao": {}}},
        {"splits": []},
        {"runs": {"0" * 16: {**RUN, "lock": "../../home/me/.netrc"}}},
        {"runs": {"0" * 16: {**RUN, "review": 5}}},
        {"runs": {"0" * 16: {name: RUN[name] for name in RUN if name != "seed"}}},
        {"releases": [{**RELEASE, "splits": {"wudao": {"rows": "many"}}}]},
        _measured({}),
        _measured({**STATS, "output_length": {"edges": [1, 2], "counts": [1, 1, 1]}}),
        _measured({**STATS, "output_length": {"edges": [2, 1], "counts": [1]}}),
        _measured({**STATS, "output_length": {"edges": [1, float("1e308") * 10], "counts": [1]}}),
        _measured({**STATS, "measures": {"score": {"kept": BINS}}}),
        _measured({**STATS, "examples": [{"id": 5}]}),
        {"files": {"data/wudao-0.parquet": {"sha256": "0", "git": "", "size": -1}}},
        {"releases": 3},
    ],
)
def test_manifest_of_a_stranger(changes):
    """A manifest with names that climb, or that lacks what is used, is refused in one line that names the place."""
    with pytest.raises(PublishError, match=r"\.kun/manifest\.json") as refused:
        read_manifest(orjson.dumps({**MANIFEST, **changes}))
    assert "\n" not in refused.value.message


@given(
    st.recursive(
        st.none() | st.integers(-5, 5) | st.text(max_size=3),
        lambda x: (
            st.lists(x)
            | st.dictionaries(st.sampled_from(["format", "files", "splits", "runs", "releases", "run", "x"]), x)
        ),
        max_leaves=20,
    )
)
def test_manifest_of_any_shape(content):
    """Whatever JSON stands there: it is read, or refused."""
    with suppress(PublishError):
        read_manifest(orjson.dumps({**MANIFEST, "x": content, "runs": content}))


class _Evil(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.slow
def test_reproduce_of_a_hostile_dataset(tmp_path, hub_server, hub, published):
    """A lock file with an endpoint, a variable, plugins and a private file: none is asked, told, run or read."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Evil)
    Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "private.txt").write_text("planted secret {text}\n")
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/plugin.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nkun_api = 1\n")
    lock = {
        **LOCK,
        "models": {
            "chat": {
                "engine": "openai",
                "endpoints": [f"http://127.0.0.1:{server.server_port}"],
                "api_key": "${AWS_SECRET_ACCESS_KEY}",
            }
        },
        "plugins": {"dirs": [str(tmp_path / "evil")]},
        "splits": {
            name: {"source": "generic", "path": [str(tmp_path / "private.txt")]} for name in ("wudao", "skypile")
        },
        "stages": [{"label": {"chat_prompt": str(tmp_path / "private.txt")}}],
    }
    hub.write(published, {"recipe.lock.yaml": yaml.safe_dump(lock).encode()})
    shell = Shell(tmp_path, hub_server, AWS_SECRET_ACCESS_KEY="planted")
    shell("reproduce", published, "--token", ALICE, code=1)
    (tmp_path / "mine.jsonl").write_text('{"text": "一段自己的文字，不长也不短。"}\n')
    paths = ("--path", "wudao=mine.jsonl", "--path", "skypile=mine.jsonl")
    shell("reproduce", published, "--token", ALICE, *paths, code=1)
    lock["stages"] = ["normalize", "label"]
    hub.write(published, {"recipe.lock.yaml": yaml.safe_dump(lock).encode()})
    shell("reproduce", published, "--token", ALICE, *paths, code=1)
    assert "endpoint" in shell.said
    assert not _Evil.asked
    assert "planted" not in shell.said
    assert not (tmp_path / "ran").exists()
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_run_names_that_climb(tmp_path, hub_server, hub, published):
    """A manifest whose run is called `../../escaped` is refused by `reproduce` and `push`; nothing is written."""
    manifest = json.loads(hub.read(published, ".kun/manifest.json"))
    text = json.dumps(manifest).replace(next(iter(manifest["runs"])), "../../escaped")
    hub.write(published, {".kun/manifest.json": text.encode()})
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    shell = Shell(folder, hub_server)
    shell("reproduce", published, "--token", ALICE, "--output", "out", code=1)
    assert "is not one that kun-builder wrote" in shell.said
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("path", [".kun/manifest.json", "README.md"], ids=["manifest", "card"])
def test_file_that_would_fill_the_disk(hub, zygote, published, second_run, path):
    """A file that is far too large for what it should be is named with its size, and not downloaded."""
    hub.write(published, {path: bytes(65 << 20)})
    hub.forget()
    result = zygote.run("publish_worker:push", run=str(second_run), repo=published, token=ALICE)
    assert f"{path} of {published} has 68 MB, and 64 MiB is the most" in result["error"]
    assert not hub.counts()["commit"]
    if path == ".kun/manifest.json":  # the card is looked at after the manifest and the rows
        assert not hub.counts()["resolve"]
