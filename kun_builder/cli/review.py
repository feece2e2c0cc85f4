"""`kun-build review RUN`: people judge pairs in the browser, and what they say is in the run at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.options import Command, Folder, output_options, run_at_address
from kun_builder.cli.output import Output

if TYPE_CHECKING:
    from kun_builder.result.review import Review


def _name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", value):
        raise click.BadParameter("a name for a file is of letters, digits, `_`, `-` and `.`")
    return value


@click.command(
    cls=Command,
    examples=(
        "kun-build review runs/my-kun                                 opens the page; E or Ctrl-C ends",
        "kun-build review runs/my-kun --reviewer wang --seed 1        another person, other pairs",
        "kun-build review runs/my-kun --port 8765 --no-open           behind `ssh -L 8765:127.0.0.1:8765 HOST`",
        "kun-build review runs/my-kun --file pairs.html               for somebody who cannot reach this machine ...",
        "kun-build review runs/my-kun --take verdicts-my-kun.jsonl    ... and what they send back",
        "kun-build calibrate recipe.yaml --run runs/my-kun --precision 0.9",
    ),
)
@click.argument("run", type=Folder(exists=True))
@click.option("--sample", type=click.IntRange(min=1), default=60, metavar="N", help="Pairs to judge [60].")
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Another seed draws other pairs [0].")
@click.option("--reviewer", default="review", callback=_name, metavar="NAME", help="Whose verdicts these are [review].")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="Port on 127.0.0.1 [a free one]."
)
@click.option("--open/--no-open", "show", default=True, help="Open the page in the browser [yes, at a terminal].")
@click.option(
    "--file",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PAGE",
    help="Write the page as one file instead; it saves verdicts as a file.",
)
@click.option(
    "--take",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Put the verdicts that such a page saved into the run; repeatable.",
)
@output_options
@run_at_address("run", writes=lambda given: given["page"] is None)
def command(
    run: Path,
    sample: int,
    seed: int,
    reviewer: str,
    port: int,
    show: bool,
    page: Path | None,
    take: tuple[Path, ...],
    out: Output,
) -> None:
    """Judge pairs of the run in RUN in the browser: those that its stage `review` waits for, or, of a finished run,
    pairs drawn from kept and rejected ones.

    The page comes from this machine alone, by an address that nobody can guess. It shows one pair at a time beside its
    text; keys say good or bad, and what is wrong. Each verdict is saved in RUN/verdicts at once; you can
    stop and go on at any time.
    """
    if page and take:
        raise click.UsageError("--file and --take exclude each other")

    from kun_builder.result.review import open_review, write_page

    review = open_review(run, sample=sample, seed=seed)
    if take:
        from kun_builder.result.verdicts import take_verdicts

        out.note(f"taken: {', '.join(map(str, take_verdicts(review, take)))}")
    elif page:
        write_page(review, page)
        out.json({"review": str(page)}) if out.format == "json" else out.text(str(page))
        return
    else:
        _serve(review, reviewer, port, show)
    _tell_waiting(review, out) if review.waiting else _tell(review, out)


def _serve(review: Review, reviewer: str, port: int, show: bool) -> None:
    """Serve the page until the reviewer ends it, or Ctrl-C."""
    import sys

    from kun_builder.result.review_server import serve_review
    from kun_builder.result.review_store import open_store

    with (
        open_store(review, reviewer) as store,
        serve_review(review, store, port) as served,
        _door(review.folder, served.url) as door,
    ):
        try:
            click.echo(f"{len(review.pairs)} pairs to judge at {served.url}", err=True)
            click.echo("E on the page, or Ctrl-C here, ends.", err=True)
            if show and sys.stdout.isatty():
                click.launch(str(door))
            if not served.wait():
                click.echo("nobody has asked for the page for eight hours: the review has ended", err=True)
        except KeyboardInterrupt:
            click.echo("", err=True)


@contextmanager
def _door(folder: Path, url: str) -> Iterator[Path]:
    """Yield a file that leads to the page and that only the user may read: the page's secret address is not put on the
    browser's command line, which everybody on the machine can see."""
    from kun_builder.files import replace_file

    door = folder / "open.html"
    replace_file(door, f'<meta http-equiv="refresh" content="0; url={url}">'.encode(), private=True)
    try:
        yield door
    finally:
        door.unlink(missing_ok=True)


def _tell_waiting(review: Review, out: Output) -> None:
    """Print how many of the rows that a build waits for are judged, by all reviewers together."""
    from kun_builder.run.verdicts import verdicts_in

    waiting = {(pair["id"], pair["seen"]) for pair in review.pairs}
    judged = [verdict for verdict in verdicts_in(review.folder) if (verdict.id, verdict.seen) in waiting]
    found = {"rows": len(review.pairs), "judged": len(judged), "good": sum(verdict.good for verdict in judged)}
    if out.format == "json":
        out.json(found)
        return
    out.text(f"{found['judged']} of {found['rows']} rows judged, {found['good']} good")
    if found["judged"] == found["rows"]:
        out.note("run kun-build again: it goes on from here")


def _tell(review: Review, out: Output) -> None:
    """Print what all verdicts on the run say."""
    from kun_builder.result.verdicts import summary
    from kun_builder.run.verdicts import verdicts_in

    found = summary(verdicts_in(review.folder))
    if out.format == "json":
        out.json(found)
    elif found["precision"] is None:
        out.text(f"{found['read']} rows read, none of them kept")
    elif out.format == "quiet":
        out.text(f"{found['precision']['value']:.3f}")
    else:
        _draw(found, out)


def _draw(found: dict[str, Any], out: Output) -> None:
    share = found["precision"]
    out.text(
        f"{found['kept']} kept rows read, {found['good']} good; of all kept rows, {share['value']:.0%} are"
        f" (95 %: {share['low']:.0%} to {share['high']:.0%})"
    )
    kinds = [{"what is wrong": kind, ">rows": rows} for kind, rows in found["kinds"].items()]
    if kinds:
        out.table(("what is wrong", ">rows"), kinds)
    rows = [{"rejected for": why, ">read": n["read"], ">good": n["good"]} for why, n in found["rejected"].items()]
    if rows:
        out.table(("rejected for", ">read", ">good"), rows)
