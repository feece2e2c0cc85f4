"""generic and hub: files of the common formats, and datasets as `load_dataset` streams them."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from kun_builder.errors import RecipeError, SourceError
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.run.ingest import ReadSettings, ingest
from kun_builder.run.source_shards import load_rows
from kun_builder.status import Status
from kun_builder.testing import check_source

ROWS = [{"title": f"标题{number}", "text": f"正文{number}", "question": f"问{number}"} for number in range(9)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def _parquet():
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


def _tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("x.jsonl")
        info.size = len(LINES)
        archive.addfile(info, io.BytesIO(LINES))
    return buffer.getvalue()


def _zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.jsonl", LINES)
    return buffer.getvalue()


FILES = {
    "x.jsonl": LINES,
    "x.json": json.dumps(ROWS).encode(),
    "x.jsonl.gz": gzip.compress(LINES),
    "x.jsonl.zst": zstandard.compress(LINES),
    "x.tgz": _tar(),
    "x.zip": _zip(),
    "x.parquet": _parquet(),
}


def _read(tmp_path, **split):
    """Rows of one split as a recipe describes it."""
    (tmp_path / "recipe.yaml").write_text(
        json.dumps({"models": {"chat": None}, "splits": {"mine": split}, "stages": ["normalize"]}), encoding="utf-8"
    )
    registry = load_plugins()
    spec = load_recipe(tmp_path / "recipe.yaml", registry).splits["mine"]
    mine = {"mine": (spec, registry.sources[spec.source])}
    result = ingest(mine, ReadSettings(folder=tmp_path / "out", shard_rows=4, status=Status()))["mine"]
    return [row for shard in result.shards for row in load_rows(shard.path).to_pylist()]


@pytest.mark.parametrize("name", FILES)
def test_every_format_from_a_folder(tmp_path, name):
    """`generic` finds files of every format in a folder and reads them alike."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(FILES[name])
    (tmp_path / "data" / "README").write_text("not data")
    rows = _read(tmp_path, source="generic", path="data")
    assert [row["text"] for row in rows] == [row["text"] for row in ROWS]
    assert [row["id"] for row in rows] == [f"mine/{name}:{number}" for number in range(9)]


def test_the_kit_finds_nothing_wrong(tmp_path):
    """`generic` passes what the kit asks of anyone's plugin, whatever the container."""
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    assert len(check_source(load_plugins().sources["generic"].value, tmp_path, title="title")) == 9 * len(FILES)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"text": "question"}, "问0"),
        ({"title": "title"}, "标题0\n正文0"),
        ({"title": "nothing"}, "正文0"),
        ({"text": "{question}？\n{text}", "title": "title"}, "标题0\n问0？\n正文0"),
    ],
)
def test_fields_and_templates(tmp_path, options, expected):
    """`text` is a field or a template of fields; `title` goes on a line before it."""
    (tmp_path / "x.jsonl").write_bytes(LINES)
    assert _read(tmp_path, source="generic", path="x.jsonl", **options)[0]["text"] == expected


def test_a_template_with_nothing_in_it_is_no_text(tmp_path):
    """A null field of a template is empty, a missing one an error of its row; braces in a value stay."""
    lines = ['{"a": null}', '{"b": 1}', '{"a": "{b}"}', '{"a": 5}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    rows = _read(tmp_path, source="generic", path="x.jsonl", text="{a}")
    assert [row["_reason"] for row in rows] == ["no_text", "missing_field", None, None]
    assert [row["text"] for row in rows[2:]] == ["{b}", "5"]


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("file", ["这是第一段\n这是第二行\n\n这是第二段"]),
        ("paragraph", ["这是第一段\n这是第二行", "这是第二段"]),
        ("line", ["这是第一段", "这是第二行", "这是第二段"]),
    ],
)
def test_documents_of_a_text_file(tmp_path, documents, expected):
    """A text file is one document, or is cut in paragraphs or lines."""
    (tmp_path / "x.txt").write_text("这是第一段\r\n这是第二行\r\n\r\n这是第二段\r\n", encoding="gb18030", newline="")
    rows = _read(tmp_path, source="generic", path="x.txt", documents=documents)
    assert [row["text"] for row in rows] == expected


