"""`kun-build RECIPE`: build the dataset of a recipe, show the funnel, rows and how to load them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.ending import ending, seconds_of
from kun_builder.cli.machine import forbid_downloads
from kun_builder.cli.options import Command, open_recipe, output_options, recipe_argument, run_options
from kun_builder.cli.output import Output
from kun_builder.cli.push import PUSH_OPTIONS, check_target, push_options, push_run, repo_name

if TYPE_CHECKING:
    from kun_builder.status import Status


@click.command(
    cls=Command,
    examples=(
        "kun-build recipe.yaml",
        "kun-build recipe.yaml --limit 200 --output runs/try",
        "kun-build recipe.yaml --endpoint http://gpu1:8000 --endpoint http://gpu2:8000",
        "kun-build recipe.yaml --output s3://bucket/runs/mine     any machine goes on with it",
        "kun-build recipe.yaml --push-to-hub my-org/my-kun",
        "kun-build recipe.yaml --time-limit 3h45m",
        "kun-build recipe.yaml --json > result.json",
    ),
)
@recipe_argument
@run_options
@click.option("--fresh", is_flag=True, help="Compute everything again, finished or not.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Progress on stderr as text or as JSON lines.",
)
@click.option("--metrics-port", type=click.IntRange(0, 65535), metavar="PORT", help="Serve figures for Prometheus.")
@click.option(
    "--time-limit",
    callback=seconds_of,
    metavar="DURATION",
    help="End the run in order after so long (3h45m), to go on later; exit code 75.",
)
@click.option("--push-to-hub", "repo", metavar="ORG/NAME", callback=repo_name, help="Publish the result on the Hub.")
@push_options
@output_options
def command(
    recipe: Path,
    fresh: bool,
    log_format: str,
    metrics_port: int | None,
    time_limit: int | None,
    repo: str | None,
    out: Output,
    **options: Any,
) -> None:
    """Build the dataset of RECIPE (./recipe.yaml) in its run folder.

    A run that was interrupted goes on where it stopped; one that is finished, with nothing changed, does nothing.
    Exit codes: 0, 1 for a failure, 2 for wrong usage, 75 when --time-limit or SIGTERM ended it, 130 for Ctrl-C.
    """
    pushing = {name: options.pop(name) for name in PUSH_OPTIONS}
    if not repo and pushing != PUSH_OPTIONS:
        raise click.UsageError("options of publishing need --push-to-hub ORG/NAME")
    if not repo:  # a push needs the Hub
        forbid_downloads()
    out = replace(out, json_log=log_format == "json")
    checked, registry = open_recipe(recipe, out, **options)
    if repo:
        check_target(repo, checked, registry, out, **pushing)

    from kun_builder.cli.funnel import show_result
    from kun_builder.cli.progress import progress
    from kun_builder.result.losses import check_losses
    from kun_builder.result.present import is_presented
    from kun_builder.run.folder import RunFolder
    from kun_builder.run.mirror import mirrored
    from kun_builder.run.runner import build  # after the check: it imports `datasets`
    from kun_builder.run.target import build_target
    from kun_builder.status import Status

    status = Status(say=out.note)
    wanted = build_target if checked.target and checked.limit is None else build
    with ending(status, time_limit):
        with mirrored(checked, status):
            with progress(status, out), _metrics(status, metrics_port, out):
                report = wanted(checked, registry, fresh=fresh, status=status)
            if not is_presented(checked.output):
                out.note("writing the card and the report page")
                _present(checked.output, out)
        if not repo or out.format == "human":
            show_result(report, checked, out)
        check_losses(RunFolder(checked.output), report)
        if repo:
            push_run(checked.output, repo, out, **pushing)


def _present(run: Path, out: Output) -> None:
    """Write card, pictures and page. A failure there is told, but the run is complete and its exit status stays 0."""
    from kun_builder.result.present import write_presentation

    try:
        write_presentation(run)
    except Exception as error:  # of a column that a stranger's plugin made, or of a library that draws it
        what = " ".join(str(error).split()) or type(error).__name__
        out.note(f"the run is complete, but its card and report page could not be written: {what}")
        out.note(f"`kun-build report {run}` tries it again")


@contextmanager
def _metrics(status: Status, port: int | None, out: Output) -> Iterator[None]:
    if port is None:
        yield
        return
    from kun_builder.run.metrics import serve_metrics

    with serve_metrics(status, port) as taken:
        out.note(f"metrics: http://127.0.0.1:{taken}/metrics")
        yield
