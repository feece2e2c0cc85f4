"""`kun-build push RUN ORG/NAME`: publish a finished run on the Hub."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.options import Command, Folder, output_options, run_at_address
from kun_builder.cli.output import Output

if TYPE_CHECKING:
    from kun_builder.hub.push import Published, Target
    from kun_builder.recipe.recipe import Recipe
    from kun_builder.recipe.registry import Registry

_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


PUSH_OPTIONS = {
    "private": None,
    "revision": "main",
    "tag": "",
    "create_pr": False,
    "message": "",
    "token": None,
    "dry_run": False,
    "replace": False,
}
"""The parameters that `push_options` adds, with their defaults."""


def repo_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check `ORG/NAME`."""
    if value is not None and not _REPO.fullmatch(value):
        raise click.BadParameter(f"`{value}` is not ORG/NAME")
    return value


def push_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add what a push can be told: the fields of `kun_builder.hub.push.Target`, and `dry_run`."""
    for decorate in (
        click.option("--yes", "replace", is_flag=True, help="Replace files that somebody else has changed."),
        click.option("--dry-run", is_flag=True, help="Check everything and say what would be done; change nothing."),
        click.option("--token", metavar="TOKEN", help="Hub token [HF_TOKEN, or that of `hf auth login`]."),
        click.option("--commit-message", "message", default="", metavar="TEXT", help="Message of the commit."),
        click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing."),
        click.option("--tag", default="", metavar="NAME", help="Tag the commit."),
        click.option("--revision", default="main", metavar="BRANCH", help="Branch to commit to [main]."),
        click.option("--private/--no-private", default=None, help="Visibility of the repository [private]."),
    ):
        function = decorate(function)
    return function


@click.command(
    cls=Command,
    examples=(
        "kun-build push runs/my-kun my-org/my-kun",
        "kun-build push runs/my-kun my-org/my-kun --dry-run",
        "kun-build push runs/my-kun my-org/my-kun --no-private --tag v1.0",
        "kun-build push runs/my-kun my-org/my-kun --create-pr --json",
    ),
)
@click.argument("run", type=Folder(exists=True))
@click.argument("repo", metavar="[ORG/NAME]", callback=repo_name, required=False)
@push_options
@output_options
@run_at_address("run")
def command(run: Path, repo: str | None, out: Output, **options: Any) -> None:
    """Publish the finished run in RUN as the dataset ORG/NAME: one commit, checked before and after.

    Without ORG/NAME, it is the recipe's `publish: {repo: ...}`.

    Pushing again after a failure goes on where it stopped; pushing the same run twice changes nothing.
    """
    push_run(run, repo, out, **options)


def push_run(run: Path, repo: str | None, out: Output, *, dry_run: bool, **options: Any) -> None:
    """Push, and print what was done. Options that are not given are those of the recipe."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from kun_builder.hub.push import push
    from kun_builder.hub.retry import Retry
    from kun_builder.result.finished import open_run, publish_settings

    target = make_target(repo, publish_settings(open_run(run).lock), **options)
    if out.format != "human" or not sys.stderr.isatty():
        disable_progress_bars()
    out.note(f"checking {run}")
    show_published(push(run, target, retry=Retry(say=out.note), dry_run=dry_run), out)


def check_target(repo: str, recipe: Recipe, registry: Registry, out: Output, **options: Any) -> None:
    """Check licences and access to the Hub before anything is built. Raises the errors that the push would."""
    from kun_builder.hub.push import check_access
    from kun_builder.hub.retry import Retry
    from kun_builder.recipe.corpus import declared
    from kun_builder.result.finished import check_licences
    from kun_builder.run.plan import make_plan

    settings = recipe.publish.model_dump()
    corpora = {name: declared(registry.sources[split.source].value, split) for name, split in recipe.splits.items()}
    check_licences(corpora, settings, texts=not make_plan(recipe, registry).pairs)
    options.pop("dry_run")
    check_access(make_target(repo, settings, **options), retry=Retry(say=out.note))


def make_target(
    repo: str | None, settings: Mapping[str, Any], *, private: bool | None, token: str | None, **options: Any
) -> Target:
    """Where to publish. Options of the command line take precedence over the recipe's `publish:`."""
    from kun_builder.hub.push import Target

    if not (repo := repo or settings.get("repo")):
        raise click.UsageError("where to? give ORG/NAME, or `publish: {repo: ORG/NAME}` in the recipe")
    private = settings.get("private", True) if private is None else private
    return Target(repo=repo, private=private, token=token or None, **options)


def show_published(published: Published, out: Output) -> None:
    """Print what a push did: for people, as JSON, or, in quiet mode, just the address."""
    address = published.pull_request or published.url
    if out.format == "json":
        out.json(asdict(published))
    elif out.format == "quiet":
        out.text(address)
    else:
        news = bool(published.added or published.deleted)
        changes = published.changes["splits"] if news else {}
        rows = [{"split": s, ">rows": f"{n:,}", **_signed(changes.get(s, {}))} for s, n in published.rows.items()]
        out.table(["split", ">rows", *([">added", ">removed", ">rewritten"] if news else [])], rows)
        out.note(_sentence(published))
        out.text(address)


def _signed(change: dict[str, int]) -> dict[str, str]:
    names = {"added": ">added", "removed": ">removed", "changed": ">rewritten"}
    return {column: f"{change[name]:,}" if name in change else "-" for name, column in names.items()}


def _sentence(published: Published) -> str:
    files = f"{len(published.added)} files to write, {len(published.deleted)} to delete"
    if published.dry_run:
        return f"dry run: {files}; nothing was changed"
    if published.pull_request:
        return "the pull request is open" if published.changed else "this is proposed already; nothing was changed"
    done = "published" if published.changed else "published already, nothing was changed"
    tag = f", tag {published.tag}" if published.tag else ""
    return f"{done}; read back from the Hub at commit {published.commit[:12]}{tag}"
