"""kun-builder: instruction-tuning datasets from raw text, by instruction back-translation with answer polishment.

These are the names that a plugin needs; everything else is the engine's own business.
"""

from kun_builder.declarations import (
    ColumnName,
    FileName,
    LikelihoodModel,
    ModelName,
    Preset,
    Quantity,
    Section,
    TokenizerName,
)
from kun_builder.drops import drop_rows
from kun_builder.errors import Drop, KunError
from kun_builder.hookspecs import hookimpl
from kun_builder.prompts import Prompt
from kun_builder.types import (
    API_VERSION,
    BatchStage,
    Completion,
    DatasetStage,
    Endpoint,
    Engine,
    Generate,
    ModelInfo,
    ModelSpec,
    Record,
    Request,
    Row,
    RowStage,
    Source,
)
from kun_builder.workspace import Workspace

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "BatchStage",
    "ColumnName",
    "Completion",
    "DatasetStage",
    "Drop",
    "Endpoint",
    "Engine",
    "FileName",
    "Generate",
    "KunError",
    "LikelihoodModel",
    "ModelInfo",
    "ModelName",
    "ModelSpec",
    "Preset",
    "Prompt",
    "Quantity",
    "Record",
    "Request",
    "Row",
    "RowStage",
    "Section",
    "Source",
    "TokenizerName",
    "Workspace",
    "drop_rows",
    "hookimpl",
]
