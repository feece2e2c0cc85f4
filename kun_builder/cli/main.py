"""The command `kun-build`: thin. Each command has a file of its own, which is imported when it is called;
packages can add more.

Data goes to stdout, everything else to stderr. Exit codes: 0, 1 for a known failure, 2 for wrong usage, 75 for a build
that a time limit or SIGTERM ended and that goes on (`EX_TEMPFAIL` of sysexits.h), 130 for Ctrl-C.
"""

from __future__ import annotations

import faulthandler
import functools
import importlib
import signal
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from kun_builder import __version__
from kun_builder.cli import extensions
from kun_builder.cli.machine import explained, open_streams
from kun_builder.cli.options import write_examples
from kun_builder.cli.output import complain
from kun_builder.errors import KunError, Stopped, suggest

COMMANDS = {
    "build": "Build the dataset of a recipe; what `kun-build RECIPE` does.",
    "init": "Write a commented recipe.yaml to start from.",
    "plan": "Show what a recipe would run, and check it; asks no model.",
    "report": "Write the report page of a finished run, and open it.",
    "review": "Judge pairs of a run by eye, in the browser.",
    "explain": "Show everything about one row of a run, kept or not.",
    "export": "Write the rows of a run in the form that a trainer reads.",
    "push": "Publish a finished run on the Hub.",
    "reproduce": "Build a published dataset again, and compare.",
    "cache": "Show the answers that models have given so far, and prune them.",
    "plugins": "List sources, stages and engines with their options.",
    "schema": "Print the JSON schema of recipes, for editors.",
}
"""Our commands: the module `kun_builder.cli.<name>`, whose `command` it is, and its line in `kun-build --help`."""

STOPPED = 75
"""Exit code of a build that was ended early, so that scripts can tell what to start again from what failed."""

EXAMPLES = (
    "kun-build init                                        write recipe.yaml",
    "kun-build                                             build ./recipe.yaml",
    "kun-build recipe.yaml --limit 200 --output runs/try   a sample: 200 rows of each split",
    "kun-build recipe.yaml --endpoint http://gpu1:8000     models on a server",
)


class _Main(click.Group):
    """Commands by name, imported late; anything else is a recipe to build."""

    @functools.cached_property
    def added(self) -> dict[str, list[EntryPoint]]:
        """Commands that packages add, each with the packages that give it."""
        return extensions.commands(taken=COMMANDS)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *self.added]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            command: click.Command = importlib.import_module(f"kun_builder.cli.{cmd_name}").command
            return command
        return extensions.load(self.added[cmd_name]) if cmd_name in self.added else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and not args:  # a shell asks what the first word may be
            return super().parse_args(ctx, args)
        first = args[0] if args else ""
        if first not in (*COMMANDS, "-h", "--help", "--version") and first not in self.added:
            if first and not first.startswith("-") and not _is_recipe(first) and not ctx.resilient_parsing:
                names = self.list_commands(ctx)
                raise click.UsageError(f"there is no command or recipe `{first}`{suggest(first, names)}", ctx)
            args = ["build", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What the first word may be: a command, an option of `build`, or a recipe. Imports no command but that."""
        if incomplete.startswith("-"):
            build = self.get_command(ctx, "build")
            assert build is not None
            return build.shell_complete(build.make_context("build", [], parent=ctx, resilient_parsing=True), incomplete)
        lines = {**COMMANDS, **{name: extensions.line(by) for name, by in self.added.items()}}
        found = [CompletionItem(name, help=line) for name, line in lines.items() if name.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file"), *found]  # in this order, since bash forgets what is before it

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[RECIPE] [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND ...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items(), *((name, extensions.line(by)) for name, by in self.added.items())])
        build = self.get_command(ctx, "build")
        assert build is not None
        params = [*build.get_params(ctx), *self.get_params(ctx)]
        records = dict.fromkeys(record for param in params if (record := param.get_help_record(ctx)))
        with formatter.section("Options"):
            formatter.write_dl(list(records))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, EXAMPLES)


def _is_recipe(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) or "/" in word or Path(word).is_file()


@click.group(
    cls=_Main,
    invoke_without_command=False,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="kun-build", message="%(prog)s %(version)s")
def cli() -> None:
    """Build instruction-tuning datasets from raw text, by instruction back-translation with answer polishment.

    RECIPE is a YAML file that names corpora, models and stages; without one, it is ./recipe.yaml.
    """


def main() -> None:
    """Run `kun-build`; the entry point."""
    open_streams()
    faulthandler.enable(2, all_threads=False)  # a crash of native code in a plugin names its line
    signal.signal(signal.SIGTERM, _terminated)
    try:
        cli.main(prog_name="kun-build", standalone_mode=False)
    except Stopped as error:
        complain(error.message, error.hint)
        sys.exit(STOPPED)
    except KunError as error:
        complain(error.message, error.hint)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted", "what is finished is kept; run the same command again to go on")
        sys.exit(130)
    except BrokenPipeError:  # `kun-build schema | head`
        sys.stderr.close()
        sys.exit(1)
    except (OSError, MemoryError, ImportError) as error:
        told = explained(error)
        if told is None:
            raise
        complain(*told)
        sys.exit(1)


def _terminated(number: int, frame: object) -> None:
    """SIGTERM ends a command as Ctrl-C does; a build has a way of its own (`cli.ending`)."""
    raise KeyboardInterrupt
