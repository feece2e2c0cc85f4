"""A recipe is checked before anything is spent; every complaint names file, line and the nearest valid name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kun_method.presets import VERIFIED
from recipes import REGISTRY, SMALL, complaints

from kun_builder import Prompt
from kun_builder.errors import RecipeError
from kun_builder.recipe.file import RecipeFile
from kun_builder.recipe.recipe import Plugins, load_recipe, plugin_settings
from kun_builder.recipe.registry import Problem

# --- what a good recipe becomes --------------------------------------------------------------------------------


def test_smallest_recipe(recipe):
    """Everything has a default but `models` and `splits`; an only model is the one that stages ask."""
    made = recipe(SMALL)
    assert (made.name, str(made.output), made.executor, made.shard_rows) == ("news", "runs/news", "local", 2000)
    assert (made.models["chat"].engine, made.models["chat"].options) == ("llamacpp", {"threads": 0, "slots": None})
    assert [stage.name for stage in made.stages] == [
        s if isinstance(s, str) else next(iter(s)) for s in VERIFIED.stages
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
            limits: {requests_per_minute: 500}
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
    assert chat.limits == {"requests_per_minute": 500.0}
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
    assert load_recipe(path, REGISTRY).splits["wiki"].path == ("recipes/data/x",)
    assert load_recipe(tmp_path / path, REGISTRY).splits["wiki"].path == ("recipes/data/x",)


def test_name_from_the_folder(tmp_path):
    """A file called `recipe.yaml` is named after its folder."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/recipe.yaml").write_text(SMALL)
    assert load_recipe(tmp_path / "demo/recipe.yaml", REGISTRY).name == "demo"


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
        ("executor: rai", "`executor` must be 'local' or 'ray', not 'rai'; did you mean `ray`?"),
        ("ray: {adress: auto}", "unknown key `adress`; did you mean `address`?"),
        ("shard_rows: 0", "`shard_rows` must be greater than or equal to 1, not 0"),
        ("seed: '1'", "`seed` must be a valid integer, not '1' (leave out the quotes)"),
        ("name: no", "`name` must be a valid string, not False (put it in quotes)"),
        ("name: a/b", "`name` must be a folder name of letters, digits, `_`, `-`, `.`, not 'a/b'"),
        ("journal: ${HOME}/x", "`${HOME}`: environment variables are for secrets (`api_key`, `headers`) only"),
        ("plugins: {dir: [x]}", "unknown key `dir`; did you mean `dirs`?"),
        ("publish: {private: 3}", "`private` must be a valid boolean, not 3"),
        ("training: {label: {bse: x}}", "unknown key `bse`; did you mean `base`?"),
        ("training: {seeds: [1]}", "`seeds` must be a valid string, not 1"),
        ("journal: ask.txt/kept", "ask.txt is a file; name a folder, which is made if needed"),
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
        ("lock: !!set {a, b}", "the tag `tag:yaml.org,2002:set` means nothing here"),
        ("stages: !!python/tuple [label]", "the tag `tag:yaml.org,2002:python/tuple` means nothing here"),
        ("lock: &a {b: *a}", "an anchor contains itself"),
        (f"lock: {'{a: ' * 60}1{'}' * 60}", "nested in more than 40 levels"),
        ("seed: !!int x", "`x` is no int"),
        (f"seed: {'9' * 5000}", f"`{'9' * 40}` is no int"),
        (f"seed: {2**63}", f"`{2**63}` is no number that can be used"),
        ("budget: {tokens: .nan}", "`.nan` is no number that can be used"),
        ("publish: {notes: ~nobody-of-this-name/notes.md}", "the file ~nobody-of-this-name/notes.md cannot be read"),
        ("stages: [label: {prompt: ~nobody-of-this-name/a}]", "`prompt` is a prompt, but there is no file "),
        ('"\\uD83D": 1', "half of a surrogate pair is not a character"),
        ('"\\e[31m": 1', "unknown key `\\x1b[31m`; there is "),
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
        ("{timeout: .inf}", "model `chat`: `timeout` must be a finite number, not inf"),
        ("{timeout: 0}", "model `chat`: `timeout` must be greater than 0, not 0"),
        (
            "{prompt: chatty}",
            "model `chat`: `prompt` must be 'chat' or 'completion', not 'chatty'; did you mean `chat`?",
        ),
        ("{cost: {inptu: 1}}", "model `chat`: `cost` must be 'input' or 'output', not 'inptu'; did you mean `input`?"),
        (
            "{limits: {token_per_minute: 1}}",
            "model `chat`: `limits` must be 'requests_per_minute' or 'tokens_per_minute', not 'token_per_minute';"
            " did you mean `tokens_per_minute`?",
        ),
        ("{limits: {tokens_per_minute: 0}}", "model `chat`: `limits` must be greater than 0, not 0"),
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
        (
            "wiki: {source: generic, path: 3}",
            "split `wiki`: `path` must be a valid string or a list, not 3 (put it in quotes)",
        ),
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
    lacking = replace(REGISTRY, problems=(Problem("kun-method", "cannot be imported", ""),))
    found = complaints(recipe, SMALL + "stages: [labl]", registry=lacking)
    assert found[0][1].endswith("did you mean `label`? (plugins that could not be loaded: kun-method)")


def _doubled(first, line):
    """Forty lines, each of which has the one before nine times."""
    return "\n".join(
        [f"a0: &a0 {first}", *(f"a{n}: &a{n} {line % ', '.join(9 * [f'*a{n - 1}'])}" for n in range(1, 40))]
    )


def test_anchors_without_end(tmp_path):
    """Few lines can stand for more values than there is memory: that is told; what merges repeat is read once."""
    path = tmp_path / "r.yaml"
    with pytest.raises(RecipeError, match="anchors are repeated so often"):
        RecipeFile(path, _doubled("[x, x]", "[%s]"))
    assert RecipeFile(path, _doubled("{b: x}", "{<<: [%s]}")).data["a39"] == {"b": "x"}


def test_paths_that_no_file_has(recipe):
    """A path that no file can have stays as it is; looking for the inputs tells it, as any that is not there."""
    for path in ("~nobody-of-this-name/x.jsonl", "**x.jsonl", "x" * 5000):
        found = recipe(f"models: {{chat: {{}}}}\nsplits: {{wiki: {{source: generic, path: '{path}'}}}}\n")
        assert found.splits["wiki"].path == (path,)


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
        (b"a: " + b"[" * 2000, f"{path}:1: nested in more than 40 levels"),
    ):
        path.write_bytes(data)
        with pytest.raises(RecipeError) as caught:
            RecipeFile.read(path)
        assert caught.value.message == message
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        RecipeFile.read(tmp_path)
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert RecipeFile.read(path).data == {"a": 1}
