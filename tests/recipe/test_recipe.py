"""A recipe is checked before anything is spent; every complaint names file, line and the nearest valid name."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from textwrap import dedent
from types import SimpleNamespace
from typing import Annotated, Literal

import jsonschema
import pytest
import yaml
from annotated_types import Ge
from hypothesis import given, settings
from hypothesis import strategies as st

from kun_builder import ModelName, Prompt, RowStage, TokenizerName
from kun_builder.errors import RecipeError
from kun_builder.recipe.file import Dumper, RecipeFile
from kun_builder.recipe.lock import lock, with_publish
from kun_builder.recipe.options import merge, options_of
from kun_builder.recipe.parts import PRESETS
from kun_builder.recipe.recipe import Plugins, load_recipe, plugin_settings
from kun_builder.recipe.schema import json_schema
from kun_builder.types import ModelInfo

ASK = Prompt("Ask: {text}")


async def label(
    row, generate, *, model: ModelName = "labeler", prompt: Prompt = ASK, n: int = 3, candidates: int = 1
): ...  # fmt: skip
async def judge(row, generate, *, model: ModelName = "chat", other: ModelName | None = None, threshold: float = 0): ...
async def refine(row, generate, *, columns: tuple[str, ...] = ("output",), strength: float = 1): ...
def length(
    table, *, max_tokens: Annotated[int, Ge(1)] = 512, by: Literal["tokens", "characters"] = "tokens",
    tokenizer: TokenizerName = "auto", bounds: tuple[float, float] | None = None,
): ...  # fmt: skip
def plain(table): ...
def strict(table, *, threshold: float): ...
def parse(data, *, field: str = "text", encoding: str | None = None): ...
def connect(spec, *, threads: int = 0, slots: dict[str, int] | None = None): ...


@dataclass(frozen=True)
class Entry:
    value: object
    options: tuple
    plugin: str = "kun-test"
    package: str = "kun-tests"
    version: str = "1.0"
    digest: str = "d" * 16


def entry(function, *positional):
    return Entry(SimpleNamespace(version="1"), merge([options_of(function, positional)]))


@dataclass(frozen=True)
class Catalog:
    sources: dict = field(default_factory=lambda: {"generic": entry(parse, "data"), "wudao": entry(parse, "data")})
    stages: dict = field(
        default_factory=lambda: {
            **{name: entry(plain, "table") for name in ("normalize", "language", "perplexity", "dedup")},
            "length": entry(length, "table"),
            "strict": entry(strict, "table"),
            "label": entry(label, "row", "generate"),
            "refine": entry(refine, "row", "generate"),
            **{name: entry(judge, "row", "generate") for name in ("score", "polish", "verify")},
        }
    )
    engines: dict = field(
        default_factory=lambda: {name: entry(connect, "spec") for name in ("llamacpp", "openai", "tgi")}
    )
    absent: tuple = ()


CATALOG = Catalog()
SMALL = "models: {chat: {}}\nsplits:\n  wiki: {source: generic, path: wiki.jsonl}\n"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Write a recipe and load it; the working directory is another one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "recipes"
    folder.mkdir()

    def load(text, catalog=CATALOG, **options):
        path = folder / "news.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return load_recipe(path, catalog, **options)

    load.folder = folder
    return load


def complaints(recipe, text, **options):
    """What is wrong with a recipe: (line, message)."""
    with pytest.raises(RecipeError) as caught:
        recipe(text, **options)
    found = []
    for line in caught.value.message.splitlines():
        prefix = f"{recipe.folder / 'news.yaml'}:"
        assert line.startswith(prefix)
        number, _, what = line.removeprefix(prefix).partition(": ")
        found.append((int(number), what))
    return found


# --- what a good recipe becomes --------------------------------------------------------------------------------


def test_smallest_recipe(recipe):
    """Everything has a default but `models` and `splits`; an only model is the one that stages ask."""
    made = recipe(SMALL)
    assert (made.name, str(made.output), made.executor, made.shard_rows) == ("news", "runs/news", "local", 2000)
    assert (made.models["chat"].engine, made.models["chat"].options) == ("llamacpp", {"threads": 0, "slots": None})
    assert [stage.name for stage in made.stages] == [
        s if isinstance(s, str) else next(iter(s)) for s in PRESETS["verified"]
    ]
    assert made.stages[1].options == {"max_tokens": 512, "by": "tokens", "tokenizer": "auto", "bounds": None}
    assert made.stages[5].options == {"model": "chat", "prompt": Prompt("Ask: {text}\n"), "n": 3, "candidates": 2}
    assert made.stages[7].options == {"model": "chat", "other": None, "threshold": 0.2}
    assert made.stages[6].options["columns"] == ("instruction",)
    assert made.splits["wiki"].options == {"field": "text", "encoding": None}
    with pytest.raises(ValueError, match="frozen"):
        made.name = "other"


def test_everything_set(recipe, monkeypatch):
    """Every part of a recipe arrives, with command-line settings over it."""
    monkeypatch.setenv("API_KEY", "sk-123")
    (recipe.folder / "ask.txt").write_text("Q: {text}", encoding="utf-8")
    made = recipe(
        """
        name: kun
        models:
          labeler: {engine: tgi, endpoints: ["http://a:1"], prompt: completion, cost: {input: 0.5, output: 2}}
          chat:
            endpoints: ["http://b:2/v1"]
            api_key: ${API_KEY}
            timeout: 1e+2
        splits:
          s.1: {source: wudao, path: [a.json, b.json], encoding: gb18030}
        stages:
          - normalize
          - length:
          - label: {model: labeler, prompt: ask.txt}
          - label:
              prompt: |
                Write a question for {text}
          - score
        seed: 7
        format: jsonl
        journal: cache
        publish: {repo: org/kun, private: false}
        """,
        limit=5,
    )
    assert (made.name, made.seed, made.format, made.limit) == ("kun", 7, "jsonl", 5)
    labeler, chat = made.models.values()
    assert (labeler.engine, labeler.prompt, labeler.cost_in, labeler.cost_out) == ("tgi", "completion", 0.5, 2.0)
    assert (chat.engine, chat.endpoints, chat.api_key, chat.timeout) == ("openai", ("http://b:2/v1",), "sk-123", 100.0)
    assert made.splits["s.1"].path == ("a.json", "b.json")
    assert made.stages[2].options["prompt"] == Prompt("Q: {text}\n", "ask")
    assert made.stages[3].options["prompt"] == Prompt("Write a question for {text}\n")
    assert made.journal == recipe.folder / "cache"
    assert made.publish.repo == "org/kun"


def test_endpoints_of_the_command_line_are_for_every_model(recipe):
    """`--endpoint` replaces the endpoints of every model; a model without an engine then has a server's."""
    made = recipe(SMALL.replace("{}", "{}, labeler: {engine: tgi, endpoints: ['http://x']}"), endpoints=("http://y:1",))
    assert [(m.engine, m.endpoints) for m in made.models.values()] == [
        ("openai", ("http://y:1",)),
        ("tgi", ("http://y:1",)),
    ]


