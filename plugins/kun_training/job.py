"""What a training is made of, and the record of it that lies in the model's folder.

DIR/kun_training.json    base, preset, settings, what became of the seeds, figures; `finished` at the very end
DIR/kun_prompt.json      the prompt contract
DIR/seeds/               the pairs trained on and those held out; not published
DIR/checkpoints/         while it runs
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from kun_builder.errors import TrainingError
from kun_builder.files import replace_file
from kun_builder.prompt_contract import PromptContract
from kun_training.examples import CHAT_TASKS
from kun_training.presets import Task
from kun_training.seeds import Seeds

RECORD_FILE = "kun_training.json"
HELD_OUT_FILE, TRAINED_FILE = "seeds/held_out.jsonl", "seeds/train.jsonl"
UNPUBLISHED = ("seeds", "checkpoints")
"""Folders that are not part of the model: seeds have licences of their own."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One model to train. `contract` holds the prompts of the stages that it will serve.

    settings: fields of TRL's `SFTConfig`, and `lora.*` for PEFT's `LoraConfig`, on top of the preset's.
    tasks: what a chat model learns, of `CHAT_TASKS`.
    """

    task: Task
    base: str
    output: Path
    seeds: Seeds
    contract: PromptContract
    preset: str = "lora"
    revision: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    tasks: Sequence[str] = CHAT_TASKS

    @property
    def signature(self) -> str:
        """Digest of all that decides the result."""
        sha = hashlib.sha256(
            orjson.dumps(
                {
                    "model": [self.task, self.base, self.revision, self.preset, dict(self.settings)],
                    "tasks": list(self.tasks),
                    "prompts": [self.contract.style, self.contract.prompts],
                },
                option=orjson.OPT_SORT_KEYS,
                default=str,
            )
        )
        for pair in (*self.seeds.train, *self.seeds.held_out):
            sha.update(f"{pair.digest}{pair.tag}{pair.text}".encode("utf-8", "surrogatepass"))
        return sha.hexdigest()[:20]


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What was trained, from what, and how it went. Losses are nats per token of the completion."""

    task: Task
    base: str
    revision: str
    preset: str
    signature: str
    settings: Mapping[str, Any]
    tasks: Sequence[str]
    pairs: Mapping[str, int]
    """`read`, `train`, `held_out`, and of those trained on, `augmented`."""
    refused: Mapping[str, int]
    examples: int = 0
    too_long: Mapping[str, int] = field(default_factory=dict)
    """Examples left out, by task: they do not fit into `max_length` tokens."""
    steps: int = 0
    seconds: float = 0.0
    """Of the process that finished it."""
    loss: float | None = None
    held_out_before: float | None = None
    held_out_after: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    finished: bool = False

    def write(self, folder: Path) -> None:
        """Write into a model's folder, atomically."""
        replace_file(folder / RECORD_FILE, orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))


def new_record(job: TrainingJob, settings: Mapping[str, Any]) -> TrainingRecord:
    """The record of a training that begins."""
    import importlib.metadata

    train = job.seeds.train
    return TrainingRecord(
        task=job.task,
        base=job.base,
        revision=job.revision,
        preset=job.preset,
        signature=job.signature,
        settings=settings,
        tasks=("label",) if job.task == "label" else tuple(job.tasks),
        pairs={
            "read": job.seeds.read,
            "train": len(train),
            "augmented": sum(pair.tag == "augmented" for pair in train),
            "held_out": len(job.seeds.held_out),
        },
        refused=job.seeds.reasons,
        versions={name: importlib.metadata.version(name) for name in ("kun-builder", "trl", "transformers", "torch")},
    )


def read_record(folder: Path) -> TrainingRecord | None:
    """The record in a model's folder, if there is one. Raises TrainingError if it cannot be understood."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        return TrainingRecord(**orjson.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise TrainingError(
            f"{path} is not a record of this version: {error}", hint="train into a new folder"
        ) from error


def check_folder(job: TrainingJob) -> bool:
    """Whether the folder holds the finished result of exactly this job.

    Raises TrainingError if it holds anything else than an earlier part of it.
    """
    record = read_record(job.output)
    if record is None:
        if job.output.is_dir() and any(job.output.iterdir()):
            raise TrainingError(f"{job.output} is not empty, and no training of ours", hint="choose a new --output")
        return False
    if record.signature != job.signature:
        raise TrainingError(
            f"{job.output} holds a training with other seeds, prompts or settings",
            hint="give this one another --output, or delete the folder",
        )
    return record.finished
