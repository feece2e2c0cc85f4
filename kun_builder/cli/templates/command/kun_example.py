"""The command `kun-build example` and its section of recipes: it counts the texts of a split that have a word in them.

example: {word: 水}
"""

from pathlib import Path

import click
from pydantic import BaseModel, ConfigDict, Field

from kun_builder import Section, hookimpl

kun_api = 1


class Wanted(BaseModel):
    """What the command looks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    word: str = Field(default="水", description="Texts with this word are counted.")


@hookimpl
def kun_sections() -> list[Section]:
    """The section `example:`, which kun-builder checks with the rest of a recipe."""
    return [Section(name="example", model=Wanted)]


def count(run: Path, word: str) -> tuple[int, int]:
    """How many kept rows of a run have the word in their text, and how many rows there are."""
    import pyarrow.parquet as pq  # here, and not above: `kun-build --help` imports this module

    texts = [text for file in run.glob("kept/*.parquet") for text in pq.read_table(file)["text"].to_pylist()]
    return sum(word in text for text in texts), len(texts)


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
def command(recipe: Path, run: Path) -> None:
    """Count the rows of RUN whose text has the word that RECIPE names."""
    from kun_builder.recipe.plugins import load_plugins
    from kun_builder.recipe.recipe import load_recipe

    word = load_recipe(recipe, load_plugins()).sections["example"].word
    found, rows = count(run, word)
    click.echo(f"{found} of {rows} texts have {word}")
