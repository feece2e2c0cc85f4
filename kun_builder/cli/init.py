"""`kun-build init`: a commented recipe to start from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from kun_builder.cli.options import Command, output_options
from kun_builder.cli.output import Output
from kun_builder.errors import RecipeError


@click.command(cls=Command, examples=("kun-build init", "kun-build init recipes/news.yaml"))
@click.argument("path", required=False, default="recipe.yaml", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@output_options
def command(path: Path, force: bool, out: Output) -> None:
    """Write a commented recipe to PATH (./recipe.yaml)."""
    text = files("kun_builder.cli").joinpath("recipe.yaml").read_text(encoding="utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise RecipeError(f"{path} is there already", hint="`--force` replaces it") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be written: {error.strerror}") from error
    if out.format == "json":
        out.json({"recipe": str(path)})
    elif out.format == "quiet":
        out.text(str(path))
    else:
        out.note(f"wrote {path}: put your corpora under `splits:`, then run `kun-build {path}`")
