"""Supervised fine-tuning with TRL: from a job to a folder that is a model like any other.

Run again after an interruption, however it came, training goes on from the last whole checkpoint. Under
`accelerate launch` every process runs this; the first one writes.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from kun_builder.errors import TrainingError
from kun_builder.result.plots import to_png, to_svg
from kun_builder.status import Status
from kun_training.bases import TINY, load_model, load_tokenizer, make_tiny, quiet, with_chat_template
from kun_training.contracts import prompts_of, tags_of, verdicts_of
from kun_training.examples import LABEL, Encoded, Example, chat_examples, encode_all, label_examples
from kun_training.job import (
    HELD_OUT_FILE,
    TRAINED_FILE,
    TrainingJob,
    TrainingRecord,
    check_folder,
    new_record,
    read_record,
)
from kun_training.model_card import write_card
from kun_training.presets import lora_config, settings_for, sft_config
from kun_training.progress import loss_curve, losses, progress
from kun_training.seeds import Pair, write_pairs

if TYPE_CHECKING:
    from datasets import Dataset

_HELD_OUT_EXAMPLES = 200
"""Examples behind each held-out point of the loss curve; `evaluate` uses all pairs."""


def train(job: TrainingJob, status: Status | None = None) -> TrainingRecord:
    """Train `job` into its folder, or go on with it; returns the finished record.

    Raises TrainingError for what the user can mend.
    """
    status = status or Status()
    quiet()
    settings = settings_for(job.task, job.preset, job.settings)
    record = new_record(job, settings)
    with _first_process():
        if check_folder(job) and (finished := read_record(job.output)):
            status.say(f"nothing to do: {job.output} is trained, and nothing that it depends on has changed")
            return finished
        base = _prepare(job, record)
    tokenizer = load_tokenizer(base, job.revision)
    lora = lora_config(settings)
    precision = {} if lora else {"dtype": "float32"}  # what is trained needs 32 bits, what LoRA leaves alone does not
    model = load_model(base, job.revision, **(settings.get("model_init_kwargs") or precision))
    if job.contract.style == "chat":
        with_chat_template(tokenizer, model, resize=lora is None)
    data, held_out, too_long = _datasets(job, tokenizer, settings["max_length"])
    record = replace(record, examples=len(data), too_long=dict(too_long))
    trainer = _trainer(job, settings, model, tokenizer, data, held_out, lora, status)
    return _run(job, replace(record, base=base), trainer, tokenizer)


def _first_process() -> AbstractContextManager[None]:
    """Under `accelerate launch`, the first process goes first and the others wait for it."""
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.accelerator.is_available())
    context: AbstractContextManager[None] = state.main_process_first()
    return context


def _prepare(job: TrainingJob, record: TrainingRecord) -> str:
    """Lay out the folder; returns the base to load."""
    folder = job.output
    folder.mkdir(parents=True, exist_ok=True)
    record.write(folder)
    write_pairs(folder / TRAINED_FILE, job.seeds.train)
    write_pairs(folder / HELD_OUT_FILE, job.seeds.held_out)
    if job.base != TINY:
        return job.base
    tiny = folder / "base"
    if not (tiny / "tokenizer.json").is_file():
        prompts = [text for options in job.contract.prompts.values() for text in options.values()]
        make_tiny(job.seeds.train, prompts * 20, tiny)
    return str(tiny)


def _datasets(job: TrainingJob, tokenizer: Any, max_length: int | None) -> tuple[Dataset, Dataset | None, Counter[str]]:
    """Tokenized training and held-out examples, and how many training examples were too long, by task."""
    encoded, too_long = encode_all(tokenizer, _examples(job, job.seeds.train), max_length)
    if not encoded:
        raise TrainingError(
            f"no example fits into {max_length} tokens",
            hint="raise it with `--set max_length=...`, or shorten the seeds",
        )
    rest, _ = encode_all(tokenizer, _examples(job, job.seeds.held_out[:_HELD_OUT_EXAMPLES]), max_length)
    return _dataset(encoded), _dataset(rest[:_HELD_OUT_EXAMPLES]) if rest else None, too_long


def _examples(job: TrainingJob, pairs: Sequence[Pair]) -> Iterator[Example]:
    prompts = prompts_of(job.contract)
    if job.task == "label":
        return label_examples(pairs, prompts[LABEL])
    return chat_examples(pairs, prompts, verdicts_of(job.contract), job.tasks, tags_of(job.contract))


def _dataset(encoded: Sequence[Encoded]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list([tokens.row for tokens in encoded])


def _trainer(
    job: TrainingJob,
    settings: dict[str, Any],
    model: Any,
    tokenizer: Any,
    data: Dataset,
    held_out: Dataset | None,
    lora: Any,
    status: Status,
) -> Any:
    from transformers import PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    trainer = SFTTrainer(
        model=model,
        args=sft_config(settings, job.output / "checkpoints", evaluate=held_out is not None),
        train_dataset=data,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[progress(status, f"train {job.task}")],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _run(job: TrainingJob, record: TrainingRecord, trainer: Any, tokenizer: Any) -> TrainingRecord:
    """Train from the last checkpoint on, write the model, and close the record."""
    started = time.monotonic()
    last = last_checkpoint(job.output / "checkpoints")
    result = trainer.train(resume_from_checkpoint=str(last) if last else None)
    _save(job, record, trainer, tokenizer)
    points = losses(trainer.state.log_history)
    held_out = [point["loss"] for point in points if point["of"] == "held-out"]
    record = replace(
        record,
        steps=trainer.state.global_step,
        seconds=round(time.monotonic() - started, 1),
        loss=result.training_loss,
        held_out_before=held_out[0] if held_out else None,
        held_out_after=held_out[-1] if held_out else None,
        finished=True,
    )
    if trainer.is_world_process_zero():
        (job.output / "losses.json").write_bytes(orjson.dumps(points))
        (job.output / "loss.png").write_bytes(to_png(to_svg(loss_curve(points, f"Loss of the {job.task} model"))))
        job.contract.write(job.output)
        write_card(job.output, record, job.contract)
        record.write(job.output)
        clear_checkpoints(job.output / "checkpoints")
    trainer.accelerator.wait_for_everyone()
    return record


def _save(job: TrainingJob, record: TrainingRecord, trainer: Any, tokenizer: Any) -> None:
    """Write the model; adapters are merged into the base, since every server reads plain weights."""
    adapter = job.output / "adapter"
    lora = hasattr(trainer.accelerator.unwrap_model(trainer.model), "peft_config")
    trainer.save_model(str(adapter if lora else job.output))
    if not trainer.is_world_process_zero():
        return
    if lora:
        merge(record.base, job.revision, adapter, job.output)
    tokenizer.save_pretrained(job.output)
    _allow_sampling(job.output)


def merge(base: str, revision: str, adapter: Path, folder: Path) -> None:
    """Write `base` with `adapter` merged into it, in the precision of the base's own weights."""
    from peft import PeftModel

    model = load_model(base, revision, dtype="auto")
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.save_pretrained(folder)


def _allow_sampling(folder: Path) -> None:
    """Servers of transformers sample only where the model's own generation settings do; a request may say greedy."""
    path = folder / "generation_config.json"
    settings = orjson.loads(path.read_bytes()) if path.is_file() else {}
    path.write_bytes(orjson.dumps(settings | {"do_sample": True}, option=orjson.OPT_INDENT_2))


def last_checkpoint(folder: Path) -> Path | None:
    """The latest whole checkpoint; unfinished ones, left by a killed process, are removed.

    The trainer's state is the last file that it writes into a checkpoint.
    """
    whole = {}
    for path in _checkpoints(folder):
        try:
            whole[int(orjson.loads((path / "trainer_state.json").read_bytes())["global_step"])] = path
        except (OSError, ValueError, KeyError):
            shutil.rmtree(path, ignore_errors=True)
    return whole[max(whole)] if whole else None


def clear_checkpoints(folder: Path) -> None:
    """Remove what the trainer has put there: checkpoints and a card; and the folder, if it holds nothing else."""
    for path in _checkpoints(folder):
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        (folder / "README.md").unlink(missing_ok=True)
        folder.rmdir()  # fails where somebody keeps something of his own there


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
