"""What of its text an answer keeps is on every row that has one, and in report and card for each split."""

import asyncio

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_method import polish, verify
from kun_method.pairs import facts_kept
from kun_method.substance import ADDS, substance
from scripted import Scripted, row

from kun_builder.report import StepFacts
from kun_builder.result.cards.cards import measured
from kun_builder.result.stats import owners, split_stats

TEXT = "《茶经》成书于 780 年，共 3 卷，作者陆羽。英文里叫 The Classic of Tea，有 1,200 多年的历史。"


@pytest.mark.parametrize(
    ("text", "output", "share"),
    [
        ("1978 年和 1992 年，用 Python 写成。", "1992 年写成。", 1 / 3),
        ("1978 年", "2019782 年", 0),
        ("有 1,200 年的历史", "有 1200 年历史", 1),
        ("《茶经》讲茶，《 茶经》讲水。", "茶经讲茶。", 1),
        ("1. 洗茶\n2. 泡茶", "先洗茶，再泡茶。", None),
        ("The river Yangtze flows to Shanghai, past Wuhan.", "Yangtze flows past Wuhan.", 2 / 3),
        ("茶叶要放在阴凉的地方。", "放在阴凉处。", None),
    ],
)
def test_what_is_kept(text, output, share):
    """Different numbers, Latin words and quoted names count once each; marks of lists and other words do not."""
    assert facts_kept(output, text) == (share if share is None else pytest.approx(share))


@given(st.text(st.sampled_from("茶《》“”12,.ab T\n"), max_size=60), st.text(max_size=40))
def test_a_text_keeps_all_of_itself(text, more):
    """Of the text itself nothing is lost, whatever stands behind it; the share of any answer is one."""
    assert facts_kept(text, text) in (None, 1)
    assert facts_kept(f"{text}。{more}", text) in (None, 1)
    assert 0 <= (facts_kept(more, text) or 0) <= 1


def test_rows_report_and_card_have_it(tmp_path):
    """`polish` measures its answer and `verify` the one that goes on; each split has its figures, with their titles."""
    output = "《茶经》成书于 780 年，共 3 卷，作者是陆羽。"
    polished = asyncio.run(polish.run(row(TEXT, instruction="《茶经》是一本什么书？"), Scripted([output])))
    assert {name: polished[name] for name in ADDS} == substance(output, TEXT)
    shorter = "《茶经》共 3 卷。"
    kept = asyncio.run(verify.run({**polished, "output": shorter}, Scripted(["好"]), model=None))
    assert {name: kept[name] for name in ADDS} == substance(shorter, TEXT)
    assert kept["facts_kept"] < polished["facts_kept"] < 1

    pq.write_table(pa.Table.from_pylist([polished, kept]), tmp_path / "kept.parquet")
    steps = [
        StepFacts(label=one.name, stage=one.name, adds=one.adds, quantities=one.quantities)
        for one in (polish.stage, verify.stage)
    ]
    stats = split_stats([tmp_path / "kept.parquet"], [], owners(steps))
    told = {line["column"]: line for line in measured({"tea": stats})}
    assert {told[name]["step"] for name in ADDS} == {"polish, verify"}
    assert told["relative_length"]["measure"].unit == "% of the text's characters"
    mean = (polished["facts_kept"] + kept["facts_kept"]) / 2
    assert told["facts_kept"]["measure"].spread.mean == pytest.approx(mean)
    assert not told["facts_kept"]["cut"]
