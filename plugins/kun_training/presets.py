"""Training presets, and the way from a preset and the user's settings to TRL's `SFTConfig` and PEFT's `LoraConfig`.

kun    all weights, learning rate 1e-5, 6 epochs for the label model, 4 for the chat model (arXiv 2401.06477)
lora   low-rank adapters on all linear layers, merged into the base at the end
tiny   a small random model on a CPU, for tests and trials
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from kun_builder.errors import TrainingError, suggest

Task = Literal["label", "chat"]

LORA = "lora."
"""Settings that begin so are LoRA's own: `lora.r`."""

_COMMON: dict[str, Any] = {
    "max_length": 2048,
    "activation_checkpointing": True,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "logging_steps": 0.02,
    "eval_steps": 0.1,
    "save_steps": 0.1,
    "save_total_limit": 2,
    "ddp_find_unused_parameters": False,
    "eval_on_start": True,
    "seed": 0,
}


@dataclass(frozen=True)
class Preset:
    """Epochs by task, settings of `SFTConfig` that differ from the common ones, and LoRA's, if it uses LoRA."""

    epochs: Mapping[Task, float]
    settings: Mapping[str, Any]
    lora: Mapping[str, Any] = field(default_factory=dict)


PRESETS: Mapping[str, Preset] = {
    "kun": Preset(
        {"label": 6, "chat": 4},
        {"learning_rate": 1e-5, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8},
    ),
    "lora": Preset(
        {"label": 3, "chat": 2},
        {"learning_rate": 2e-4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8},
        {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"},
    ),
    "tiny": Preset(
        {"label": 10, "chat": 10},
        {
            "learning_rate": 2e-3,
            "max_length": 1024,
            "per_device_train_batch_size": 8,
            "activation_checkpointing": False,
            "bf16": False,
        },
    ),
}

_OURS = {
    "output_dir": "`--output`",
    "push_to_hub": "`--push-to-hub`",
    "hub_model_id": "`--push-to-hub`",
    "resume_from_checkpoint": "running the same command again",
    "dataset_kwargs": "the seeds",
    "dataset_text_field": "the seeds",
    "completion_only_loss": "the method: the loss is on the completion",
    "assistant_only_loss": "the method: the loss is on the completion",
    "chat_template_path": "the base model",
    "remove_unused_columns": "the method",
}
"""Fields of `SFTConfig` that are decided elsewhere, and where."""


def settings_for(task: Task, preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's settings with the user's on top. Raises TrainingError for an unknown preset or setting."""
    from trl.trainer.sft_config import SFTConfig

    if preset not in PRESETS:
        raise TrainingError(f"unknown preset `{preset}`{suggest(preset, PRESETS)}")
    known = {item.name for item in fields(SFTConfig)}
    for name in settings:
        if name in _OURS:
            raise TrainingError(f"`{name}` cannot be set: it is decided by {_OURS[name]}")
        if name not in known and not name.startswith(LORA):
            raise TrainingError(f"unknown training setting `{name}`{suggest(name, known)}")
    chosen = PRESETS[preset]
    lora = {f"{LORA}{name}": value for name, value in chosen.lora.items()}
    return {**_COMMON, "num_train_epochs": chosen.epochs[task], **chosen.settings, **lora, **settings}


def sft_config(settings: Mapping[str, Any], checkpoints: Path, *, evaluate: bool) -> Any:
    """`SFTConfig` of complete settings. Without an accelerator, precision and memory pinning fit the CPU."""
    import torch
    from trl.trainer.sft_config import SFTConfig

    own = {name: value for name, value in settings.items() if not name.startswith(LORA)}
    if not torch.accelerator.is_available():
        own = {"bf16": False, "dataloader_pin_memory": False, **own}
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        if own.get(name) is False:  # what YAML makes of `no`
            own[name] = "no"
    if not evaluate:
        own |= {"eval_strategy": "no", "eval_on_start": False}
    try:
        return SFTConfig(
            **{"eval_strategy": "steps", "report_to": "none", "disable_tqdm": True, **own},
            output_dir=str(checkpoints),
            dataset_kwargs=None if own.get("packing") else {"skip_prepare_dataset": True},
        )
    except (ValueError, TypeError) as error:
        raise TrainingError(f"these training settings do not go together: {error}") from error


def lora_config(settings: Mapping[str, Any]) -> Any:
    """`LoraConfig` of complete settings, or None where they say nothing of LoRA."""
    own = {name.removeprefix(LORA): value for name, value in settings.items() if name.startswith(LORA)}
    if not own:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(task_type="CAUSAL_LM", **own)
    except (ValueError, TypeError) as error:
        raise TrainingError(f"these settings of LoRA do not go together: {error}") from error
