"""Packages add commands to `kun-build`; one that is broken has a name and does not stop the others."""

import os
import subprocess

import pytest
from places import KUN_BUILD

COMMAND = '''
import click
@click.command()
@click.argument("word")
def command(word):
    """Say WORD in verse. It rhymes."""
    click.echo(f"{word}, oh {word}")
'''


@pytest.fixture
def site(tmp_path):
    """Installs packages with one command each, as pip lays them out; `run` runs `kun-build` with them."""

    class Site:
        def install(self, package, module, code, name="verse"):
            (tmp_path / f"{module}.py").write_text(code, "utf-8")
            about = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", "utf-8")
            entry = f"[kun_builder.commands]\n{name} = {module}:command\n"
            (about / "entry_points.txt").write_text(entry, "utf-8")

        def run(self, *words):
            environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
            return subprocess.run(
                [KUN_BUILD, *words], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=200
            )

    return Site()


def test_a_package_adds_a_command(site):
    """It runs, stands in the help with its first sentence, and is proposed for a word that is nearly it."""
    site.install("kun-verse", "kun_verse", COMMAND)
    done = site.run("verse", "moon")
    assert (done.returncode, done.stdout) == (0, "moon, oh moon\n")
    listed = [row.split(maxsplit=1) for row in site.run("--help").stdout.splitlines()]
    assert ["verse", "Say WORD in verse."] in listed
    assert "`verse`" in site.run("vers").stderr


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import kun_no_such_module", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("command = len", "is of type builtin_function_or_method, not `click.Command`"),
        ("", "cannot be imported: AttributeError"),
    ],
)
def test_a_broken_command_has_an_owner(site, code, said):
    """Called, it ends in one line with the package's name; the help lists the others, and they work."""
    site.install("kun-broken", "kun_broken", code, "broken")
    site.install("kun-verse", "kun_verse", COMMAND)
    done = site.run("broken")
    assert done.returncode == 1
    assert "`broken` of kun-broken" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "verse Say WORD in verse." in " ".join(site.run("--help").stdout.split())
    assert site.run("verse", "sun").returncode == 0


def test_a_command_has_one_owner(site):
    """Where two packages give a command, both are named; ours cannot be replaced."""
    site.install("kun-verse", "kun_verse", COMMAND)
    site.install("kun-more-verse", "kun_more_verse", COMMAND)
    site.install("kun-plan", "kun_plan", COMMAND, "plan")
    done = site.run("verse", "moon")
    assert done.returncode == 1
    assert "kun-verse" in done.stderr
    assert "kun-more-verse" in done.stderr
    assert "no such recipe" in site.run("plan", "missing.yaml").stderr
