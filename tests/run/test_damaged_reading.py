"""Damaged shards and manifests of reading: a full disk, a broken copy, a machine without power, a bad disk."""

from __future__ import annotations

import json
import random

import pytest

from kun_builder import Source
from kun_builder.recipe.parts import SplitSpec
from kun_builder.recipe.registry import Entry, Plugin
from kun_builder.run.ingest import ReadSettings, ingest
from kun_builder.run.source_shards import load_rows
from kun_builder.status import Status


def read(folder):
    """Rows of the corpus beside `folder`, in shards of ten, and the places of these."""
    entry = Entry(Source(name="plain", parse=lambda row: row["text"]), Plugin("plain", "a-package"))
    spec = SplitSpec("plain", (str(folder.parent / "corpus.jsonl"),), {})
    settings = ReadSettings(folder=folder, shard_rows=10, limit=None, seed=0, status=Status())
    shards = ingest({"wiki": (spec, entry)}, settings)["wiki"].shards
    return [row for shard in shards for row in load_rows(shard.path).to_pylist()], [shard.path for shard in shards]


@pytest.mark.parametrize("manifest", [b"null", b"{}", b"{", b""])
def test_what_is_damaged_is_read_again(tmp_path, manifest):
    """Half a shard, or a manifest that is none, does not count, and what is read then is the same."""
    (tmp_path / "corpus.jsonl").write_text(
        "".join(f"{json.dumps({'text': f'text {n}'})}\n" for n in range(35)), "utf-8"
    )
    rows, places = read(tmp_path / "out")
    places[2].write_bytes(places[2].read_bytes()[:-100])
    assert read(tmp_path / "out") == (rows, places)
    (tmp_path / "out/wiki.json").write_bytes(manifest)
    assert read(tmp_path / "out") == (rows, places)


def test_any_damage_of_any_file_is_noticed(tmp_path):
    """Wherever a byte is another, or zeros stand, the rows are those of the input."""
    (tmp_path / "corpus.jsonl").write_text(
        "".join(f"{json.dumps({'text': f'文 {n}' if n % 7 else ''})}\n" for n in range(35)), "utf-8"
    )
    rows, places = read(tmp_path / "out")
    files = {path: path.read_bytes() for path in (*places, tmp_path / "out/wiki.json")}
    draw = random.Random(1)
    for _ in range(150):
        path, whole = draw.choice([*files.items()])
        at, length = draw.randrange(len(whole)), draw.choice([1, 1, 40])
        damaged = bytes([whole[at] ^ 1 << draw.randrange(8)]) if length == 1 else bytes(length)
        path.write_bytes((whole[:at] + damaged + whole[at + length :])[: len(whole)])
        assert read(tmp_path / "out") == (rows, places), (path, at, damaged)
