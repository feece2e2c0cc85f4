"""WuDao 2.0, base edition: JSON arrays of documents, sorted by `dataType`, line ends flattened to spaces.

{"id": 0, "dataType": "百科", "title": "战国无双3", "content": "《战国无双3》（）是由光荣和ω-force开发的……"}
"""

from typing import Any

from kun_builder import Source, hookimpl
from kun_builder.readers import PACKED

kun_api = 1
SAMPLE = {
    "id": 0,
    "uniqueKey": "520d15ec106adfde0a80e1c372e66fd2",
    "titleUkey": "f60f8087c7e6b443144c59ea93618ff9",
    "dataType": "百科",
    "title": "战国无双3",
    "content": "《战国无双3》（）是由光荣和ω-force开发的战国无双系列的正统第三续作。",
}


def parse(row: dict[str, Any]) -> str | None:
    """Title and content; a title that the content begins with stands there once, on its own line if it stood apart."""
    title, content = row.get("title"), row["content"]
    if not isinstance(title, str) or not isinstance(content, str) or not title.strip() or not content.strip():
        return content  # type: ignore[no-any-return]
    body = content.removeprefix(f"{title} ")
    begins_with_title = body == content and title in content[: len(title) + 2]  # 《title》 counts
    return content if begins_with_title else f"{title}\n{body}"


@hookimpl
def kun_sources() -> list[Source]:
    """WuDao 2.0."""
    return [
        Source(
            name="wudao",
            parse=parse,
            files=tuple(f"*.json{end}" for end in PACKED),
            columns=("title", "content"),
            license="WuDaoCorpora data usage agreement (not an open licence)",
            homepage="https://data.baai.ac.cn/details/WuDaoCorporaText",
            citation="Yuan et al.: WuDaoCorpora: A super large-scale Chinese corpora for pre-training language models. "
            "AI Open 2, 2021.",
            sample=SAMPLE,
        )
    ]
