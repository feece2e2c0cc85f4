"""What commands share: help with examples, `-h`, output options, and opening a recipe with its plugins."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.output import Format, Output

if TYPE_CHECKING:
    from kun_builder.recipe.recipe import Plugins, Recipe
    from kun_builder.recipe.registry import Registry


_REMARK = re.compile(r"(?<=\S)( {2,})(?=[^ #])")
_HELP = {"help_option_names": ["-h", "--help"]}


class Command(click.Command):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **{"context_settings": _HELP, **kwargs})
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        write_examples(formatter, self.examples)


class Group(click.Group):
    """A command of commands, whose help ends with examples of all of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"context_settings": _HELP, **kwargs})

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first example of each command."""
        commands = [command for command in self.commands.values() if isinstance(command, Command)]
        write_examples(formatter, [command.examples[0] for command in commands])


class Folder(click.Path):
    """A folder, as a `Path`; or an address at which one is kept, as a string."""

    def __init__(self, *, exists: bool = False) -> None:
        super().__init__(
            path_type=Path, exists=exists, file_okay=not exists
        )  # a file in the place of one is told by the run

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An address as it is, if something can be kept there."""
        from kun_builder.readers.addresses import is_address, no_folder, public

        if not (isinstance(value, str) and is_address(value)):
            return super().convert(value, param, ctx)
        if fault := no_folder(value):
            self.fail(f"{public(value)} {fault}", param, ctx)
        return value.rstrip("/")


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """The examples, without wrapping. What follows a command behind a gap is a remark; it becomes a comment of the
    shell, so that the line can be pasted whole."""
    with formatter.section("Examples"):
        for example in examples:
            line = _REMARK.sub(r"\1# ", example, count=1)
            formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def output_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--format`, `--json` and `-q`; the function gets an `Output` as `out`."""

    @click.option(
        "--format",
        "output_format",
        type=click.Choice(["auto", "human", "json", "quiet"]),
        default="auto",
        help="How to print: for people (auto), as JSON, or only the essential.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
    @click.option("-q", "--quiet", is_flag=True, help="Same as --format quiet.")
    @functools.wraps(function)
    def wrapped(*args: Any, output_format: str, as_json: bool, quiet: bool, **kwargs: Any) -> None:
        if as_json + quiet + (output_format != "auto") > 1:
            raise click.UsageError("--format, --json and --quiet exclude each other")
        chosen: Format = "json" if as_json else "quiet" if quiet else "human"
        if output_format in ("json", "quiet"):
            chosen = "json" if output_format == "json" else "quiet"
        function(*args, out=Output(chosen), **kwargs)

    return wrapped


def run_at_address(
    *names: str, writes: Callable[[Mapping[str, Any]], bool] = lambda given: False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let parameters of type `Folder` name runs at addresses: the function gets folders of this machine, without the
    shards. `writes`: whether, as it is called, it writes into the first one; that goes back to the address."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def wrapped(*, out: Output, **given: Any) -> None:
            with ExitStack() as stack:
                for name in (name for name in names if isinstance(given[name], str)):
                    from kun_builder.run.mirror import run_at

                    mirror = run_at(given[name], out.note, writes=name == names[0] and writes(given))
                    given[name] = stack.enter_context(mirror)
                function(out=out, **given)

        return wrapped

    return decorate


recipe_argument = click.argument(
    "recipe", required=False, default="recipe.yaml", type=click.Path(path_type=Path), metavar="[RECIPE]"
)
plugins_dir_option = click.option(
    "--plugins-dir",
    "plugins_dirs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with one-file plugins; may be repeated.",
)


def run_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add what sets a run apart from its recipe: `--limit`, `--output`, `--endpoint`, `--plugins-dir`."""
    for decorate in (
        plugins_dir_option,
        click.option(
            "--endpoint",
            "endpoints",
            multiple=True,
            callback=urls,
            metavar="URL",
            help="Server for every model of the recipe; may be repeated.",
        ),
        click.option(
            "--output",
            type=Folder(),
            metavar="DIR",
            help="Run folder, or its address (s3://bucket/runs/x) [runs/NAME].",
        ),
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            metavar="N",
            help="Read N rows of each split, drawn over its whole input.",
        ),
    ):
        function = decorate(function)
    return function


def urls(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Check addresses of servers."""
    if values:
        from kun_builder.recipe.parts import url_fault

        for fault in filter(None, map(url_fault, values)):
            raise click.BadParameter(fault)
    return values


def open_plugins(settings: Plugins, out: Output) -> Registry:
    """Load the plugins; says which could not be."""
    from kun_builder.recipe.plugins import load_plugins

    registry = load_plugins(settings.dirs, settings.disable, out.note)
    for problem in registry.problems:
        out.warn(problem.message, problem.hint)
    return registry


def open_recipe(
    path: Path,
    out: Output,
    *,
    limit: int | None = None,
    output: Path | str | None = None,
    endpoints: tuple[str, ...] = (),
    plugins_dirs: tuple[Path, ...] = (),
) -> tuple[Recipe, Registry]:
    """The checked recipe and the plugins it was checked against."""
    from kun_builder.recipe.recipe import Plugins, load_recipe, plugin_settings

    settings = plugin_settings(path)
    settings = Plugins(dirs=(*settings.dirs, *plugins_dirs), disable=settings.disable)
    registry = open_plugins(settings, out)
    recipe = load_recipe(path, registry, limit=limit, output=output, endpoints=endpoints, plugins=settings)
    return recipe, registry
