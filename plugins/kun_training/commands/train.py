"""`kun-build train label|chat`: train a model of one's own from seed pairs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kun_builder.cli.machine import forbid_downloads, need_training
from kun_builder.cli.options import Command, open_plugins, open_recipe, output_options, plugins_dir_option
from kun_builder.cli.output import Output
from kun_builder.cli.push import repo_name
from kun_training.commands.settings import parse_settings

if TYPE_CHECKING:
    from kun_training.contracts import StageOptions
    from kun_training.job import TrainingRecord
    from kun_training.section import Training


@click.command(
    cls=Command,
    short_help="Train a label model or a primary chat model from seed pairs.",
    examples=(
        "kun-build train label --seeds seeds.jsonl --base Qwen/Qwen2.5-7B --output models/label",
        "kun-build train chat recipe.yaml --output models/chat                     from the section `training:`",
        "kun-build train label --seeds seeds.jsonl --preset tiny --output trial    a trial without a download",
        "kun-build train label --seeds s.jsonl --base B --output D --set learning_rate=5e-5 --set lora.r=32",
        "accelerate launch --config_file fsdp.yaml $(which kun-build) train label recipe.yaml --output models/label",
    ),
)
@click.argument("task", type=click.Choice(["label", "chat"]))
@click.argument("recipe", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--seeds", multiple=True, metavar="FILE", help="Pairs of instruction and answer (JSONL, JSON, Parquet); repeatable."
)
@click.option("--base", default="", metavar="MODEL", help="Hub id, folder, GGUF file, a known name, or `tiny`.")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the model.")
@click.option("--preset", type=click.Choice(["kun", "lora", "tiny"]), help="Settings to start from [lora].")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A field of TRL's SFTConfig, or `lora.NAME`; repeatable.",
)
@click.option("--held-out", type=click.FloatRange(0, 1, max_open=True), metavar="SHARE", help="Never trained on [0.1].")
@click.option("--min-score", type=float, metavar="SCORE", help="Leave out seeds of a lower `score`.")
@click.option("--max-pairs", type=click.IntRange(min=1), metavar="N", help="Use the N seeds of the best `score`.")
@click.option("--push-to-hub", callback=repo_name, metavar="ORG/NAME", help="Publish the model when it is trained.")
@click.option("--private/--no-private", default=True, help="Visibility of a new repository [private].")
@click.option("--token", metavar="TOKEN", help="Hub token [HF_TOKEN, or that of `hf auth login`].")
@plugins_dir_option
@output_options
def command(
    task: Any,
    recipe: Path | None,
    output: Path,
    settings: tuple[str, ...],
    push_to_hub: str | None,
    private: bool,
    token: str | None,
    plugins_dirs: tuple[Path, ...],
    out: Output,
    **given: Any,
) -> None:
    """Fine-tune the label model (answer to instruction) or the primary chat model on seed pairs.

    The prompts are those of the stages `label`, `polish` and `score`, of RECIPE if one is given. Options go before the
    recipe's `training:` section. A training that was interrupted goes on from its last checkpoint.
    """
    need_training()
    if not push_to_hub:
        forbid_downloads()
    own = {name: value for name, value in given.items() if value not in (None, "", ())}
    training, options, folder = _training(recipe, plugins_dirs, own, parse_settings(settings), out)

    from kun_builder.cli.progress import progress
    from kun_builder.status import Status
    from kun_training.request import make_job, read_seeds
    from kun_training.sft import train  # after the checks: it imports torch

    job = make_job(task, training, options, read_seeds(training, folder), output)
    status = Status()
    first = os.environ.get("RANK", "0") == "0"  # `accelerate launch` runs this once for each accelerator
    with progress(status, out if first else Output("quiet")):
        record = train(job, status)
    if not first:
        return
    _show(record, output, out)
    if push_to_hub:
        from kun_training.push import push_model

        out.note(f"published: {push_model(output, push_to_hub, private=private, token=token)}")


def _training(
    path: Path | None, plugins_dirs: tuple[Path, ...], own: dict[str, Any], settings: dict[str, Any], out: Output
) -> tuple[Training, StageOptions, Path]:
    """The training section with the command line's options on top, the stages' options, and where seeds are found."""
    from kun_builder.recipe.recipe import Plugins
    from kun_training.contracts import stage_options
    from kun_training.section import Training, training_of

    if path:
        recipe, registry = open_recipe(path, out, plugins_dirs=plugins_dirs)
        section, options, folder = training_of(recipe), stage_options(registry, recipe), path.parent
    else:
        registry = open_plugins(Plugins(dirs=plugins_dirs), out)
        section, options, folder = Training(), stage_options(registry), Path()
    return _overlaid(section, own, settings), options, folder


def _overlaid(section: Training, own: dict[str, Any], settings: dict[str, Any]) -> Training:
    """The section with the options of the command line, which also go before what the two models have of their own."""
    both = {name: own[name] for name in ("base", "preset") if name in own}
    if seeds := own.get("seeds"):
        own["seeds"] = tuple(str(Path(seed).absolute()) for seed in seeds)
    models = {name: getattr(section, name) for name in ("label", "chat")}
    update = {name: model.model_copy(update=both) for name, model in models.items()}
    update |= {name: m.model_copy(update={"settings": {**m.settings, **settings}}) for name, m in update.items()}
    return section.model_copy(update={**own, **update})


def _show(record: TrainingRecord, folder: Path, out: Output) -> None:
    """What was trained and how to serve it."""
    from dataclasses import asdict

    from kun_builder.prompt_contract import read_contract
    from kun_training.serving import ways_to_serve

    contract = read_contract(str(folder))
    assert contract is not None, "a finished model has a contract"
    ways = ways_to_serve(folder, contract, "labeler" if record.task == "label" else "chat")
    if out.format == "json":
        out.json({**asdict(record), "folder": str(folder), "serve": [asdict(way) for way in ways]})
        return
    if out.format == "quiet":
        out.text(str(folder))
        return
    out.text(f"{folder}: {record.pairs['train']} pairs, {record.steps} steps, {_held_out(record)}")
    for way in ways:
        out.text(f"\n{way.title}:")
        if way.command:
            out.text(f"  {way.command}")
        out.text(f"  models: {{{way.entry}}}")


def _held_out(record: TrainingRecord) -> str:
    if record.held_out_before is None or record.held_out_after is None:
        return "no pair was held out"
    return f"held-out loss {record.held_out_before:.3f} before, {record.held_out_after:.3f} after"
