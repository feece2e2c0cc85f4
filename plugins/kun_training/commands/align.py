"""`kun-build align RECIPE`: train, build, select, and train again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from kun_builder.cli.machine import forbid_downloads, need_training
from kun_builder.cli.options import Command, open_recipe, output_options, plugins_dir_option, recipe_argument
from kun_builder.cli.output import Output


@click.command(
    cls=Command,
    short_help="Train, build, select, and train again: the whole loop.",
    examples=("kun-build align recipe.yaml --rounds 2", "kun-build align --rounds 3 --json"),
)
@recipe_argument
@click.option("--rounds", type=click.IntRange(min=1), default=2, metavar="N", help="Rounds of train and build [2].")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Build from N rows, drawn over the whole input.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the rounds [runs/NAME].")
@plugins_dir_option
@output_options
def command(
    recipe: Path, rounds: int, limit: int | None, output: Path | None, plugins_dirs: tuple[Path, ...], out: Output
) -> None:
    """Train the models of RECIPE's `training:` section, build with them, add the best rows to the seeds, and repeat.

    Each round has a folder with its models and its run. After any interruption, the same command goes on.
    """
    need_training()
    forbid_downloads()
    checked, registry = open_recipe(recipe, out, limit=limit, output=output, plugins_dirs=plugins_dirs)

    from kun_builder.cli.progress import progress
    from kun_builder.status import Status
    from kun_training.align import align

    status = Status()
    with progress(status, out):
        rounds_done = align(checked, registry, rounds, status)
    if out.format == "json":
        out.json([{**asdict(one), "yield": one.kept_share} for one in rounds_done])
        return
    out.table(
        ("round", ">seeds", ">augmented", ">kept", ">yield", ">mean score", ">distinct-2", ">held-out", ">selected"),
        [
            {
                "round": one.number,
                ">seeds": one.seeds,
                ">augmented": one.augmented,
                ">kept": f"{one.kept} of {one.read}",
                ">yield": f"{one.kept_share:.1%}",
                ">mean score": "-" if one.mean_score is None else f"{one.mean_score:.3f}",
                ">distinct-2": f"{one.distinct_2:.3f}",
                ">held-out": "-" if one.held_out is None else f"{one.held_out:.3f}",
                ">selected": one.selected,
            }
            for one in rounds_done
        ],
    )
    out.note(f"held-out: log-probability of the human instructions, nats per token; rounds in {checked.output}")
