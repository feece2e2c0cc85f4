"""Three dependent requests a row, of about 40, 12 and 200 tokens, as label, score and polish make them."""

from __future__ import annotations

from kun_builder import hookimpl
from kun_builder.declarations import ModelName
from kun_builder.types import (
    Generate,
    Row,
    RowStage,
    Stage,
)

HEAD = "你是一位严谨的中文编辑，只依据给出的文本作答，不添加文本之外的内容。" * 4
REQUESTS = (("ask", "text", 64), ("judge", "ask_text", 20), ("rewrite", "judge_text", 320))
"""Name, the column that it depends on besides the text, token limit, of which the simulator uses five eighths."""


def messages(name: str, text: str, before: str) -> tuple[dict[str, str], ...]:
    """The prompt of one request."""
    return {"role": "system", "content": HEAD + name}, {"role": "user", "content": f"{text}\n{before[:200]}"}


def _stage(name: str, before: str, tokens: int) -> RowStage:
    async def run(row: Row, generate: Generate, *, model: ModelName = "chat") -> Row:
        answer = await generate(model, messages(name, row["text"], row[before]), max_new_tokens=tokens)
        return {**row, f"{name}_text": answer.text}

    return RowStage(name=name, run=run, adds={f"{name}_text": "string"})


async def _pair(row: Row, generate: Generate) -> Row:
    return {**row, "instruction": row["ask_text"], "output": row["rewrite_text"]}


@hookimpl
def kun_stages() -> list[Stage]:
    """The three requests, and the pair that they make."""
    pair = RowStage(name="pair", run=_pair, adds={"instruction": "string", "output": "string"})
    return [*(_stage(*request) for request in REQUESTS), pair]
