"""wudao, wanjuan and skypile, over the corpora's own containers."""

import json
import tarfile
from pathlib import Path

import kun_skypile
import kun_wanjuan
import kun_wudao
import pytest
from samples import FORMATS, needs_samples, samples

from kun_builder.recipe.parts import SplitSpec
from kun_builder.recipe.plugins import load_plugins
from kun_builder.run.ingest import ReadSettings, ingest
from kun_builder.run.source_shards import load_rows
from kun_builder.status import Status
from kun_builder.testing import check_source


@pytest.fixture(scope="module")
def sources():
    return load_plugins().sources


def _rows(folder, source, path, limit=None):
    spec = SplitSpec(source.value.name, (str(path),))
    split = {source.value.name: (spec, source)}
    (result,) = ingest(split, ReadSettings(folder=folder, shard_rows=500, limit=limit, status=Status())).values()
    return [row for shard in result.shards for row in load_rows(shard.path).to_pylist()]


@pytest.mark.parametrize("name", ["wudao", "wanjuan", "skypile"])
def test_a_source_says_what_a_card_needs(sources, name):
    """Each corpus declares licence, homepage, citation and a sample that its own parse understands."""
    source = sources[name].value
    assert source.license
    assert source.homepage.startswith("https://")
    assert source.citation
    assert source.parse(source.sample)
    assert source.redistributable == (name == "wanjuan")


@pytest.mark.parametrize("name", ["wudao", "wanjuan", "skypile"])
def test_a_module_is_short_and_opens_with_a_sample(name):
    """A reader of the plugin sees one row of the corpus first, and little code after it."""
    path = Path({"wudao": kun_wudao, "wanjuan": kun_wanjuan, "skypile": kun_skypile}[name].__file__)
    lines = path.read_text("utf-8").splitlines()
    assert any('{"' in line for line in lines[:5])
    assert len(lines) < 80


@needs_samples
@pytest.mark.parametrize(
    ("name", "path", "count"),
    [
        ("wudao", "wudao/flagai_records", 20),
        ("wanjuan", "wanjuan/nlp/CN/Exam-cn", 300),
        ("wanjuan", "wanjuan/nlp/CN/Law-cn", 80),
        ("skypile", "skypile/data/*_middle_*.jsonl", 260),
    ],
)
def test_the_kit_finds_nothing_wrong(sources, name, path, count):
    """Each corpus passes what the kit asks of anyone's plugin."""
    assert len(check_source(sources[name].value, FORMATS / path)) == count


@needs_samples
@pytest.mark.parametrize(("name", "count"), [("wudao", 593), ("wanjuan", 845), ("skypile", 660)])
def test_the_samples_are_read_completely(tmp_path, sources, name, count):
    """Every record of a corpus in its own containers and folders becomes a row with a text and an id of its own."""
    rows = _rows(tmp_path, sources[name], FORMATS / name)
    assert len(rows) == count
    assert len({row["id"] for row in rows}) == count
    assert all(row["text"] and row["_outcome"] is None for row in rows)


@needs_samples
def test_wanjuan_counts_as_tarfile_does(tmp_path, sources):
    """WanJuan's files have one name in every folder; ids carry the folder, and positions count lines."""
    rows = _rows(tmp_path, sources["wanjuan"], FORMATS / "wanjuan" / "nlp")
    for path in samples(FORMATS / "wanjuan" / "nlp", "*.tar.gz"):
        with tarfile.open(path) as archive:
            lines = [line for member in archive for line in archive.extractfile(member).read().splitlines()]
        file = f"{path.parent.name}/{path.name}"
        assert [row["position"] for row in rows if row["file"] == file] == list(range(len(lines)))
        assert f"wanjuan/{file}:0" in {row["id"] for row in rows}


@needs_samples
def test_a_sample_of_sorted_wudao_has_every_kind(tmp_path, sources):
    """WuDao is sorted by category: sixty rows of it are drawn from all of them."""
    rows = _rows(tmp_path, sources["wudao"], FORMATS / "wudao" / "WuDaoCorpus2.0_base_200G", limit=60)
    kinds = set()
    for path in samples(FORMATS / "wudao" / "WuDaoCorpus2.0_base_200G", "*.json"):
        documents = json.loads(path.read_bytes())
        kinds |= {documents[row["position"]]["dataType"] for row in rows if row["file"] == path.name}
    assert len(rows) == 60
    assert len(kinds) > 2


