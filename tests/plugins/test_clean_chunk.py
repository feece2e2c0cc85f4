"""Stage `chunk`: long documents in pieces."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pyarrow as pa
import pytest
from byte_tokenizers import byte_level
from click.testing import CliRunner
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from kun_clean import chunk, length
from tokenizers import Tokenizer, models, pre_tokenizers

from kun_builder import KunError
from kun_builder.cli.main import cli
from kun_builder.recipe.plugins import load_plugins
from kun_builder.recipe.recipe import load_recipe
from kun_builder.result.explain import explain
from kun_builder.result.finished import open_run
from kun_builder.run.runner import build

SENTENCES = (
    "石桥靠拱来承重。",
    "Bridges carry loads. ",
    "“为什么？”他问道。",
    "# 桥\n",
    "```\n# code\n```\n",
    "\n\n",
    "第一章 桥\n",
)
TEXTS = st.lists(st.one_of(st.sampled_from(SENTENCES), st.text(max_size=30)), max_size=40).map("".join)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The file of a byte-level BPE."""
    tokenizer = byte_level(["".join(SENTENCES) * 3], 400)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)


def run(texts, tokenizer="characters", **options):
    ids = [f"wiki/a.jsonl:{number}" for number in range(len(texts))]
    table = pa.table({"id": ids, "file": ["a.jsonl"] * len(texts), "text": pa.array(texts, pa.string())})
    return chunk.run(table, tokenizer=tokenizer, **options).to_pylist()


def pieces(text, **options):
    return [row["text"] for row in run([text], **options)]


def seen(text):
    return [at for at, character in enumerate(text) if not character.isspace()]


@settings(deadline=None, max_examples=300)
@given(text=TEXTS, by=st.sampled_from(["sentences", "headings", "tokens"]), size=st.integers(16, 40), data=st.data())
def test_pieces_fit_and_nothing_is_lost(tokenizer, text, by, size, data):
    """Whatever the text: no piece is over the limit, each is cut out of the document where it says, in order, and all
    together are the document; without an overlap, nothing is in two pieces."""
    overlap = data.draw(st.integers(0, size // 2))
    name = data.draw(st.sampled_from(["characters", tokenizer]))
    rows = run([text], name, by=by, max_tokens=size, overlap=overlap)
    counts = length.counter(name)([row["text"] for row in rows])
    assert max(counts) <= size
    covered = []
    for row in rows:
        start, end = row["chunk"]
        assert text[start:end] == row["text"]
        covered += [start + at for at in seen(row["text"])]
    assert sorted(set(covered)) == seen(text)
    for ends in zip(*(row["chunk"] for row in rows), strict=True):
        assert list(ends) == sorted(set(ends))  # each begins, and reaches, further than the one before
    if not overlap:
        assert covered == seen(text)


def test_no_piece_begins_as_another_does(tokenizer):
    """White space before a piece makes no second one of it, which the next one would hold with the overlap."""
    text = "\n\n" + "石桥靠拱来承重。" * 3 + "00000\x80石桥靠拱来承重。"
    begins = [row["chunk"][0] for row in run([text], tokenizer, by="sentences", max_tokens=16, overlap=6)]
    assert begins == sorted(set(begins))


def test_a_piece_by_itself_fits(tmp_path):
    """What counts are the tokens of a piece as it will be read: cut out of its text, it can have more of them."""
    vocabulary = {"a": 0, "b": 1, "Ġ": 2, "Ġa": 3, "Ġab": 4}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", "a"), ("Ġa", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = run([" ab" * 40], str(tmp_path / "tokenizer.json"), by="tokens", max_tokens=16)
    assert [len(tokenizer.encode(row["text"]).ids) for row in rows] == [16, 16, 11]


def test_ids_name_the_piece():
    """A piece is called after its document and its number; a document that fits keeps its name and its white space."""
    rows = run(["短。 ", "一" * 20 + "。" + "二" * 20 + "。"], max_tokens=30)
    assert [row["id"] for row in rows] == ["wiki/a.jsonl:0", "wiki/a.jsonl:1#0", "wiki/a.jsonl:1#1"]
    assert [row["text"] for row in rows] == ["短。 ", "一" * 20 + "。", "二" * 20 + "。"]
    assert {row["file"] for row in rows} == {"a.jsonl"}


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("他说：“走吧！”然后走了。好。", ["他说：“走吧！”", "然后走了。", "好。"]),
        (
            "Dr. Lee paid 3.50 for it, e.g. tea. Then she left!",
            ["Dr. Lee paid 3.50 for it, e.g. tea. ", "Then she left!"],
        ),
        ("第一行\n第二行", ["第一行\n", "第二行"]),
        ("真的吗？！是的……对。", ["真的吗？！", "是的……", "对。"]),
    ],
)
def test_where_sentences_end(text, ends):
    """Chinese and English sentences end where a reader would say so, closing quotes included."""
    at = [0, *chunk.sentence_ends(text)]
    at += [len(text)] if at[-1] < len(text) else []
    assert [text[a:b] for a, b in itertools.pairwise(at)] == ends


