"""`kun-build explain RUN ID`: everything about one row, kept or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from kun_builder.cli.options import Command, Folder, output_options
from kun_builder.cli.output import Output

_SHOWN = 20
"""Rows of a cluster that are listed; `--json` has them all."""


@click.command(
    cls=Command,
    examples=(
        "kun-build explain runs/my-kun wudao/part-2021.json:17",
        "kun-build explain runs/my-kun wudao/part-2021.json:17 --json",
    ),
)
@click.argument("run", type=Folder(exists=True))
@click.argument("row", metavar="ID")
@click.option(
    "--journal",
    type=Folder(),
    metavar="DIR",
    help="The recipe's `journal:` [the user's cache, or that at the address].",
)
@output_options
def command(run: Path | str, row: str, journal: Path | str | None, out: Output) -> None:
    """Show everything about the row ID of RUN: source, each step, prompts and answers, and why it ended as it did.

    Ids are in kept/ and rejected/ of RUN, in the dataset's provenance and on the report page.
    """
    import pyarrow as pa

    from kun_builder.result.explain import explain
    from kun_builder.result.finished import open_run
    from kun_builder.run.mirror import journal_at, run_at

    if isinstance(run, str) and journal is None:
        journal = f"{run}/journal"
    with run_at(run, out.note) as folder:
        answers = journal_at(journal) if isinstance(journal, str) else journal
        try:
            story = explain(open_run(folder, read_all=False), row, answers)
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            open_run(folder)  # names the file that is damaged
            raise
    if out.format == "json":
        out.json(story)
    elif out.format == "quiet":
        out.text(story["outcome"]["outcome"])
    else:
        for line in _lines(story):
            out.text(_visible(line))


def _lines(story: Mapping[str, Any]) -> Iterator[str]:
    place, outcome = story["place"], story["outcome"]
    yield place["id"]
    offset = f", byte {place['offset']}" if place["offset"] is not None else ""
    yield f"  from {place['file']}, record {place['position']}{offset}; {place['source']} ({place['plugin']})"
    yield f"  {_ended(**outcome)}"
    yield from _cluster(story["stands_for"])
    for name, value in story["values"].items():
        yield from _named(name, value)
    for step in story["steps"]:
        yield f"\n{step['step']} ({step['version']}): {step['result']}"
        if step["options"]:
            yield "  " + ", ".join(f"{name}={value}" for name, value in step["options"].items())
        for one in step["measured"]:
            yield f"  {_limited(**one)}"
        for request in step["requests"]:
            yield from _asked(request)


def _cluster(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """The rows that this one stands for, the first of them by id."""
    if rows:
        yield f"  stands for {len(rows)} more, dropped in its favour:"
        yield from (f"    {row['id']}, by {row['step']}: {row['reason']}" for row in rows[:_SHOWN])
    if len(rows) > _SHOWN:
        yield f"    and {len(rows) - _SHOWN} more"


def _limited(column: str, value: object, least: float | None, most: float | None) -> str:
    limits = [f"{said} {limit:g}" for said, limit in (("at least", least), ("at most", most)) if limit is not None]
    return f"{column}: {value}" + (f" ({', '.join(limits)})" if limits else "")


def _ended(outcome: str, stage: str = "", reason: str = "", value: str | None = None) -> str:
    by = f" by {stage}: {reason}" if stage else ""
    return f"{outcome}{by}{f' ({value})' if value not in (None, '', 'none') else ''}"


def _asked(request: Mapping[str, Any]) -> Iterator[str]:
    yield f"  asked {request['model']} {request['revision']}".rstrip()
    if request["answer"] is None:
        yield "  (the journal no longer has this request)"
        return
    prompt = request["prompt"]
    for message in [{"role": "prompt", "content": prompt}] if isinstance(prompt, str) else prompt:
        yield from _named(message["role"], message["content"])
    yield from _named("answer", request["answer"])


def _named(name: str, value: object) -> Iterator[str]:
    text = str(value)
    if "\n" in text or len(text) > 80:
        yield f"\n  {name}:"
        yield from (f"    {line}" for line in text.splitlines())
    else:
        yield f"  {name}: {text}"


def _visible(line: str) -> str:
    """The line with control characters escaped: text of a corpus must not steer the terminal."""
    return "\n".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in part) for part in line.split("\n"))