def test_paths_are_seen_from_the_recipe_or_from_here(recipe, tmp_path):
    """An input beside the recipe is found there; what is not there stays as written: from here, or a Hub id."""
    (recipe.folder / "data").mkdir()
    text = SMALL.replace("wiki.jsonl", "[data/*.json, 'dat?/x', other/x, 'hf://a/b', ~/x, /abs/x]")
    beside, glob, *others = recipe(text).splits["wiki"].path
    assert (beside, glob) == (str(recipe.folder / "data/*.json"), str(recipe.folder / "dat?/x"))
    assert others[:2] == ["other/x", "hf://a/b"]
    assert others[2].startswith("/")
    assert others[2].endswith("/x")
    assert others[3] == "/abs/x"


def test_path_beside_the_recipe_stays_relative_where_it_can(tmp_path, monkeypatch):
    """A path below the working directory is relative to it, so that a lock file carries no home directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes/data").mkdir(parents=True)
    (tmp_path / "recipes/r.yaml").write_text(SMALL.replace("wiki.jsonl", "data/x"))
    path = (tmp_path / "recipes/r.yaml").relative_to(tmp_path)
    assert load_recipe(path, CATALOG).splits["wiki"].path == ("recipes/data/x",)
    assert load_recipe(tmp_path / path, CATALOG).splits["wiki"].path == ("recipes/data/x",)


def test_name_from_the_folder(tmp_path):
    """A file called `recipe.yaml` is named after its folder."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/recipe.yaml").write_text(SMALL)
    assert load_recipe(tmp_path / "demo/recipe.yaml", CATALOG).name == "demo"


