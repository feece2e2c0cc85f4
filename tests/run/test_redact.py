"""Raw text of a corpus that may not be passed on is nowhere in what is published."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished_runs import make_run
from hypothesis import given
from hypothesis import strategies as st

from kun_builder.errors import PublishError
from kun_builder.result.finished import open_finished
from kun_builder.run.redact import refuse_copies, refuse_text, without_text

TEXT = "关于茶的冲泡，先看水温，再看时间，最后看茶具。" * 3


def row(**changes):
    facts = {"id": "x/a:1", "split": "x", "file": "a", "position": 1, "text": TEXT, "score": 0.5}
    return {**facts, "instruction": "如何泡茶？", "output": "泡茶有三步。", "raw_answer": None, **changes}


def withheld(*rows):
    return without_text(pa.Table.from_pylist(list(rows))).to_pylist()


def test_digest_and_position():
    """The text gives way to its SHA-256; place, measures and result stay."""
    (found,) = withheld(row())
    assert found["text_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert "text" not in found
    assert (found["position"], found["score"], found["output"]) == (1, 0.5, "泡茶有三步。")


@pytest.mark.parametrize("copy", [TEXT, TEXT[:40], f"答：{TEXT}", TEXT.replace("，", "， ").replace("。", "。\n")])
def test_copies_of_the_text_go(copy):
    """A column that repeats the text, or a part of it, or holds it, is emptied; in other rows it stays."""
    found = withheld(row(raw_answer=copy), row(raw_answer="另一个回答，与原文无关，也不出自原文。"))
    assert [line["raw_answer"] for line in found] == [None, "另一个回答，与原文无关，也不出自原文。"]


@pytest.mark.parametrize("column", ["instruction", "output"])
def test_result_that_is_the_text(tmp_path, column):
    """If the result itself is the raw text, nothing is published: the row is named, and the cure."""
    pq.write_table(pa.Table.from_pylist([row(), row(**{column: TEXT + " "})]), tmp_path / "kept.parquet")
    with pytest.raises(PublishError, match="x/a:1") as refused:
        refuse_copies([tmp_path / "kept.parquet"])
    assert "write the answers of this source anew" in refused.value.hint


@given(text=st.text(min_size=20, max_size=60), before=st.text(max_size=5), after=st.text(max_size=5))
def test_no_whole_text_is_left(text, before, after):
    """Whatever stands around the text in another column, the text is not in what is written."""
    (found,) = withheld(row(text=text, raw_answer=before + text + after))
    if text.strip():
        assert text not in str(found["raw_answer"] or "")


SENTENCES = [part + "。" for part in TEXT.split("。") if part]
ASKED = "怎样才能泡好一杯绿茶呢"


@pytest.mark.parametrize(
    ("leak", "kind"),
    [
        (SENTENCES, pa.list_(pa.string())),
        (TEXT[:60].split("，"), pa.large_list(pa.large_string())),
        (list(TEXT), pa.list_(pa.string(), len(TEXT))),
        ({"note": "摘录", "quote": TEXT[10:50]}, pa.struct([("note", pa.string()), ("quote", pa.string())])),
        ([{"at": 1, "is": part} for part in SENTENCES], pa.list_(pa.struct([("at", pa.int64()), ("is", pa.string())]))),
        ([("quote", TEXT[:40])], pa.map_(pa.string(), pa.string())),
        ([[SENTENCES], []], pa.list_(pa.list_(pa.list_(pa.string())))),
        (TEXT.encode(), pa.binary()),
        ([TEXT.encode()], pa.list_(pa.large_binary())),
        (TEXT, pa.dictionary(pa.int32(), pa.string())),
        (TEXT, pa.string_view()),
        (TEXT[::1].replace("茶", "茶 "), pa.large_string()),
        (f"据说，{TEXT[5:50]}，完。", pa.string()),
        ([ord(character) for character in TEXT], pa.list_(pa.int64())),
    ],
)
def test_text_in_any_column(leak, kind):
    """Raw text goes out of columns of every type, whole or in pieces; what is no text of the row's stays."""
    columns = pa.Table.from_pylist([row(), row(text="别的一段文字，与上一行没有关系，说的是桥梁的结构和造桥的人。")])
    leaking = columns.append_column("leak", pa.array([leak, None], kind)).append_column("asked", pa.array([ASKED] * 2))
    first, second = without_text(leaking).to_pylist()
    assert first["leak"] is None
    assert (first["asked"], second["asked"], second["leak"]) == (ASKED, ASKED, None)


