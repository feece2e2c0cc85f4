"""`kun-build plugins`: what recipes can name, and how."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.options import Command, open_plugins, output_options, plugins_dir_option
from kun_builder.cli.output import Output, console, make_table
from kun_builder.errors import PluginError, suggest

if TYPE_CHECKING:
    from kun_builder.recipe.registry import Entry, Registry


class _Plugins(Command):
    """`plugins new` and `plugins search` are commands of their own; everything else lists or explains."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        module = {"new": "scaffold", "search": "search"}.get(args[0] if args else "")
        if module is None:
            return super().make_context(info_name, args, parent, **extra)
        own: click.Command = importlib.import_module(f"kun_builder.cli.{module}").command
        return own.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)


@click.command(
    cls=_Plugins,
    examples=(
        "kun-build plugins",
        "kun-build plugins wudao",
        "kun-build plugins --plugins-dir my_plugins --json",
        "kun-build plugins new poems --kind source      # writes a plugin package; `kun-build plugins new -h`",
        "kun-build plugins search poems                 # on the package index; `kun-build plugins search -h`",
    ),
)
@click.argument("name", required=False, default="")
@plugins_dir_option
@output_options
def command(name: str, plugins_dirs: tuple[Path, ...], out: Output) -> None:
    """List what recipes can name, or explain NAME: options, an example, and a source's sample record.

    NAME is that of a source, stage, engine, section or preset of recipes, or of a plugin.
    """
    from kun_builder.recipe.recipe import Plugins

    registry = open_plugins(Plugins(dirs=plugins_dirs), out)
    entries = list(_entries(registry))
    found = [(kind, entry) for kind, entry in entries if name in ("", entry.value.name, entry.owner.name)]
    if not found:
        known = {each for _, entry in entries for each in (entry.value.name, entry.owner.name)}
        raise PluginError(
            f"there is no source, stage, engine, section, preset or plugin `{name}`{suggest(name, known)}"
        )
    if out.format == "json":
        out.json([_facts(kind, entry) for kind, entry in found])
    elif out.format == "quiet":
        for _, entry in found:
            out.text(entry.value.name)
    elif name:
        for kind, entry in found:
            _explain(kind, entry)
    else:
        _list(found)


def _entries(registry: Registry) -> Iterator[tuple[str, Entry[Any]]]:
    from kun_builder.recipe.plugins import KINDS

    for kind in KINDS.values():
        for _, entry in sorted(getattr(registry, f"{kind}s").items()):
            yield kind, entry


def _facts(kind: str, entry: Entry[Any]) -> dict[str, Any]:
    """An entry as plain data."""
    from kun_builder.recipe.options import REQUIRED, show_value

    facts = {
        "kind": kind,
        "name": entry.value.name,
        "version": entry.value.version,
        "plugin": entry.owner.name,
        "package": entry.owner.package,
        "package_version": entry.owner.version,
        "digest": entry.owner.digest,
        "license": _license(kind, entry),
        "options": {
            o.name: {"type": o.type} if o.default is REQUIRED else {"type": o.type, "default": show_value(o.default)}
            for o in entry.options
        },
        "example": example(kind, entry),
    }
    return facts | ({"sample": entry.value.sample} if kind == "source" else {})


def _license(kind: str, entry: Entry[Any]) -> str:
    """The licence: of a source, that of the corpus; of anything else, that of the package."""
    return str((entry.value.license or "as its split says") if kind == "source" else entry.owner.license)


def _package(entry: Entry[Any]) -> str:
    return f"{entry.owner.package} {entry.owner.version}".strip()


def _list(entries: list[tuple[str, Entry[Any]]]) -> None:
    from kun_builder.recipe.options import show

    table = make_table(("kind", "name", "package", "license", "options"))
    for kind, entry in entries:
        options = "\n".join(show(option) for option in entry.options)
        table.add_row(
            kind,
            entry.value.name,
            _package(entry),
            _license(kind, entry),
            options,
        )
    console().print(table)


def _explain(kind: str, entry: Entry[Any]) -> None:
    from kun_builder.recipe.options import show

    about = f"{kind} {entry.value.name}: plugin {entry.owner.name} of {_package(entry)}"
    lines = [about, "", documentation(entry)]
    if kind not in ("section", "preset"):
        lines += ["", "Options:", *([f"  {show(option)}" for option in entry.options] or ["  none"])]
    lines += ["", "Example:", *(f"  {line}" for line in example(kind, entry).splitlines())]
    if kind == "preset":
        lines += ["", "The same as:", *(f"  {line}" for line in _yaml({"stages": [*entry.value.stages]}).splitlines())]
    if kind == "source":
        facts = {"license": entry.value.license, "homepage": entry.value.homepage}
        lines += ["", *(f"{name}: {value}" for name, value in facts.items() if value)]
        if entry.value.sample is not None:
            lines += ["Sample record:", f"  {json.dumps(entry.value.sample, ensure_ascii=False, default=str)}"]
    console().print("\n".join(lines) + "\n")


def documentation(entry: Entry[Any]) -> str:
    """The docstring of the function that does the work, or the title, or else the docstring of the plugin."""
    value = entry.value
    names = ("run", "parse", "connect", "model")
    function = next((found for name in names if (found := getattr(value, name, None))), None)
    return inspect.getdoc(function) or getattr(value, "title", "") or entry.owner.doc


def example(kind: str, entry: Entry[Any]) -> str:
    """A fragment of a recipe that uses the entry, with its options as they are by default."""
    from kun_builder.recipe.parts import EMBEDDED

    name, options = entry.value.name, dict(_example_options(entry))
    fragment: Any
    if kind == "source":
        split = name.replace("-", "_")  # `datasets` has no `-` in the name of a split
        fragment = {"splits": {split: {"source": name, "path": f"data/{entry.value.files[0]}", **options}}}
    elif kind == "stage":
        fragment = {"stages": [{name: options} if options else name]}
    elif kind == "preset":
        fragment = {"preset": name}
    elif kind == "section":
        fragment = {name: entry.value.model().model_dump(mode="json")}
    else:
        servers = {} if name == EMBEDDED else {"endpoints": ["http://127.0.0.1:8000"]}
        fragment = {"models": {"chat": {"engine": name, **servers, **options}}}
    return _yaml(fragment)


def _yaml(fragment: Mapping[str, Any]) -> str:
    import yaml

    from kun_builder.recipe.file import Dumper

    return yaml.dump(fragment, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None).rstrip()


def _example_options(entry: Entry[Any]) -> Iterator[tuple[str, Any]]:
    """Options worth showing: those that must be given, and those with a default that says something."""
    from kun_builder.prompts import Prompt
    from kun_builder.recipe.options import REQUIRED, placeholder, plain_value

    for option in entry.options:
        if option.default is REQUIRED:
            yield option.name, placeholder(option.annotation)
        elif not option.role and option.default is not None and not isinstance(option.default, Prompt):
            yield option.name, plain_value(option.default)