def test_plugin_settings_come_first(recipe):
    """The plugins part is readable without any plugin; folders are seen from the recipe."""
    (recipe.folder / "mine").mkdir()
    made = recipe(SMALL + "plugins: {dirs: [mine], disable: [kun-tgi]}\n")
    assert made.plugins == Plugins(dirs=(recipe.folder / "mine",), disable=("kun-tgi",))
    assert plugin_settings(recipe.folder / "news.yaml") == made.plugins
    assert recipe(SMALL + "plugins: {dirs: [.]}\n").plugins.dirs == (recipe.folder,)


def test_yaml_is_read_as_written(recipe):
    """Anchors and merges work, dates stay text, and `1e-3` is a number."""
    made = recipe("""
        lock:
          base: &base
            source: generic
        models: {chat: {}}
        splits:
          a: {<<: *base, path: x, field: 2020-01-01}
        stages:
          - strict: {threshold: 1e-3}
    """)
    assert made.splits["a"].options["field"] == "2020-01-01"
    assert made.stages[0].options == {"threshold": 0.001}


# --- what is wrong with a bad one ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("formt: jsonl", "unknown key `formt`; did you mean `format`?"),
        ("format: jsnl", "`format` must be 'parquet' or 'jsonl', not 'jsnl'; did you mean `jsonl`?"),
        ("executor: locl", "`executor` must be 'local', not 'locl'; did you mean `local`?"),
        ("shard_rows: 0", "`shard_rows` must be greater than or equal to 1, not 0"),
        ("seed: '1'", "`seed` must be a valid integer, not '1'"),
        ("name: a/b", "`name` must be a folder name of letters, digits, `_`, `-`, `.`, not 'a/b'"),
        ("journal: ${HOME}/x", "`${HOME}`: environment variables are for secrets (`api_key`, `headers`) only"),
        ("plugins: {dir: [x]}", "unknown key `dir`; did you mean `dirs`?"),
        ("publish: {private: 3}", "`private` must be a valid boolean, not 3"),
        ("training: {label: {bse: x}}", "unknown key `bse`; did you mean `base`?"),
        ("training: {seeds: [1]}", "`seeds` must be a valid string, not 1"),
        ("journal: 3", "`journal` must be a valid string, not 3"),
        ("publish: {privat: true}", "unknown key `privat`; did you mean `private`?"),
        ("stages: [labl]", "unknown stage `labl`; did you mean `label`?"),
        ("stages: [nothing-like-it]", "unknown stage `nothing-like-it`; there is `dedup`, "),
        ("stages: []", "`stages` must be a list, for example "),
        ("stages: label", "`stages` must be a list, for example "),
        ("stages: [3]", "a stage is a name, or one name with its options: "),
        ("stages: [{label: , score: }]", "a stage is a name, or one name with its options: "),
        ("stages: [length: 3]", "stage `length`: its options must be a mapping, like `length: {...}`"),
        ("stages: [length: {max_token: 3}]", "stage `length`: unknown option `max_token`; did you mean `max_tokens`?"),
        ("stages: [normalize: {x: 3}]", "stage `normalize`: unknown option `x`; there is none"),
        (
            "stages: [length: {max_tokens: '3'}]",
            "stage `length`: `max_tokens` must be a valid integer, not '3'",
        ),
        (
            "stages: [length: {max_tokens: 0}]",
            "stage `length`: `max_tokens` must be greater than or equal to 1, not 0",
        ),
        (
            "stages: [length: {by: token}]",
            "stage `length`: `by` must be 'tokens' or 'characters', not 'token'; did you mean `tokens`?",
        ),
        ("stages: [length: {bounds: 3}]", "stage `length`: `bounds` must be a list, not 3"),
        ("stages: [refine: {columns: [1]}]", "stage `refine`: `columns` must be a valid string, not 1"),
        ("stages: [strict]", "stage `strict`: option `threshold` is missing"),
        (
            "stages: [score: {model: chap}]",
            "stage `score`: `model` is `chap`, which is no model of this recipe; did you mean `chat`?",
        ),
        (
            "stages: [score: {other: x}]",
            "stage `score`: `other` is `x`, which is no model of this recipe; there is `chat`",
        ),
        (
            "stages: [label: {prompt: 3}]",
            "stage `label`: `prompt` must be the path of a file, or a text of several lines",
        ),
        ("stages: [label: {prompt: asc.txt}]", "; did you mean `ask.txt`?"),
        ('stages: [label: {prompt: "a\\n{txt}"}]', "stage `label`: `prompt` has a slot {txt}; did you mean `text`?"),
        ("models: {chat: {}}", "`models` stands here and in line 1"),
        ("a: {b: 1", "not YAML: expected ',' or '}', but got '<stream end>' while parsing a flow mapping"),
        ("a: !!python/name:os.system x", "not YAML: could not determine a constructor for the tag"),
        ("lock: !mine {a: 1}", "the tag `!mine` means nothing here"),
        ("lock: {a: !!binary aGk=}", "the tag `tag:yaml.org,2002:binary` means nothing here"),
        ("lock: &a {b: *a}", "an anchor contains itself"),
        ("? [a]\n: 1", "a key must be a single word"),
        ('name: "\\uD800"', "half of a surrogate pair is not a character"),
    ],
)
def test_complaint_about_one_line(recipe, line, message):
    """A wrong line of a recipe is named by its number, with what would be right."""
    (recipe.folder / "ask.txt").write_text("x")
    found = complaints(recipe, SMALL + line)
    assert [number for number, _ in found] == [4]
    assert message in found[0][1]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{engine: lamacpp}", "unknown engine `lamacpp`; did you mean `llamacpp`?"),
        ("{engine: 3}", "unknown engine `3`; there is `llamacpp`, `openai`, `tgi`"),
        ("{threds: 3}", "model `chat`: unknown option `threds`; did you mean `threads`?"),
        ("{threads: x}", "model `chat`: `threads` must be a valid integer, not 'x'"),
        ("{timeout: 0}", "model `chat`: `timeout` must be greater than 0, not 0"),
        (
            "{prompt: chatty}",
            "model `chat`: `prompt` must be 'chat' or 'completion', not 'chatty'; did you mean `chat`?",
        ),
        ("{cost: {inptu: 1}}", "model `chat`: unknown key `inptu`; did you mean `input`?"),
        ("{cost: {input: -1}}", "model `chat`: `cost` must be greater than or equal to 0, not -1"),
        ("{endpoints: http://a}", "model `chat`: `endpoints` must be a list, not 'http://a'"),
        ("{endpoints: [localhost]}", "model `chat`: 'localhost' is not a URL like `http://127.0.0.1:8000`"),
        ("{endpoints: ['http://a:x']}", "model `chat`: 'http://a:x' is not a URL like `http://127.0.0.1:8000`"),
        ("{endpoints: ['http://[']}", "model `chat`: 'http://[' is not a URL like `http://127.0.0.1:8000`"),
        ("chat", "`chat` must be a mapping, for example `models: {chat: {}}`"),
        ("{api_key: '${NO_SUCH_KEY}'}", "`api_key`: the environment variable NO_SUCH_KEY is not set"),
        ("{model: '${HOME}'}", "`${HOME}`: environment variables are for secrets (`api_key`, `headers`) only"),
    ],
)
def test_complaint_about_a_model(recipe, model, message):
    """What is wrong with a model is named at its line."""
    found = complaints(recipe, SMALL.replace("{chat: {}}", f"\n  chat: {model}"))
    assert found == [(2, message)]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("wiki: {source: genric, path: x}", "unknown source `genric`; did you mean `generic`?"),
        ("wiki: {path: x}", "split `wiki`: option `source` is missing"),
        ("wiki: {source: generic}", "split `wiki`: option `path` is missing"),
        ("wiki: {source: generic, path: []}", "split `wiki`: `path` is empty"),
        ("wiki: {source: generic, path: ''}", "split `wiki`: `path` is empty"),
        ("wiki: {source: generic, path: 3}", "split `wiki`: `path` must be a valid string or a list, not 3"),
        ("wiki: {source: generic, path: x, fild: a}", "split `wiki`: unknown option `fild`; did you mean `field`?"),
        ("wi-ki: {source: generic, path: x}", "`wi-ki` cannot name a split: use letters, digits and `_`"),
        ("all: {source: generic, path: x}", "`all` cannot name a split: use letters, digits and `_`"),
        ("wiki: x", "`wiki` must be a mapping, for example `splits: {wiki: {source: generic, path: wiki.jsonl}}`"),
    ],
)
def test_complaint_about_a_split(recipe, split, message):
    """What is wrong with a split is named at its line."""
    found = complaints(recipe, f"models: {{chat: {{}}}}\nsplits:\n  {split}\n")
    assert found[0] == (3, message)


