"""The card of a trained model: what it is for, the prompts it must be asked in, how it was trained."""

from __future__ import annotations

import re
from pathlib import Path

from kun_builder.prompt_contract import PromptContract
from kun_builder.result.markdown import fence
from kun_training.job import TrainingRecord

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def write_card(folder: Path, record: TrainingRecord, contract: PromptContract) -> None:
    """Write README.md into a model's folder."""
    (folder / "README.md").write_text(render_card(record, contract), encoding="utf-8")


def render_card(record: TrainingRecord, contract: PromptContract) -> str:
    """The card's text; a fact that is missing raises an error instead of leaving a gap."""
    from huggingface_hub import ModelCardData
    from jinja2 import Environment, StrictUndefined

    base = _public(record.base)
    data = ModelCardData(
        base_model=base or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["kun-builder", "instruction-backtranslation", "label-model" if record.task == "label" else "chat-model"],
    )
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters["fence"] = fence
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=f"---\n{data.to_yaml()}\n---",
        title="Label model" if record.task == "label" else "Primary chat model",
        base=f"[{base}](https://huggingface.co/{base})" if base else "local weights",
        record=record,
        contract=contract,
    )


def _public(base: str) -> str:
    """The base's Hub id, if it has one: a path on someone's machine is nobody else's business."""
    from kun_builder.engines.weights import KNOWN

    if base in KNOWN:
        return KNOWN[base].repo
    return base if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists() else ""
