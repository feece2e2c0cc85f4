"""From a recipe's `training:` section to a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kun_builder.errors import TrainingError
from kun_builder.readers import find_files
from kun_builder.readers.addresses import is_address
from kun_builder.recipe.parts import locate
from kun_training.bases import TINY
from kun_training.contracts import StageOptions, contract_for
from kun_training.job import TrainingJob
from kun_training.presets import Task
from kun_training.section import ChatTraining, Training
from kun_training.seeds import Seeds, Tag, load_seeds


def seed_files(training: Training, folder: Path) -> list[str]:
    """The seed files, patterns expanded. Raises TrainingError if there are none or a pattern fits nothing, SourceError
    for an address that does not."""
    files: list[str] = []
    for pattern in training.seeds:
        if is_address(pattern):
            files += find_files(pattern, ("*.json*", "*.parquet"), "seeds")
            continue
        found = Path(locate(pattern, folder))
        matches = [found] if found.is_file() else sorted(found.parent.glob(found.name))
        if not matches:
            raise TrainingError(f"there is no seed file {pattern}", hint=f"paths are relative to {folder} or to here")
        files += map(str, matches)
    if not files:
        raise TrainingError("no seeds are given", hint="give `--seeds FILE`, or `seeds:` under `training:`")
    return files


def read_seeds(training: Training, folder: Path) -> Seeds:
    """The seeds of a section, checked, split and selected."""
    return load_seeds(
        seed_files(training, folder),
        held_out=training.held_out,
        min_score=training.min_score,
        max_pairs=training.max_pairs,
    )


def make_job(task: Task, training: Training, options: StageOptions, seeds: Seeds, output: Path) -> TrainingJob:
    """The job of training the model for `task` into `output`, with the prompts in `options`."""
    own = training.label if task == "label" else training.chat
    preset = own.preset or training.preset
    base = own.base or training.base or (TINY if preset == TINY else "")
    if not base:
        raise TrainingError("no base model is given", hint="give `--base MODEL`, or `base:` under `training:`")
    mixed = any(pair.tag == "augmented" for pair in seeds.train)
    tags: dict[Tag, str] | None = (
        {"seed": training.tags.seed, "augmented": training.tags.augmented} if mixed and task == "chat" else None
    )
    tasks: Sequence[str] = own.tasks if isinstance(own, ChatTraining) else ()
    return TrainingJob(
        task=task,
        base=base,
        output=output,
        seeds=seeds,
        contract=contract_for(task, options, tags),
        preset=preset,
        settings={**training.settings, **own.settings},
        tasks=tasks,
    )
