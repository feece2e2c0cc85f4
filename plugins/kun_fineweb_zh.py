"""Chinese FineWeb-Edu (OpenCSG): educational web pages in Parquet, each with a score between 0 and 1.

{"text": "生理盐水是浓度为百分之零点九的氯化钠溶液……", "score": 0.8153, "source": "CCI3"}
"""

from typing import Annotated, Any

from pydantic import Field

from kun_builder import Drop, Source, hookimpl

kun_api = 1
SAMPLE = {"text": "生理盐水是浓度为百分之零点九的氯化钠溶液，渗透压与血浆相近。", "score": 0.8153, "source": "CCI3"}


def parse(row: dict[str, Any], *, min_score: Annotated[float, Field(ge=0, le=1)] = 0.0) -> str | None:
    """The page. min_score: pages below it are dropped; 0.8 is the 4 that the folder `4_5` begins with."""
    if min_score and row["score"] < min_score:
        raise Drop("low_score", row["score"])
    return row["text"]  # type: ignore[no-any-return]


@hookimpl
def kun_sources() -> list[Source]:
    """Chinese FineWeb-Edu, all editions."""
    return [
        Source(
            name="fineweb-zh",
            parse=parse,
            files=("*.parquet",),
            columns=("text", "score"),
            depth=2,  # V2.1 has a folder for each band of scores
            license="OpenCSG Community License",  # so its text says; `apache-2.0` in the metadata alone is not enough
            homepage="https://huggingface.co/datasets/opencsg/Fineweb-Edu-Chinese-V2.1",
            citation="Yu et al.: OpenCSG Chinese Corpus: A Series of High-quality Chinese Datasets for LLM Training. "
            "arXiv:2501.08197, 2025.",
            sample=SAMPLE,
        )
    ]