def test_models_and_splits_are_needed(recipe):
    """Without models or splits, an example of them is shown."""
    assert complaints(recipe, "name: x\n") == [
        (1, "`models` must name at least one model, for example `models: {chat: {}}`"),
        (1, "`splits` must name at least one split, for example `splits: {wiki: {source: generic, path: wiki.jsonl}}`"),
    ]
    assert complaints(recipe, "") == [(1, "a recipe is a mapping with at least `models:` and `splits:`")]
    assert complaints(recipe, "- a") == [(1, "a recipe is a mapping with at least `models:` and `splits:`")]


def test_all_complaints_at_once(recipe):
    """Everything that is wrong is said at once, in the order of the lines."""
    found = complaints(
        recipe,
        "models:\n  chat: {engine: opnai}\n  b: {threads: x, timeout: -1}\n"
        "splits:\n  a: {source: generc, path: x}\nstages:\n  - labl\n  - strict: {treshold: 1}\nsed: 1\n",
    )
    assert [line for line, _ in found] == [2, 3, 3, 5, 7, 8, 8, 9]


def test_only_model_of_several_must_be_named(recipe):
    """Where there are several models, a stage whose default is none of them must say which."""
    text = SMALL.replace("{chat: {}}", "{chat: {}, judge: {}}") + "stages:\n  - score\n  - label\n"
    assert complaints(recipe, text) == [
        (6, "stage `label`: `model` is `labeler`, which is no model of this recipe; there is `chat`, `judge`")
    ]


