"""`kun-build` as a user meets it: what goes where, which exit code, and what to do about an error."""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import click
import jsonschema
import pytest
import yaml
from kun_method.presets import VERIFIED
from places import KUN_BUILD

from kun_builder.cli import main as cli
from kun_builder.cli.main import COMMANDS
from kun_builder.cli.plugins import example
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe

NAMES = cli.cli.list_commands(None)
RECIPE = "models: {chat: {}}\nsplits:\n  wiki: {source: generic, path: wiki.jsonl}\n"


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


# --- help ------------------------------------------------------------------------------------------------------


def test_help_costs_nothing():
    """`kun-build --help` takes under 0.3 s of CPU, or four times what click alone takes where a machine is so busy that
    all takes longer, and imports none of the heavy packages."""
    heavy = ("datasets", "transformers", "torch", "pyarrow", "pydantic", "aiohttp", "rich", "numpy", "yaml")
    code = (
        "import sys, resource\nsys.argv = ['kun-build', '--help']\nfrom kun_builder.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "Usage: kun-build [RECIPE] [OPTIONS]" in done.stdout
    pairs = [(processor(KUN_BUILD, "--help"), processor(sys.executable, "-c", "import click")) for _ in range(3)]
    assert min(ours for ours, _ in pairs) < max(0.3, 4 * min(clicks for _, clicks in pairs))


def processor(*command):
    """Seconds of processor time that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself(kun, name):
    """Every command has a help with `-h`, a first sentence, output options and examples that name it."""
    code, out, err = kun(name, "-h")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: kun-build {name}")
    examples = out.partition("Examples:\n")[2]
    assert f"kun-build {name if name != 'build' else 'recipe.yaml'}" in examples
    group = "COMMAND [ARGS]" in out  # its commands have the options of output
    for option in ("-h, --help", *(() if group else ("--format", "--json", "-q, --quiet"))):
        assert option in out
    for line in examples.splitlines():
        words = shlex.split(line.partition(" > ")[0], comments=True)
        if words[:1] == ["kun-build"]:
            understood(words)


def understood(words):
    """Let click read a command line as a shell hands it over, with the files that it names."""
    command, name, rest, context = cli.cli, words[0], words[1:], None
    while True:
        try:
            context = command.make_context(name, list(rest), parent=context)
        except click.BadParameter as error:
            kind, path = re.fullmatch(r"(\w+) '(.+)' does not exist\.", error.message).groups()
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch() if kind == "File" else Path(path).mkdir()
            continue
        if not isinstance(command, click.Group):
            return
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


def test_main_help_names_every_command(kun):
    """The main help shows every command with its line, the options of a build, and examples."""
    code, out, err = kun("-h")
    assert (code, err) == (0, "")
    for name in NAMES:
        assert f"  {name}" in out
        line = COMMANDS.get(name) or cli.cli.get_command(None, name).get_short_help_str(80)
        assert line.split(";")[0][:40] in " ".join(out.split())
    for option in ("--limit N", "--output DIR", "--endpoint URL", "--plugins-dir DIR", "--fresh", "--version", "-h"):
        assert option in out
    assert "Examples:\n  kun-build init" in out


def test_commands_of_a_group_explain_themselves(kun):
    """A command of a command has a help like any other."""
    for name in NAMES:
        group = cli.cli.get_command(None, name)
        for inner in getattr(group, "commands", {}):
            code, out, err = kun(name, inner, "-h")
            assert (code, err) == (0, "")
            assert f"kun-build {name} {inner} " in out.partition("Examples:\n")[2]
            assert "--format" in out


def test_commands_are_where_the_table_says():
    """Each name of the table is a module with a `command` that has a docstring."""
    for name in COMMANDS:
        assert importlib.import_module(f"kun_builder.cli.{name}").command.help


def test_version(kun):
    """`--version` prints the version on stdout."""
    assert kun("--version") == (0, f"kun-build {cli.__version__}\n", "")


# --- wrong usage -----------------------------------------------------------------------------------------------


def test_unknown_word(kun):
    """A first word that is neither command nor recipe is wrong usage, with the nearest command."""
    code, out, err = kun("pluggins")
    assert (code, out) == (2, "")
    assert "Error: there is no command or recipe `pluggins`; did you mean `plugins`?" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--limit", "0"), "Invalid value for '--limit': 0 is not in the range x>=1."),
        (("--endpoint", "localhost:80"), "'localhost:80' is not a URL like `http://127.0.0.1:8000`"),
        (("--endpoint", "http://me:secret@host"), "an endpoint must not contain a user or password"),
        (("--formt", "json"), "No such option '--formt'. (Did you mean one of: '--format'"),
        (("--json", "-q"), "--format, --json and --quiet exclude each other"),
        (("a.yaml", "b.yaml"), "Got unexpected extra argument (b.yaml)"),
    ],
)
def test_wrong_usage(kun, args, message):
    """Wrong usage ends with exit code 2 and nothing on stdout."""
    code, out, err = kun(*args)
    assert (code, out) == (2, "")
    assert message in err
    assert "secret@" not in err


def test_no_recipe(kun):
    """Without ./recipe.yaml, `kun-build` says how to get one, without a traceback."""
    assert kun() == (1, "", "Error: recipe.yaml: no such recipe\nHint: `kun-build init` writes one to start from\n")
    assert kun("x/other.yml")[2].startswith("Error: x/other.yml: no such recipe\n")


def test_wrong_recipe_is_an_error_of_lines(kun, tmp_path):
    """What is wrong with a recipe is said line by line, on stderr, with exit code 1."""
    (tmp_path / "recipe.yaml").write_text(RECIPE + "formt: x\nstages: [labl]\n")
    for args in ((), ("build",), ("plan",), ("--limit", "5")):
        code, out, err = kun(*args)
        assert (code, out) == (1, "")
        assert err == (
            "Error: recipe.yaml:4: unknown key `formt`; did you mean `format`?\n"
            "recipe.yaml:5: unknown stage `labl`; did you mean `label`?\n"
        )


def test_wrong_plugin_is_named(kun, tmp_path):
    """A plugin that stops the start is named with the way out; one that is left out is only warned of."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/broken.py").write_text("import nothing_like_it")
    code, out, err = kun("plugins", "--plugins-dir", "mine", "-q")
    assert code == 0
    assert "wudao\n" in out
    assert err == (
        "Warning: plugin `broken` of mine/broken.py cannot be imported: "
        "ModuleNotFoundError: No module named 'nothing_like_it'\n"
        "Hint: install what it needs: `pip install nothing_like_it`\n"
    )
    (tmp_path / "mine/broken.py").write_text(
        "from kun_builder import hookimpl\n@hookimpl\ndef kun_source():\n    return []\n"
    )
    code, out, err = kun("plugins", "--plugins-dir", "mine")
    assert (code, out) == (1, "")
    assert err.startswith(
        "Error: plugin `broken` of mine/broken.py: there is no hook `kun_source`; did you mean `kun_sources`?\nHint: "
    )