def test_sentences_stay_whole_and_fill_a_piece():
    """A piece has as many whole sentences as fit; a sentence that is longer than a piece is cut."""
    sentences = ["一二三四五六七八九。"] * 5
    assert pieces("".join(sentences), max_tokens=25) == ["".join(sentences[:2])] * 2 + sentences[:1]
    assert pieces("长" * 50 + "。短句。", max_tokens=20) == ["长" * 20, "长" * 20, "长" * 10 + "。短句。"]


def test_overlap_is_of_whole_sentences():
    """The next piece begins with the last sentences of the one before, as far as the overlap allows."""
    text = "".join(f"{digit * 9}。" for digit in "一二三四")
    assert pieces(text, max_tokens=20, overlap=10) == [text[0:20], text[10:30], text[20:40]]
    assert pieces(text, max_tokens=20, overlap=9) == [text[0:20], text[20:40]]
    assert pieces("字" * 40, by="tokens", max_tokens=20, overlap=10) == ["字" * 20] * 3


def test_headings_begin_pieces():
    """A piece begins at each heading of Markdown or of a book; one alone goes with what follows; code has none."""
    text = "序。\n\n# 桥\n\n## 石桥\n石桥靠拱。\n```\n# no heading\n```\n\n木桥\n---\n木桥靠梁。\n第二章 路\n路。"
    assert pieces(text, by="headings") == [
        "序。",
        "# 桥\n\n## 石桥\n石桥靠拱。\n```\n# no heading\n```",
        "木桥\n---\n木桥靠梁。",
        "第二章 路\n路。",
    ]


def test_an_overlap_that_leaves_no_room():
    """An overlap of more than half a piece is refused, with the cure."""
    with pytest.raises(KunError, match="overlap of 11 tokens") as refused:
        run(["字"], max_tokens=20, overlap=11)
    assert "lower `overlap`" in refused.value.hint


def test_pieces_go_through_a_build(tmp_path, monkeypatch):
    """In a build, long documents are kept in pieces, counted as created, and each can be explained by its name."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    texts = ["".join(f"第{n}句讲的是第{m}座桥的第{n}根梁。" for n in range(40)) for m in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, "短的一句话。"]))
    (tmp_path / "recipe.yaml").write_text(
        "splits: {wiki: {source: generic, path: a.jsonl, license: mit, redistributable: true}}\n"
        "stages: [normalize, {chunk: {max_tokens: 200, tokenizer: characters}},"
        " {length: {tokenizer: characters, min_tokens: 1, max_tokens: 200}}]\n"
    )
    registry = load_plugins([])
    report = build(load_recipe(tmp_path / "recipe.yaml", registry, output=tmp_path / "run"), registry)
    report.check()
    (split,) = report.splits.values()
    count = next(one for one in split.stages if one.label == "chunk")
    assert (split.read, count.created, split.kept) == (4, split.kept - 4, 4 + count.created)
    rows = load_dataset(str(tmp_path / "run/dataset"), "provenance", split="wiki", cache_dir=tmp_path / "hf")
    assert len(set(rows["id"])) == len(rows) > 10
    assert "".join(row["text"] for row in rows if row["id"].startswith("wiki/a.jsonl:0")) == texts[0]
    assert explain(open_run(tmp_path / "run"), "wiki/a.jsonl:0#1")["values"]["chunk"][0] == rows["chunk"][1][0] > 0


def test_a_build_says_how_many_rows_were_made(tmp_path, monkeypatch):
    """Where stages make several rows of one, what is kept and what is rejected still add up in the last line."""
    monkeypatch.setenv("KUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text(json.dumps({"text": "字" * 50}) + "\n" + json.dumps({"text": "短"}) + "\n")
    Path("recipe.yaml").write_text(
        "name: cut\nsplits: {wiki: {source: generic, path: a.jsonl}}\nstages: [{chunk: {max_tokens: 16, by: tokens,"
        " tokenizer: characters}}, {length: {min_tokens: 10, tokenizer: characters}}]\n"
    )
    done = CliRunner().invoke(cli, ["recipe.yaml"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "3 rows, made of 2, are in runs/cut/dataset; the other 2 are in runs/cut/rejected" in done.stdout
    sampled = CliRunner().invoke(cli, ["plan", "recipe.yaml", "--sample", "1", "--json"], catch_exceptions=False)
    found = json.loads(sampled.stdout)
    assert (found["records"], found["sampled"]) == (2, 1)
    assert found["kept"]["value"] in (0, 6)  # the drawn document stands for both: no piece of it is kept, or three are