def test_plugins_that_are_missing_are_mentioned(recipe):
    """An unknown name is put beside the plugins that could not be loaded: one of them may have it."""
    found = complaints(recipe, SMALL + "stages: [labl]", catalog=Catalog(absent=("kun-method",)))
    assert found[0][1].endswith("did you mean `label`? (plugins that could not be loaded: kun-method)")


def test_broken_files(tmp_path):
    """A recipe that is missing, no text or full of control characters is an error of one line."""
    path = tmp_path / "r.yaml"
    with pytest.raises(RecipeError) as caught:
        RecipeFile.read(path)
    assert (caught.value.message, caught.value.hint) == (
        f"{path}: no such recipe",
        "`kun-build init` writes one to start from",
    )
    for data, message in (
        (b"a: 1\nb: \xff", f"{path}:2: not UTF-8 at byte 8"),
        (b"a: 1\nb: \x01", f"{path}:2: the character U+0001 is not allowed in YAML"),
        (b"a: 1\nb: !!int x", f"{path}:1: not YAML: invalid literal for int() with base 10: 'x'"),
    ):
        path.write_bytes(data)
        with pytest.raises(RecipeError) as caught:
            RecipeFile.read(path)
        assert caught.value.message == message
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        RecipeFile.read(tmp_path)
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert RecipeFile.read(path).data == {"a": 1}


# --- secrets ---------------------------------------------------------------------------------------------------


