"""`kun-build reproduce ORG/NAME`: build a published dataset again from its lock file, and compare."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.options import Command, open_plugins, output_options, plugins_dir_option, urls
from kun_builder.cli.output import Output
from kun_builder.cli.push import repo_name

if TYPE_CHECKING:
    from kun_builder.hub.reproduce import Reproduction
    from kun_builder.result.finished import FinishedRun


@click.command(
    cls=Command,
    examples=(
        "kun-build reproduce my-org/my-kun --path wudao=/data/WuDaoCorpus2.0",
        "kun-build reproduce my-org/my-kun --path wudao=/data/WuDao --endpoint http://gpu1:8000 --revision v1.0",
        "kun-build reproduce my-org/my-kun --recipe recipe.yaml --yes --json",
    ),
)
@click.argument("repo", metavar="ORG/NAME", callback=repo_name)
@click.option("--revision", default="main", metavar="REF", help="Branch, tag or commit to reproduce [main].")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="Where to build [runs/reproduce-NAME].")
@click.option("--path", "paths", multiple=True, metavar="SPLIT=PATH", help="Where a split's input is on this machine.")
@click.option("--endpoint", "endpoints", multiple=True, callback=urls, metavar="URL", help="Server for every model.")
@click.option(
    "--recipe",
    "own",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A recipe of yours, for inputs, endpoints, keys and plugins by the same names.",
)
@click.option("--yes", is_flag=True, help="Do not ask whether to build what is shown.")
@click.option("--token", metavar="TOKEN", help="Hub token [HF_TOKEN, or that of `hf auth login`].")
@plugins_dir_option
@output_options
def command(
    repo: str,
    revision: str,
    output: Path | None,
    paths: tuple[str, ...],
    endpoints: tuple[str, ...],
    own: Path | None,
    yes: bool,
    token: str | None,
    plugins_dirs: tuple[Path, ...],
    out: Output,
) -> None:
    """Build the published dataset ORG/NAME again from the recipe that travels with it, and compare the rows.

    From the repository come stages, options, prompts and the names of models, and they are shown before any model is
    asked. Inputs, endpoints, keys and plugins are yours: --path, --endpoint, --plugins-dir, or --recipe.

    Exits with 1 if any row differs: a model at a temperature above 0, or on other hardware, may answer differently.
    """
    where = dict(_pair(given) for given in paths)

    from kun_builder.cli.progress import progress
    from kun_builder.hub.published_recipe import read_user_settings, recipe_lines
    from kun_builder.hub.repository import Repository
    from kun_builder.hub.reproduce import reproduce
    from kun_builder.hub.retry import Retry
    from kun_builder.recipe.recipe import Plugins, load_recipe
    from kun_builder.result.finished import open_run
    from kun_builder.run.runner import build
    from kun_builder.status import Status

    user = read_user_settings(own, where, plugins_dirs, endpoints)
    plugins = Plugins(dirs=user.dirs)
    registry = open_plugins(plugins, out)

    def rebuild(path: Path, says: Mapping[str, Any], limit: int | None) -> FinishedRun:
        checked = load_recipe(path, registry, limit=limit, output=path.parent, endpoints=endpoints, plugins=plugins)
        out.note(f"the recipe of {repo}, as it will be built in {path.parent}:")
        for line in recipe_lines(says):
            out.note(f"    {line}")
        if not yes and sys.stdin and sys.stdin.isatty():
            click.confirm("Build this here?", abort=True, err=True)
        status = Status()
        with progress(status, out):
            build(checked, registry, status=status)
        return open_run(path.parent)

    folder = output or Path("runs") / f"reproduce-{repo.partition('/')[2]}"
    result = reproduce(Repository(repo, token, Retry(say=out.note)), revision, folder, user, registry, rebuild)
    _show(result, out)
    if not result.identical:
        sys.exit(1)


def _show(result: Reproduction, out: Output) -> None:
    if out.format == "json":
        out.json(result.to_json())
        return
    columns = ["split", "published", "rebuilt", "same", "different", "missing", "extra"]
    out.table(columns, [asdict(split) for split in result.splits])
    for line in result.drift:
        out.note(f"not as it was: {line}")
    said = "every row is the published one" if result.identical else "the rows are not the published ones"
    out.note(f"{result.repo} at commit {result.commit[:12]}: {said}")


def _pair(given: str) -> tuple[str, str]:
    split, equals, path = given.partition("=")
    if not (split and equals and path):
        raise click.BadParameter(f"`{given}` is not SPLIT=PATH", param_hint="--path")
    return split, path if "://" in path else os.path.abspath(path)  # the recipe will be in another folder