def test_closed_pipe():
    """A reader that goes away, as `head` does, is no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([KUN_BUILD, "schema"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


# --- init, plan, plugins, schema -------------------------------------------------------------------------------


def test_init_writes_a_recipe_that_is_right(kun, tmp_path):
    """`init` writes a commented recipe that passes the check, and does not replace one."""
    code, out, err = kun("init")
    assert (code, out) == (0, "")
    assert err == "wrote recipe.yaml: put your corpora under `splits:`, then run `kun-build recipe.yaml`\n"
    text = (tmp_path / "recipe.yaml").read_text()
    assert text.startswith("#")
    code, _, err = kun("plan", "-q")
    assert code == 1
    assert err.startswith("Error: recipe.yaml:21: split `web`: no file at data/*.jsonl; the nearest folder")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/web.jsonl").touch()
    assert kun("plan", "-q")[0] == 0
    assert kun("init") == (1, "", "Error: recipe.yaml is there already\nHint: `--force` replaces it\n")
    (tmp_path / "recipe.yaml").write_text("x")
    assert kun("init", "--force", "-q") == (0, "recipe.yaml\n", "")
    assert (tmp_path / "recipe.yaml").read_text() == text
    assert kun("init", "deep/er.yaml", "--json") == (0, '{"recipe": "deep/er.yaml"}\n', "")


def test_default_stages_in_the_written_recipe_are_the_default(kun, tmp_path):
    """The stages that `init` writes as a comment are those that run without it."""
    kun("init")
    text = (tmp_path / "recipe.yaml").read_text()
    commented = text[text.index("# stages:") : text.index("\n\n# format")]
    stages = yaml.safe_load(commented.replace("# ", "", 1).replace("\n# ", "\n"))["stages"]
    assert [{"length": {"max_tokens": 512}} if s == "length" else s for s in VERIFIED.stages] == stages


def test_plan_shows_all_options(kun, tmp_path):
    """`plan` shows models, splits and stages with every option; as JSON with the keys that are known."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "wiki.jsonl").touch()
    code, out, err = kun("plan", "--endpoint", "http://gpu:1", "--limit", "7")
    assert (code, err) == (0, "")
    assert "http://gpu:1" in out
    assert "max_tokens: 512" in out
    assert "Servers are idle by design until all rows are seen by `perplexity` and then `dedup`" in " ".join(
        out.split()
    )
    code, out, err = kun("plan", "--json")
    plan = json.loads(out)
    assert plan["splits"]["wiki"]["path"] == ["wiki.jsonl"]
    labels = [stage["label"] for segment in plan["segments"] for stage in segment["stages"]]
    assert [label for label in labels if not label.endswith("-measure")] == [
        *("normalize", "length", "language", "perplexity", "dedup"),
        *("label", "refine", "score", "polish", "refine-2", "verify"),
    ]
    assert all(bool(segment["key"]) != bool(segment["models"]) for segment in plan["segments"])
    assert plan["idle_until"] == ["perplexity", "dedup"]


