"""Put the documents of `documents.yaml` into the containers in which the three corpora are distributed.

Run it after a change of the documents: `python demo/make_data.py`. The same documents always give the same files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


def main(target: Path = HERE / "data") -> None:
    """Write all files below `target`."""
    corpora = yaml.safe_load((HERE / "documents.yaml").read_text(encoding="utf-8"))
    for corpus, documents in corpora.items():
        files: dict[str, list[dict[str, Any]]] = {}
        for document in documents:
            files.setdefault(document["file"], []).append(document)
        folder, write = CORPORA[corpus]
        for name, content in files.items():
            path = target / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write(path, content))


def wudao(path: Path, documents: list[dict[str, Any]]) -> bytes:
    """An array with a record per line; in the second file {"RECORDS": [...]} on a single line."""
    records = [
        {
            "id": number,
            "uniqueKey": _digest(f"{path.name}/{number}", 32),
            "titleUkey": _digest(document["title"], 32),
            "dataType": document["category"],
            "title": document["title"],
            "content": document["text"],
        }
        for number, document in enumerate(documents)
    ]
    if path.stem.endswith("2"):
        return _json({"RECORDS": records})
    return b"[\n" + b",\n".join(map(_json, records)) + b"\n]\n"


def wanjuan(path: Path, documents: list[dict[str, Any]]) -> bytes:
    """JSON lines in tar in gzip."""
    lines = b"".join(_line(_wanjuan_record(path, number, each), each) for number, each in enumerate(documents))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo(path.name.removesuffix(".tar.gz"))
        member.size = len(lines)
        tar.addfile(member, io.BytesIO(lines))
    return gzip.compress(archive.getvalue(), mtime=0)


def skypile(path: Path, documents: list[dict[str, Any]]) -> bytes:
    """JSON lines with nothing but a text."""
    return b"".join(_line({"text": document["text"]}, document) for document in documents)


def _wanjuan_record(path: Path, number: int, document: Mapping[str, Any]) -> dict[str, Any]:
    record_id = "Bk" + _digest(f"{path.parent.name}/{path.name}/{number}", 20)
    return (
        {"id": record_id, **document["exam"]} if "exam" in document else {"id": record_id, "content": document["text"]}
    )


def _line(record: Mapping[str, Any], document: Mapping[str, Any]) -> bytes:
    """One line of JSON; cut off in the middle if the document is `broken`, in its own `encoding` if it has one."""
    line = _json(record).decode().encode(document.get("encoding", "utf-8"))
    return (line[: len(line) // 2] if document.get("broken") else line) + b"\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


Writer = Callable[[Path, list[dict[str, Any]]], bytes]
CORPORA: dict[str, tuple[str, Writer]] = {
    "wudao": ("wudao", wudao),
    "wanjuan": ("wanjuan/nlp/CN", wanjuan),
    "skypile": ("skypile", skypile),
}

if __name__ == "__main__":
    main()