@pytest.mark.parametrize(
    ("title", "content", "expected"),
    [
        ("法院判决", "昨日，法院作出判决。", "法院判决\n昨日，法院作出判决。"),
        ("法院判决", "法院判决 昨日，法院作出判决。", "法院判决\n昨日，法院作出判决。"),
        ("流行语", "流行语，又称潮流用语。", "流行语，又称潮流用语。"),
        ("战国无双3", "《战国无双3》是游戏。", "《战国无双3》是游戏。"),
        ("", "没有标题。", "没有标题。"),
        (None, "没有标题。", "没有标题。"),
        ("只有标题", "", ""),
        ("只有标题", None, None),
        ("标题", 5, 5),
    ],
)
def test_wudao_says_a_title_once(title, content, expected):
    """The title goes before the content, unless the content begins with it."""
    assert kun_wudao.parse({"title": title, "content": content}) == expected


def test_wanjuan_text():
    """A text subset's row is its content."""
    assert kun_wanjuan.parse({"id": "a", "content": "# 标题\n\n正文"}) == "# 标题\n\n正文"


ASKED = "正确的是（ 　　）"
EXAM = {
    "id": "Bk1", "q_type": None, "q_main": f"4．（ 6分）{ASKED}", "option_a": "甲", "option_b": "乙\n",
    "option_c": None, "option_d": "", "option_e": None, "std_ans": "B", "answer": "", "answer_detail": None,
    "grade": "高三", "major": "生物", "keypoint": ["细胞"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, f"{ASKED}\nA. 甲\nB. 乙\n答案：B"),
        ({"answer_detail": "因为乙。"}, f"{ASKED}\nA. 甲\nB. 乙\n答案：B\n解析：因为乙。"),
        ({"answer": "选乙", "answer_detail": "因为乙。"},
         f"{ASKED}\nA. 甲\nB. 乙\n答案：B\n解析：选乙\n因为乙。"),
        ({"std_ans": None, "answer": "乙", "option_a": None, "option_b": None}, f"{ASKED}\n答案：乙"),
        ({"std_ans": None, "option_a": 5, "option_b": ""}, f"{ASKED}"),
        ({"q_main": None}, None),
        ({"q_main": " "}, None),
    ],
)  # fmt: skip
def test_wanjuan_exam_reads_well(change, expected):
    """Question, options, answer and explanation stand on lines of their own; nulls leave no trace."""
    assert kun_wanjuan.parse({**EXAM, **change}) == expected


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("12.（5分）题目", "题目"),
        ("3.14 是圆周率吗", "3.14 是圆周率吗"),
        ("1、题目", "1、题目".removeprefix("1、")),
        ("2020年的题目", "2020年的题目"),
        (
            "题目第一行已经很长很长很长很长很长很长很长了所以\n换行",
            "题目第一行已经很长很长很长很长很长很长很长了所以换行",
        ),
        ("短题目\n第二行", "短题目\n第二行"),
        (
            "这一行虽然也是很长很长很长很长的一行，但有句号。\n第二行",
            "这一行虽然也是很长很长很长很长的一行，但有句号。\n第二行",
        ),
        (
            "这一行虽然也是很长很长很长很长很长很长的一行\n①第一项",
            "这一行虽然也是很长很长很长很长很长很长的一行\n①第一项",
        ),
    ],
)
def test_wanjuan_exam_loses_what_belongs_to_the_sheet(printed, expected):
    """A question's number and points are left out, and line ends within a sentence; others stay."""
    assert kun_wanjuan.parse({"q_main": printed}) == expected


def test_skypile_text():
    """A page is its text, whatever it is: the engine gives the verdict on what is no text."""
    assert kun_skypile.parse({"text": "网页"}) == "网页"
    assert kun_skypile.parse({"text": None}) is None
    with pytest.raises(KeyError):
        kun_skypile.parse({"content": "网页"})