def test_a_wrong_option_is_told_before_anything_runs(tmp_path):
    """An option outside its values is an error of the recipe."""
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(RecipeError, match="documents"):
        _read(tmp_path, source="generic", path="x.txt", documents="sentence")


# --- hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A dataset folder with two configs and two splits, as `load_dataset` takes it from the Hub or from disk."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_bytes(LINES)
    (folder / "test.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    (folder / "other.jsonl").write_bytes(LINES)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  default: true\n  data_files:\n"
        "  - {split: train, path: train.jsonl}\n  - {split: test, path: test.jsonl}\n"
        "- config_name: zh\n  data_files: other.jsonl\n---\n"
    )
    return folder


def test_a_dataset_streams(tmp_path, dataset):
    """Rows of a Hub dataset are numbered from 0 and named by the dataset; configs and splits are options."""
    rows = _read(tmp_path, source="hub", path="org/name", title="title")
    assert [row["text"] for row in rows] == [f"{row['title']}\n{row['text']}" for row in ROWS]
    assert [row["id"] for row in rows] == [f"mine/org/name:{number}" for number in range(9)]
    assert len(_read(tmp_path, source="hub", path="org/name", split="test")) == 1
    assert _read(tmp_path, source="hub", path="org/name", config="zh", text="question")[8]["text"] == "问8"


@pytest.mark.parametrize("source", ["generic", "hub"])
def test_a_date_that_nobody_asked_for_costs_nothing(tmp_path, source):
    """Of Parquet, the columns in `text` and `title` are read, from files or a dataset; others may hold anything."""
    far = pa.array([10**18], pa.int64()).cast(pa.timestamp("ms"))
    (tmp_path / "folder").mkdir()
    pq.write_table(pa.table({"a": ["正"], "b": ["题"], "at": far}), tmp_path / "folder/train.parquet")
    (row,) = _read(tmp_path, source=source, path=str(tmp_path / "folder"), text="{a}文", title="b")
    assert row["text"] == "题\n正文"


@pytest.mark.parametrize("name", ["x.jsonl.bz2", "x.jsonl.xz", "x.csv", "x.tsv.gz"])
def test_tables_and_every_compression_from_a_folder(tmp_path, name):
    """A folder's tables, and files in every compression that Python knows, are found by their names."""
    table = "text\tn\n" + "".join(f"{row['text']}\t1\n" for row in ROWS)
    packed = {
        "x.jsonl.bz2": lambda: bz2.compress(LINES),
        "x.jsonl.xz": lambda: lzma.compress(LINES),
        "x.csv": lambda: table.replace("\t", ",").encode("gb18030"),
        "x.tsv.gz": lambda: gzip.compress(table.encode()),
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(packed[name]())
    assert [row["text"] for row in _read(tmp_path, source="generic", path="data")] == [row["text"] for row in ROWS]


def test_a_dataset_starts_anywhere(dataset):
    """Rows from `start` on have the numbers that they have from the beginning."""
    source = load_plugins().sources["hub"].value
    whole = list(source.read(str(dataset), 0))
    assert list(source.read(str(dataset), 4)) == whole[4:]
    assert [record.index for record in whole] == list(range(9))


@pytest.mark.parametrize("options", [{"split": "dev"}, {"config": "en"}, {"path": "org/nothing"}])
def test_a_dataset_that_is_not_there_is_told(tmp_path, dataset, monkeypatch, options):
    """A wrong name, config or split is one error that names the dataset, not a failure of the plugin."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=f"dataset .*{options.get('path', 'org/name')}"):
        _read(tmp_path, **{"source": "hub", "path": "org/name", **options})