def test_secrets_stay_where_they_are_used(recipe, monkeypatch):
    """A key is in the model that needs it, and in no representation, dump or lock."""
    monkeypatch.setenv("MY_KEY", "sk-topsecret")
    made = recipe(SMALL.replace("{}", "{api_key: '${MY_KEY}', endpoints: ['http://a']}"))
    assert made.models["chat"].api_key == "sk-topsecret"
    for text in (repr(made), str(made), made.model_dump_json(), str(made.model_dump()), lock(made, CATALOG, {})):
        assert "topsecret" not in text
    assert "api_key: ${MY_KEY}" in lock(made, CATALOG, {})


@pytest.mark.parametrize("key", ["sk-topsecret", "${MY_KEY}-topsecret", "[sk-topsecret]", "{a: sk-topsecret}"])
def test_key_in_a_recipe_is_refused_and_not_repeated(recipe, key):
    """A key that stands in the recipe itself is refused, and the refusal does not repeat it."""
    found = complaints(
        recipe,
        SMALL.replace("{}", f"{{api_key: '{key}', timeout: x}}" if key[0] not in "[{" else f"{{api_key: {key}}}"),
    )
    assert "topsecret" not in str(found)
    assert "keys are not for files" in str(found)


@pytest.mark.parametrize("name", ["vllm", "sglang", "ollama", "llama-server"])
def test_a_server_that_speaks_the_protocol_of_openai_may_be_named_as_the_engine(recipe, name):
    """Its name stands for `openai`, also in the lock."""
    made = recipe(SMALL.replace("{}", f"{{engine: {name}, endpoints: ['http://a']}}"))
    assert made.models["chat"].engine == "openai"
    assert name not in lock(made, CATALOG, {})


