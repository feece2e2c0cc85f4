"""Corpora without a plugin of their own: files (`generic`) and datasets of the Hub (`hub`).

{"title": "椒盐排条的做法", "text": "椒盐排条是上海本帮菜里的经典家常菜，外酥里嫩，咸香适口。"}

    splits:
      mine: {source: generic, path: "data/**/*.jsonl.zst", text: "{title}\\n{body}"}
      wiki: {source: hub, path: wikimedia/wikipedia, config: 20231101.zh, title: title}
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from kun_builder import Record, Source, hookimpl
from kun_builder.errors import SourceError, shown
from kun_builder.readers import PACKED, Documents, Records

kun_api = 1
SAMPLE = {"title": "椒盐排条的做法", "text": "椒盐排条是上海本帮菜里的经典家常菜，外酥里嫩，咸香适口。"}
_FILES = (
    *(f"*.{kind}{end}" for kind in ("jsonl", "ndjson", "json", "csv", "tsv", "txt", "md", "tar") for end in PACKED),
    *("*.parquet", "*.tgz", "*.tbz2", "*.txz", "*.zip"),
)
_FIELD = re.compile(r"\{([^{}]+)\}")


def parse(data: Any, *, text: str = "text", title: str = "") -> str | None:
    """The document's text. Documents of plain text files are texts already.

    text: a field, or a template of several such as `{question}\\n{answer}`; a missing field is an error, null is empty.
    title: a field that goes on a line before the text, where it has one.
    """
    if isinstance(data, str):
        return data
    body = _FIELD.sub(lambda field: _string(data[field[1]]), text) if _FIELD.search(text) else data[text]
    heading = _string(data.get(title)) if title else ""
    return f"{heading}\n{body}" if heading and isinstance(body, str) and body.strip() else body


def verbatim(*, text: str = "text", title: str = "") -> str:
    """The field that is the text, if neither a template nor a title adds to it."""
    return "" if title or _FIELD.search(text) else text


def _string(value: Any) -> str:
    if isinstance(value, bytes):
        raise ValueError(f"binary, not text: {value[:20]!r}")
    return "" if value is None else str(value)


def _fields(text: str, title: str) -> list[str]:
    """The fields that `parse` uses."""
    return [*(_FIELD.findall(text) or [text]), *([title] if title else [])]


def read(
    input: str, start: int, *, documents: Documents = "file", text: str = "text", title: str = ""
) -> Iterator[Record]:
    """Records of a file. documents: what a document of a plain text file is: all of it, a paragraph (between blank
    lines) or a line."""
    return Records(input, start, documents=documents, columns=_fields(text, title))


def find_hub(path: str) -> Iterable[str]:
    """The dataset itself: streaming knows its files. Raises SourceError for what cannot name a dataset."""
    if "://" in path:
        raise SourceError(
            f"{shown(path)} is an address, not a dataset of the Hub",
            hint="source `hub` takes `organization/name`, or a folder that `load_dataset` takes; "
            "`source: generic` takes addresses of files, as `hf://datasets/organization/name/*.parquet`",
        )
    return [path]


def read_hub(
    input: str,
    start: int,
    *,
    config: str = "",
    split: str = "train",
    revision: str = "main",
    text: str = "text",
    title: str = "",
) -> Iterator[Record]:
    """Rows of a dataset of the Hub, or of a folder that `load_dataset` takes, streaming. Only a `revision` that is a
    commit stays the same; a new commit behind a branch is not noticed."""
    from datasets import load_dataset

    try:
        rows = load_dataset(input, config or None, split=split, revision=revision, streaming=True)
        if known := [name for name in rows.column_names or () if name in _fields(text, title)]:
            rows = rows.select_columns(known)  # a date that Python does not know would end the run
        for index, row in enumerate(rows.skip(start), start):
            yield Record(index, row)
    except (OSError, ValueError) as error:
        hint = "check `path`, `config`, `split` and `revision`; where only the network failed, run again to go on"
        raise SourceError(f"dataset {input}: {error}", hint=hint) from error


@hookimpl
def kun_sources() -> list[Source]:
    """Files of the common formats, and the Hub. Title and licence only the user knows, who says them of a split."""
    return [
        Source(name="generic", parse=parse, read=read, verbatim=verbatim, files=_FILES, corpus=False, sample=SAMPLE),
        Source(name="hub", parse=parse, find=find_hub, read=read_hub, depth=2, corpus=False, sample=SAMPLE),
    ]
