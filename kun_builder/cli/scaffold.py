"""`kun-build plugins new NAME`: a plugin package that works as it is.

The templates are working packages themselves, called `example`; here they only change their name.
"""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from kun_builder.cli.options import Command, output_options
from kun_builder.cli.output import Output
from kun_builder.errors import PluginError

_KINDS = ("source", "stage", "engine", "command")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@click.command(
    "new",
    cls=Command,
    examples=(
        "kun-build plugins new poems --kind source",
        "kun-build plugins new topics --kind stage --dir plugins/topics",
        "kun-build plugins new census --kind command        # with a section of recipes of its own",
    ),
)
@click.argument("name")
@click.option("--kind", type=click.Choice(_KINDS), required=True, help="What it adds.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Where to write it [kun-NAME].")
@output_options
def command(name: str, kind: str, folder: Path | None, out: Output) -> None:
    """Write a plugin package: module, tests, sample data, recipe. It installs, passes its tests and builds as it is."""
    name = name.removeprefix("kun-")
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"`{name}` cannot name a plugin: use lower-case letters, digits and `-`")
    folder = folder or Path(f"kun-{name}")
    if folder.exists() and any(folder.iterdir()):
        raise PluginError(f"{folder} is not empty", hint="give another folder with `--dir`")
    templates = files("kun_builder.cli").joinpath("templates")
    for part in ("common", kind):
        _copy(templates.joinpath(part), folder, name)
    if out.format == "json":
        out.json({"plugin": f"kun-{name}", "dir": str(folder)})
    elif out.format == "quiet":
        out.text(str(folder))
    else:
        out.note(f"wrote {folder}; now: cd {folder} && pip install -e '.[dev]' && pytest && kun-build recipe.yaml")


def _copy(source: Traversable, target: Path, name: str) -> None:
    """Copy a template under another name."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            if entry.name != "__pycache__":
                _copy(entry, target / entry.name, name)
        elif not entry.name.endswith(".pyc"):
            (target / renamed(entry.name, name)).write_text(renamed(entry.read_text("utf-8"), name), "utf-8")


def renamed(text: str, name: str) -> str:
    """The text of a template, or the name of its file, for the plugin `name`."""
    module = name.replace("-", "_")
    text = text.replace("ExampleEndpoint", f"{''.join(word.title() for word in name.split('-'))}Endpoint")
    text = text.replace("kun_example", f"kun_{module}").replace("test_example", f"test_{module}")
    return re.sub(r"\bexample\b", name, text)