def test_headers_are_sent_to_servers_and_shown_to_nobody(recipe, monkeypatch):
    """`${NAME}` in a header is the environment's; its value is in no representation, dump or lock."""
    monkeypatch.setenv("MY_KEY", "sk-topsecret\n")
    made = recipe(
        SMALL.replace("{}", "{headers: {Authorization: 'Key ${MY_KEY}', x-team: data}, endpoints: ['http://a']}")
    )
    assert made.models["chat"].headers == {"Authorization": "Key sk-topsecret", "x-team": "data"}
    for text in (repr(made), str(made), made.model_dump_json(), str(made.model_dump()), lock(made, CATALOG, {})):
        assert "topsecret" not in text
        assert "x-team" not in text


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ("[x]", "`headers` must be a mapping, like `headers: {x-team: data, api-key: '${API_KEY}'}`"),
        ("{x: 1}", "header `x`: its value must be a string of ASCII characters in one line; quote it"),
        ("{x: 密}", "header `x`: its value must be a string of ASCII characters in one line; quote it"),
        (
            '{x: "topsecret\\r\\ny: z"}',
            "header `x`: its value must be a string of ASCII characters in one line; quote it",
        ),
        ("{'x y': z}", "header `x y`: no server takes such a name"),
        ("{Content-Length: '1'}", "header `Content-Length` says how requests are written and cannot be set"),
        ("{x: '${NO_SUCH_KEY}'}", "header `x`: the environment variable NO_SUCH_KEY is not set"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_and_not_repeated(recipe, headers, message):
    """A header that would break a request, or has no value, is refused before anything is asked."""
    found = complaints(recipe, SMALL.replace("{}", f"{{headers: {headers}}}"))
    assert found == [(1, message)]


def test_a_key_that_no_request_can_carry_is_refused(recipe, monkeypatch):
    """An API key that is not all ASCII is refused by the name of its variable; a line end is not part of it."""
    monkeypatch.setenv("MY_KEY", "密匙")
    assert "MY_KEY holds more than ASCII" in str(complaints(recipe, SMALL.replace("{}", "{api_key: '${MY_KEY}'}")))
    monkeypatch.setenv("MY_KEY", " sk-1\n")
    assert recipe(SMALL.replace("{}", "{api_key: '${MY_KEY}'}")).models["chat"].api_key == "sk-1"


def test_password_in_an_endpoint_is_refused_and_not_repeated(recipe):
    """An endpoint with a password in it is refused without repeating it."""
    found = complaints(recipe, SMALL.replace("{}", "{endpoints: ['http://me:topsecret@a']}"))
    assert found == [(1, "model `chat`: an endpoint must not contain a user or password: use `api_key: ${API_KEY}`")]


# --- one changed key -------------------------------------------------------------------------------------------

FULL = {
    "name": "kun",
    "models": {"chat": {"engine": "openai", "endpoints": ["http://a:1"], "timeout": 3.0, "threads": 2}},
    "splits": {
        "one": {"source": "generic", "path": "x", "field": "content"},
        "two": {"source": "wudao", "path": ["y", "z"], "encoding": "utf-8"},
    },
    "stages": [
        "normalize",
        {"length": {"max_tokens": 100, "by": "tokens"}},
        {"label": {"model": "chat", "n": 2}},
        {"refine": {"columns": ["instruction"]}},
    ],
    "shard_rows": 10,
    "plugins": {"dirs": ["a"], "disable": ["b"]},
    "publish": {"repo": "a/b", "private": True},
}
KEYS = [
    (("name",),), (("models",),), (("splits",),), (("stages",),), (("shard_rows",),), (("plugins",),), (("publish",),),
    (("models", "chat", "engine"),), (("models", "chat", "endpoints"),), (("models", "chat", "timeout"),),
    (("models", "chat", "threads"),), (("splits", "one", "source"),), (("splits", "one", "path"),),
    (("splits", "one", "field"),), (("splits", "two", "encoding"),), (("stages", 1, "length"),),
    (("stages", 1, "length", "max_tokens"),), (("stages", 1, "length", "by"),), (("stages", 2, "label", "n"),),
    (("stages", 3, "refine"),), (("stages", 3, "refine", "columns"),), (("plugins", "dirs"),),
    (("plugins", "disable"),), (("publish", "repo"),), (("publish", "private"),),
]  # fmt: skip


@given(
    place=st.sampled_from([key for (key,) in KEYS]),
    junk=st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=3),
    at=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_a_changed_key_is_found_at_its_line(tmp_path_factory, place, junk, at):
    """Whatever key of a recipe is misspelt, there is a complaint at its line that names it."""
    data = copy.deepcopy(FULL)
    holder = data
    for part in place[:-1]:
        holder = holder[part]
    old = place[-1]
    new = old[: at % (len(old) + 1)] + junk + old[at % (len(old) + 1) :]
    items = [(new if key == old else key, value) for key, value in holder.items()]
    holder.clear()
    holder.update(items)
    text = yaml.dump(data, sort_keys=False)
    line = next(
        n for n, row in enumerate(text.splitlines(), 1) if row.lstrip(" -'").startswith((f"{new}:", f"{new}':"))
    )
    path = tmp_path_factory.mktemp("r") / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, CATALOG)
    here = [row for row in caught.value.message.splitlines() if row.startswith(f"{path}:{line}: ")]
    assert any(f"`{new}`" in row for row in here)


def test_the_full_recipe_itself_is_right(recipe):
    """What the test above changes has nothing wrong in it."""
    assert recipe(yaml.dump(FULL, sort_keys=False)).name == "kun"


# --- lock and schema -------------------------------------------------------------------------------------------


def test_lock_is_a_recipe_again(recipe):
    """A lock has every option and prompt, says what ran, and loads as the same recipe."""
    made = recipe(yaml.dump(FULL, sort_keys=False), limit=9)
    infos = {"chat": ModelInfo("Qwen/Qwen3-8B", "abc123")}
    text = lock(made, CATALOG, infos)
    said = yaml.safe_load(text)["lock"]
    assert said["models"] == {"chat": {"id": "Qwen/Qwen3-8B", "revision": "abc123"}}
    assert said["plugins"] == {"kun-test": {"package": "kun-tests", "version": "1.0", "digest": "d" * 16}}
    assert said["prompts"][0]["digest"] == Prompt("Ask: {text}\n").digest
    assert said["limit"] == 9
    assert "http://a:1" not in text
    again = recipe(text)
    assert (again.splits, again.stages, again.shard_rows) == (made.splits, made.stages, made.shard_rows)
    assert again.models["chat"].options == made.models["chat"].options
    again = recipe(text, endpoints=("http://a:1",), limit=9)
    assert again.models == made.models
    assert lock(again, CATALOG, infos) == text


