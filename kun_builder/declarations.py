"""What plugins declare so that the engine need not know it.

What the name in an option means, what their numbers mean, which sections of recipes are theirs, and which stages they
put together under a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Role:
    """Marks an option whose string is a name that the engine resolves before the run starts."""

    kind: Literal["model", "tokenizer", "file", "column", "verdicts"]
    needs: Literal["", "prompt_logprobs"] = ""
    """What the model that is named must be able to do: a field of `ModelInfo`."""


ModelName = Annotated[str, Role("model")]
"""An option that names one of the recipe's `models:`."""

LikelihoodModel = Annotated[str, Role("model", needs="prompt_logprobs")]
"""A `ModelName` whose model must say how likely a text is (`prompt_logprobs` of `Request`). One that cannot is refused
before the first row is read."""

TokenizerName = Annotated[str, Role("tokenizer")]
"""An option that names a tokenizer: a Hub id, a path, `characters`, or `auto`, which becomes the tokenizer of
the first model that a later stage of the recipe asks."""

FileName = Annotated[str, Role("file")]
"""An option that may name a file, as a path from where kun-build runs. When what is in the file changes, the results
that depend on it are made again."""

VerdictsFolder = Annotated[str, Role("verdicts")]
"""An option that names a folder of people's verdicts. An empty one means the stage's own folder in the run folder."""

ColumnName = Annotated[str, Role("column")]
"""An option that names a column of text: `text`, or one of strings that an earlier stage of the recipe adds, such as
`instruction`. A DatasetStage sees it beside its `columns`."""


NUMBERS = ("double", "float", "int32", "int64")
"""Arrow types of columns that count as numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What a column of numbers that a stage adds means. Cards, report pages, pictures and calibration follow from it.

    title: what is measured, in a few words: `length of the text`. By default, the name of the column.
    unit: what is counted: `tokens`. Empty for a share, a probability or a plain number.
    better: whether rows with a `higher` or with a `lower` value are the better ones; empty where neither is.
    least, most: the options of the stage that say where it cuts: it drops rows whose value is below that of the option
        `least`, and rows whose value is above that of the option `most`. Empty where no option sets such a limit.
    """

    title: str = ""
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    least: str = ""
    most: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of recipes that belongs to a plugin, for a command of its package: `training:` is that of `train`.

    model: the pydantic model of what stands in it. Every field has a default, since a recipe may leave the section out,
        and unknown keys are refused (`extra="forbid"`), so that a misspelt one is found before anything runs.

    The engine checks the section when it reads a recipe, with the line of each fault, and does nothing else with it:
    `Recipe.sections[name]` is the model's instance. No result of a build depends on it.
    """

    name: str
    model: type[BaseModel]
    version: str = "1"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Stages under one name: `preset: NAME` in a recipe stands for them, where the recipe has no `stages:` of its own.

    stages: in order, as a recipe has them: the name of a stage, or one name with its options,
        `{"length": {"max_tokens": 512}}`. They may be other plugins': they are checked when a recipe names the preset.
    title: what comes of them, in one sentence, for `kun-build plugins NAME`.
    """

    name: str
    stages: tuple[str | Mapping[str, Mapping[str, Any]], ...]
    title: str = ""
    version: str = "1"
