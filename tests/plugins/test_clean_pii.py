"""Stage `pii`."""

from __future__ import annotations

import json
import time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kun_clean.pii import mask, run
from samples import CORPUS, needs_samples


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("请发邮件到zhang.san+1@mail.example.com.cn联系我们", "请发邮件到[email]联系我们"),
        ("电话13812345678，或+86 138-1234-5678，或010-12345678。", "电话[phone]，或[phone]，或[phone]。"),
        ("身份证号11010519491231002X和11010519491231002x", "身份证号[id]和[id]"),
        ("服务器114.114.114.114端口", "服务器[ip]端口"),
    ],
)
def test_personal_data_gives_way_to_its_kind(text, expected):
    """What names a person or a machine is replaced; the Chinese words that touch it stay."""
    assert mask(text) == (expected, expected.count("["))


@pytest.mark.parametrize(
    "text",
    [
        "本机 127.0.0.1 与 192.168.100.1，第 3.1.4.2 节，999.111.222.3",
        "编号110105194912310021与订单202611221234567890",
        "圆周率3.14159265358979，@某人，git@主机，a@b",
        "1381234567",
        "12345678901234567890",
    ],
)
def test_other_numbers_stay(text):
    """Private addresses, numbers with a wrong check digit and mere long numbers are no personal data."""
    assert mask(text) == (text, 0)


@given(st.text(st.sampled_from("中a1@.-+ 98xX[]")))
def test_masking_is_counted_and_final(text):
    """The column counts what was replaced, the search before it misses nothing, and a second pass finds nothing."""
    table = run(pa.table({"id": ["a"], "text": [text]}))
    assert (table["text"][0].as_py(), table["pii"][0].as_py()) == mask(text)
    assert mask(mask(text)[0])[1] == 0


def test_long_runs_take_linear_time():
    """No text makes the search slow."""
    start = time.process_time()
    for text in (
        "a" * 100_000 + "@",
        "a@" + "b." * 50_000,
        "1" * 100_000,
        "1.1." * 30_000,
        "138 " * 30_000,
        "86-" * 30_000,
    ):
        mask(text)
    assert time.process_time() - start < 5


@needs_samples
def test_encyclopaedia_is_left_alone():
    """In articles of an encyclopaedia nothing is taken for personal data, years and figures included."""
    lines = (CORPUS / "wiki_cmrc2018.jsonl").read_text(encoding="utf-8").splitlines()
    assert [text for text in (json.loads(line)["text"] for line in lines) if mask(text)[1]] == []