def test_publishing_is_renewed_in_a_lock(recipe):
    """What a recipe says of publishing can be put into a lock file later; all else in it stays byte for byte."""
    text = lock(recipe(yaml.dump(FULL, sort_keys=False)), CATALOG, {})
    bare = recipe(yaml.dump({**FULL, "publish": {}}, sort_keys=False))
    assert with_publish(text, recipe(text)) == text
    assert "publish:" not in with_publish(text, bare)
    assert with_publish(with_publish(text, bare), recipe(text)) == text


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"], include_characters="\t\n"), min_size=1).filter(
    lambda text: "${" not in text
)


@given(prompt=TEXT, name=TEXT, number=st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None, max_examples=40)
def test_lock_keeps_any_text_and_number(tmp_path_factory, prompt, name, number):
    """Prompts, strings and numbers come back from a lock exactly as they went in."""
    path = tmp_path_factory.mktemp("r") / "r.yaml"
    prompt = Prompt(prompt.replace("{", "") + "\n")
    stages = [{"label": {"prompt": prompt.text}}, {"strict": {"threshold": number}}]
    splits = {"a": {"source": "generic", "path": "x", "field": name}}
    path.write_text(json.dumps({"models": {"chat": {}}, "splits": splits, "stages": stages}), encoding="utf-8")
    made = load_recipe(path, CATALOG)
    assert made.stages[0].options["prompt"] == prompt
    again = tmp_path_factory.mktemp("r") / "r.lock.yaml"
    again.write_text(lock(made, CATALOG, {}), encoding="utf-8")
    loaded = load_recipe(again, CATALOG)
    assert (loaded.stages, loaded.splits["a"].options) == (made.stages, made.splits["a"].options)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab1e:#'\"-.~ \n{[é文"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab:# ", min_size=1), inner, max_size=3),
    )
)
@settings(deadline=None, max_examples=40)
def test_what_is_dumped_is_read_back(tmp_path_factory, value):
    """Any plain data that is written is read back the same."""
    path = tmp_path_factory.mktemp("r") / "r.yaml"
    path.write_text(yaml.dump({"value": value}, Dumper=Dumper, allow_unicode=True, sort_keys=False), encoding="utf-8")
    assert RecipeFile.read(path).data == {"value": value}


def test_schema_accepts_what_the_loader_accepts(recipe):
    """The JSON schema is valid, knows every option, and agrees with the loader on good and bad recipes."""
    schema = json_schema(CATALOG)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    lock_text = lock(recipe(yaml.dump(FULL, sort_keys=False)), CATALOG, {})
    for good in (FULL, yaml.safe_load(SMALL), yaml.safe_load(lock_text)):
        assert list(check.iter_errors(good)) == []
    for place, value in (
        (("formt",), 1),
        (("format",), "jsnl"),
        (("models", "chat", "threds"), 1),
        (("models", "chat", "engine"), "lamacpp"),
        (("models", "chat", "api_key"), "sk-1"),
        (("splits", "one", "source"), "genric"),
        (("splits", "one", "fild"), "x"),
        (("stages", 0), "normalise"),
        (("stages", 0), "strict"),
        (("stages", 1, "length", "max_tokens"), "3"),
        (("stages", 1, "length", "max_token"), 3),
        (("stages", 1, "labl"), {}),
        (("publish", "privat"), True),
    ):
        bad = copy.deepcopy(FULL)
        holder = bad
        for part in place[:-1]:
            holder = holder[part]
        holder[place[-1]] = value
        assert list(check.iter_errors(bad)), place
        assert complaints(recipe, yaml.dump(bad, sort_keys=False)), place
    options = schema["properties"]["stages"]["items"]["anyOf"][1]["properties"]["length"]["anyOf"][0]["properties"]
    assert options["max_tokens"] == {"type": "integer", "minimum": 1, "default": 512}


def test_stage_values_are_real_stages():
    """The options that a recipe checks are those that a plugin's stage has."""
    stage = RowStage(name="label", run=label)
    assert [option.role for option in options_of(stage.run, ("row", "generate"))] == ["model", "", "", ""]
