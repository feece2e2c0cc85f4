"""The section `training:` of a recipe: what its own models are trained from.

```yaml
training:
  seeds: [seeds/*.jsonl]
  base: Qwen/Qwen2.5-7B
  preset: lora
  label: {settings: {num_train_epochs: 6}}
  chat: {base: Qwen/Qwen2.5-7B-Instruct}
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kun_builder import Section, hookimpl

if TYPE_CHECKING:
    from kun_builder.recipe.recipe import Recipe

kun_api = 1

PresetName = Literal["kun", "lora", "tiny"]
ChatTask = Literal["answer", "polish", "score"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelTraining(_Frozen):
    """What one of the two models has of its own."""

    base: str = Field(default="", description="Model to start from; by default that of `training`.")
    preset: PresetName | None = Field(default=None, description="Preset; by default that of `training`.")
    settings: dict[str, Any] = Field(default={}, description="Fields of TRL's SFTConfig; `lora.*` for PEFT's.")


class ChatTraining(ModelTraining):
    """The primary chat model."""

    tasks: tuple[ChatTask, ...] = Field(default=("answer", "polish", "score"), description="What it learns.")


class Select(_Frozen):
    """Which rows of a build the next round of `kun-build align` is trained on, besides the seeds."""

    min_score: float = Field(default=0.5, ge=0, le=1, description="Lowest score.")
    max_pairs: int | None = Field(default=None, ge=1, description="At most so many rows, those of the best score.")


class Tags(_Frozen):
    """System messages that tell the chat model what it learns to answer from: people's answers, or polished texts
    (Humpback, arXiv 2308.06259). Used once there are polished texts; ask it with that of the seeds."""

    seed: str = Field(default="以助手的口吻回答。", description="Of answers from the seeds.")
    augmented: str = Field(default="以网上资料的口吻回答。", description="Of answers from a build.")


class Training(_Frozen):
    """Training of the label model and the primary chat model."""

    seeds: tuple[str, ...] = Field(default=(), description="Seed files (JSONL, JSON, Parquet), relative to the recipe.")
    base: str = Field(default="", description="Model to start from: a Hub id, a folder, a GGUF file, or `tiny`.")
    preset: PresetName = Field(default="lora", description="Preset of both models.")
    settings: dict[str, Any] = Field(default={}, description="Fields of TRL's SFTConfig for both models.")
    held_out: float = Field(default=0.1, ge=0, lt=1, description="Share of the seeds that is never trained on.")
    min_score: float | None = Field(default=None, description="Seeds with a lower `score` are left out.")
    max_pairs: int | None = Field(default=None, ge=1, description="At most so many seeds, those of the best score.")
    label: ModelTraining = ModelTraining()
    chat: ChatTraining = ChatTraining()
    select: Select = Select()
    tags: Tags = Tags()


def training_of(recipe: Recipe) -> Training:
    """The section of a recipe; its defaults, where the recipe has none or leaves this plugin out."""
    found = recipe.sections.get("training")
    return found if isinstance(found, Training) else Training()


@hookimpl
def kun_sections() -> list[Section]:
    """`training:`, which `train`, `align`, `evaluate` and `calibrate` read."""
    return [Section(name="training", model=Training)]
