"""In which form an instruction asks, as report and card count them."""

import pyarrow as pa
import pytest
from kun_method.asking import FORMS

from kun_builder.result.forms import FormCounts


def form(instruction):
    counts = FormCounts(FORMS)
    counts.add(pa.chunked_array([[instruction]], pa.string()))
    (found,) = counts.forms
    return found


@pytest.mark.parametrize(
    ("simplified", "traditional", "expected"),
    [
        ("请介绍茶的历史。", "請介紹茶的歷史。", "command: introduce"),
        ("茶是什么？", "茶是什麼？", "question: what"),
        ("为什么茶会变苦？", "為什麼茶會變苦？", "question: why"),
        ("谁写了《茶经》？", "誰寫了《茶經》？", "question: who"),
        ("茶有几种？", "茶有幾種？", "question: how many"),
        ("茶能存放很久吗？", "茶能存放很久嗎？", "question: yes or no"),
        ("比较红茶和绿茶。", "比較紅茶和綠茶。", "command: compare"),
        ("写一首关于茶的诗。", "寫一首關於茶的詩。", "command: write"),
    ],
)
def test_both_scripts_ask_alike(simplified, traditional, expected):
    """A traditional question is no form of its own, nor `other`."""
    assert (form(simplified), form(traditional)) == (expected, expected)