def test_plan_finds_what_is_missing(kun, tmp_path):
    """Inputs and files of options that are not there, or not on this machine, are errors with place and cure."""
    (tmp_path / "here.jsonl").write_text('{"text": "文字"}\n')
    (tmp_path / "recipe.yaml").write_text(
        "models: {chat: {}}\nsplits:\n  a: {source: generic, path: here.jsonl}\n"
        "  b: {source: generic, path: gone.jsonl}\n  c: {source: generic, path: 'bogus://bucket/c.jsonl'}\n"
        "  d: {source: hub, path: 'gs://bucket/d'}\n"
        "stages:\n  - perplexity\n  - decontaminate: {benchmarks: [here.jsonl, lost.jsonl, 's3://b/x.jsonl']}\n"
        "  - label\n  - polish\n"
    )
    for command in (("plan",), ()):
        code, _, err = kun(*command, "recipe.yaml")
        assert code == 1
        assert "recipe.yaml:4: split `b`: no file at gone.jsonl" in err
        assert "recipe.yaml:5: bogus://bucket/c.jsonl: Protocol not known: bogus" in err
        assert "recipe.yaml:6: gs://bucket/d is an address" in err
        assert "recipe.yaml:9: stage `decontaminate`: `benchmarks`: no file at lost.jsonl" in err
        assert "`benchmarks`: no file at s3://b/x.jsonl" in err
        assert "copy the file to this machine" in err
        assert "split `a`" not in err
        assert "perplexity" not in err  # its default names a model that comes along


def test_plugins_lists_everything(kun):
    """`plugins` lists sources, stages and engines with package, license and typed options."""
    code, out, err = kun("plugins")
    assert (code, err) == (0, "")
    for word in ("wudao", "wanjuan", "skypile", "generic", "dedup", "tgi", "kun-builder", "max_tokens: int = 512"):
        assert word in out
    code, out, err = kun("plugins", "--json")
    by_name = {(entry["kind"], entry["name"]): entry for entry in json.loads(out)}
    length = by_name["stage", "length"]
    assert length["options"]["max_tokens"] == {"type": "int", "default": "512"}
    assert (length["package"], length["package_version"], length["plugin"]) == (
        "kun-builder",
        cli.__version__,
        "kun-clean",
    )
    assert len(length["digest"]) == 16
    assert kun("plugins", "-q")[1].split() == [entry["name"] for entry in json.loads(out)]


def test_plugins_explains_one(kun):
    """`plugins NAME` shows docstring, options and an example, and for a source its sample record."""
    code, out, err = kun("plugins", "wudao")
    assert (code, err) == (0, "")
    assert "source wudao: plugin kun-wudao of kun-builder" in out
    assert "splits:" in out
    assert "Sample record:\n  {" in out
    assert "stage dedup" in kun("plugins", "kun-clean")[1]
    code, out, err = kun("plugins", "wudoa")
    assert (code, out) == (1, "")
    assert err == "Error: there is no source, stage, engine, section, preset or plugin `wudoa`; did you mean `wudao`?\n"


def test_every_example_is_right(tmp_path):
    """The example of every source, stage and engine is a part of a recipe that passes the check."""
    registry = load_plugins()
    entries = [("source", e) for e in registry.sources.values()]
    entries += [("stage", e) for e in registry.stages.values()] + [("engine", e) for e in registry.engines.values()]
    for kind, entry in entries:
        path = tmp_path / "r.yaml"
        whole = {**yaml.safe_load(RECIPE), **yaml.safe_load(example(kind, entry))}
        path.write_text(yaml.dump(whole))
        load_recipe(path, registry)


def test_every_entry_is_documented():
    """Every source, stage and engine that comes with kun-builder has a docstring."""
    from kun_builder.cli.plugins import documentation

    registry = load_plugins()
    for entry in (*registry.sources.values(), *registry.stages.values(), *registry.engines.values()):
        assert documentation(entry), entry.value.name


def test_schema_fits_the_recipes_that_we_write(kun, tmp_path):
    """`schema` prints one JSON schema that accepts what `init` writes."""
    code, out, err = kun("schema")
    assert (code, err) == (0, "")
    kun("init")
    jsonschema.validate(yaml.safe_load((tmp_path / "recipe.yaml").read_text()), json.loads(out))
