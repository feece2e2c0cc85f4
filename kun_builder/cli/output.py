"""What a command prints and where: data on stdout in the asked format, everything else on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from kun_builder.errors import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Format = Literal["human", "json", "quiet"]


def complain(message: str, hint: str = "", word: str = "Error") -> None:
    """An `Error:` or `Warning:` on stderr, with its `Hint:`."""
    click.secho(f"{word}: {steady(message)}", err=True, fg={"Error": "red", "Warning": "yellow"}[word])
    if hint:
        click.secho(f"Hint: {steady(hint)}", err=True, dim=True)


def steady(message: str) -> str:
    """A message of one or more lines with control characters escaped, so that it cannot steer the terminal.

    Line ends in names from the command line are escaped too: they would begin a line that looks like another message.
    """
    for name in _broken_names():
        message = message.replace(name, shown(name))
    return "\n".join(shown(line) for line in message.split("\n"))


def _broken_names() -> list[str]:
    """Parts of paths on the command line, and of the working folder, that hold a line end; the longest first."""
    words = sys.argv[1:]
    with suppress(FileNotFoundError):  # it was deleted
        words.append(os.getcwd())
    said = [part for word in words if "\n" in word for part in re.split("[/=]", word)]
    names = {name for part in said for name in (part, Path(part).stem) if "\n" in name}
    return sorted(names, key=len, reverse=True)


def visible(text: str) -> str:
    """`text` with control characters escaped except line ends and tabs, since it may quote file names and servers."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def printable(text: str) -> str:
    """`text` in one line, with control characters escaped: text of a corpus must not steer the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


@dataclass(frozen=True)
class Output:
    """The output of one command. With `json_log`, what it says on stderr is JSON lines."""

    format: Format = "human"
    json_log: bool = False

    def note(self, message: str) -> None:
        """A line for people on stderr; not in quiet mode."""
        if self.format != "quiet":
            click.echo(
                json.dumps({"message": message}, ensure_ascii=False) if self.json_log else steady(message), err=True
            )

    def warn(self, message: str, hint: str = "") -> None:
        """A warning on stderr, in every mode."""
        if self.json_log:
            click.echo(json.dumps({"warning": message, "hint": hint}, ensure_ascii=False), err=True)
        else:
            complain(message, hint, "Warning")

    def text(self, text: str) -> None:
        """Data as it is, in every mode."""
        click.echo(text)

    def json(self, data: Any) -> None:
        """Data as JSON: one line, or indented on a terminal."""
        click.echo(json.dumps(data, ensure_ascii=False, default=str, indent=2 if sys.stdout.isatty() else None))

    def table(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
        """Rows as a table for people, as a JSON array, or quietly as the first column."""
        if self.format == "json":
            self.json(list(rows))
        elif self.format == "quiet":
            for row in rows:
                click.echo(row[columns[0]])
        else:
            table = make_table(columns, title)
            for row in rows:
                table.add_row(*(visible(str(row[name])) for name in columns))
            console().print(table)


def make_table(columns: Sequence[str], title: str = "") -> Table:
    """An empty table in our one style; names after a `>` are aligned to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    return table


def console(*, err: bool = False) -> Console:
    """A console that never cuts or wraps what goes into a pipe."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else 10_000
    return Console(stderr=err, width=width, markup=False, emoji=False, highlight=False, soft_wrap=not stream.isatty())
