"""`kun-build schema`: the JSON schema of recipes."""

from __future__ import annotations

from pathlib import Path

import click

from kun_builder.cli.options import Command, open_plugins, output_options, plugins_dir_option
from kun_builder.cli.output import Output


@click.command(
    cls=Command,
    examples=(
        "kun-build schema > recipe.schema.json",
        "# then, as the first line of recipe.yaml:",
        "# yaml-language-server: $schema=recipe.schema.json",
    ),
)
@plugins_dir_option
@output_options
def command(plugins_dirs: tuple[Path, ...], out: Output) -> None:
    """Print the JSON schema (draft 2020-12) of recipes, with the options of all installed plugins."""
    from kun_builder.recipe.recipe import Plugins
    from kun_builder.recipe.schema import json_schema

    out.json(json_schema(open_plugins(Plugins(dirs=plugins_dirs), out)))
