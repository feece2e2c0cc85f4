"""SkyPile-150B: Chinese web pages, one JSON line each.

{"text": "颈阔肌是使嘴向下伸张的肌肉。它是一块表面肌肉，也就是说，它不直接连在骨骼上……"}
"""

from typing import Any

from kun_builder import Source, hookimpl
from kun_builder.readers import PACKED

kun_api = 1
SAMPLE = {"text": "颈阔肌是使嘴向下伸张的肌肉。它是一块表面肌肉，也就是说，它不直接连在骨骼上，与胸锁乳突肌重叠。"}


def parse(row: dict[str, Any]) -> str | None:
    """The page."""
    return row["text"]  # type: ignore[no-any-return]


@hookimpl
def kun_sources() -> list[Source]:
    """SkyPile-150B."""
    return [
        Source(
            name="skypile",
            parse=parse,
            verbatim=lambda: "text",
            files=tuple(f"*.jsonl{end}" for end in PACKED),
            columns=("text",),
            license="Skywork Community License",
            homepage="https://huggingface.co/datasets/Skywork/SkyPile-150B",
            citation="Wei et al.: Skywork: A More Open Bilingual Foundation Model. arXiv:2310.19341, 2023.",
            sample=SAMPLE,
        )
    ]