@pytest.mark.parametrize(
    ("harmless", "kind"),
    [
        (["茶", "文化", "生活"], pa.list_(pa.string())),
        ({"topic": "茶", "score": 3}, pa.struct([("topic", pa.string()), ("score", pa.int64())])),
        ([0.25] * 40, pa.list_(pa.float32())),
        ([True] * 40, pa.list_(pa.bool_())),
        ([1, 2, 3], pa.list_(pa.int64())),
        (b"\x00\xff\x01", pa.binary()),
    ],
)
def test_what_is_no_text_stays(harmless, kind):
    """Labels, measures and embeddings of a plugin's stage are passed on as they are."""
    table = pa.Table.from_pylist([row()]).append_column("more", pa.array([harmless], kind))
    assert without_text(table)["more"].to_pylist() == [harmless]
    assert without_text(table).schema.field("more").type == kind


@pytest.mark.parametrize(("text", "label"), [("zh", None), (" z\u3000h\n", None), (TEXT + "zh", "zh"), ("", "zh")])
def test_label_that_is_the_text(text, label):
    """A few plain letters pass a text on only where they are all of it."""
    assert withheld(row(text=text, label="zh"))[0]["label"] == label


_SPACED = st.text(st.sampled_from("ab \n\u3000\x1c\u200b茶，１\ufdfa"), max_size=30)


@given(st.lists(st.tuples(_SPACED, _SPACED | st.text("ab", max_size=25), st.booleans()), min_size=1))
def test_short_labels_are_judged_like_any_value(rows):
    """Strings of a type that Arrow looks through at once are emptied where those of any other type are."""
    table = pa.Table.from_pylist([row(text=text, label=label + text if has else label) for text, label, has in rows])
    viewed = table.set_column(table.schema.get_field_index("label"), "label", table["label"].cast(pa.string_view()))
    assert without_text(table)["label"].to_pylist() == without_text(viewed)["label"].to_pylist()


def test_another_spelling_of_the_text():
    """A column with the text as it was before cleaning, in other widths, cases and punctuation, is emptied."""
    text = "HTTP status codes, explained in plain words for people who keep servers."
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text.upper()).replace("，", "／")
    assert withheld(row(text=text, raw_answer=wide))[0]["raw_answer"] is None


@given(st.data())
def test_no_part_is_left_in_lists(data):
    """However the text is cut into a list: no list is written whose parts together are a part of the text."""
    text = data.draw(st.text(st.characters(categories=["L", "N"]), min_size=40, max_size=80))
    cuts = sorted(data.draw(st.lists(st.integers(1, len(text) - 1), max_size=8)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    table = pa.Table.from_pylist([row(text=text, parts=parts)])
    assert without_text(table)["parts"].to_pylist() == [None]


def test_push_looks_again(tmp_path):
    """Rows that are to be published and hold raw text in any column are refused, whoever wrote them."""
    kept = tmp_path / "kept.parquet"
    pq.write_table(pa.Table.from_pylist([row(), row(id="x/a:2", sentences=SENTENCES)]), kept)
    refuse_text([kept], withheld(row(), row(id="x/a:2", sentences=SENTENCES)))
    with pytest.raises(PublishError, match="row x/a:2: `sentences`"):
        refuse_text([kept], [*withheld(row()), {"id": "x/a:2", "sentences": SENTENCES}])
    with pytest.raises(PublishError, match="row x/a:1: `text`"):
        refuse_text([kept], [{"id": "x/a:1", "text": "?"}])


def test_run_with_text_in_its_provenance(tmp_path):
    """A run whose publishable files were made by another version, with text in a list, is not published."""
    closed = {"wudao": {"redistributable": False, "license": "other"}}
    run = make_run(tmp_path / "run", {"wudao": 4}, sources=closed, publish={"license_acknowledged": True})
    assert open_finished(run).withheld == {"wudao"}
    path = run / "dataset/provenance/wudao-00000-of-00001.parquet"
    texts = pq.read_table(run / "kept")["text"].to_pylist()
    leak = pa.array([text.split("，") for text in texts])
    pq.write_table(pq.read_table(path, partitioning=None).append_column("sentences", leak), path)
    with pytest.raises(PublishError, match="`sentences` of the provenance holds raw text"):
        open_finished(run)
