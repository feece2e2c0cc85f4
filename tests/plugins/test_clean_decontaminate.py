"""Stage `decontaminate`."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from kun_clean import decontaminate, shingles
from samples import DATA, needs_samples

from kun_builder import KunError

QUESTION = "已知等差数列的首项为三，公差为二，求它的前十项之和，并写出通项公式。"


@pytest.fixture
def bench(tmp_path):
    path = tmp_path / "bench.jsonl"
    rows = [
        {"question": "短题"},
        {"question": QUESTION, "choices": ["甲乙", {"why": "What is the capital of " + "the " * 20}]},
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n", encoding="utf-8")
    return str(path)


def run(texts, *benchmarks, **options):
    table = pa.table({"id": [str(i) for i in range(len(texts))], "text": pa.array(texts, pa.string())})
    table = decontaminate.run(table, benchmarks=benchmarks, **options)
    return list(zip(table["_reason"].to_pylist(), table["_value"].to_pylist(), strict=True))


def test_text_with_a_passage_of_a_benchmark_is_dropped(bench):
    """A text that quotes a question is dropped, in any clothes, and the value is the benchmark's file and line."""
    quoted = "请看这道题：" + QUESTION.replace("，", " ,\n").replace("项", "項") + "谁会做？"
    assert run([quoted, "数列是按一定次序排列的一列数。" * 5], bench) == [
        ("contaminated", "bench.jsonl:2"),
        (None, None),
    ]


def test_as_many_words_in_common_as_asked(bench):
    """The limit is exact: a run of that many characters is a passage, one fewer is not."""
    said = QUESTION.replace("，", "").replace("。", "")
    assert run([said[:12] + "甲" * 30, said[:11] + "甲" * 30], bench, words_in_common=12) == [
        ("contaminated", "bench.jsonl:2"),
        (None, None),
    ]


def test_strings_within_lists_count(bench):
    """Choices and explanations are parts of a benchmark too; English counts by words."""
    assert run(["what is the capital of " + "the " * 20], bench)[0][0] == "contaminated"
    assert run(["What is the capital of a country?"], bench)[0][0] is None


def test_unreadable_benchmark_is_named(tmp_path):
    """A benchmark that is missing or broken is an error with file and line."""
    with pytest.raises(KunError, match=r"nowhere\.jsonl"):
        run(["甲"], str(tmp_path / "nowhere.jsonl"))
    (tmp_path / "bad.jsonl").write_text('{"a": "b"}\n{"a": ')
    with pytest.raises(KunError, match=r"bad\.jsonl:2"):
        run(["甲"], str(tmp_path / "bad.jsonl"))


def test_benchmark_of_short_strings_drops_nothing(tmp_path):
    """A benchmark without a passage of the length asked for is no error."""
    (tmp_path / "short.jsonl").write_text('{"a": "b"}\n')
    assert run(["甲" * 50, ""], str(tmp_path / "short.jsonl")) == [(None, None)] * 2


@needs_samples
def test_real_benchmark_against_real_text():
    """GAOKAO questions are all found again; of encyclopaedia articles, at most one in a hundred shares a passage."""
    bench = DATA / "bench" / "gaokao_bench.jsonl"
    questions = [json.loads(line)["question"] for line in bench.read_text(encoding="utf-8").splitlines()]
    long = ["Question: " + question for question in questions if len(shingles.words([question])[0]) >= 20]
    assert len(long) > 2000
    assert all(reason for reason, _ in run(long, str(bench)))
    lines = (DATA / "corpus" / "wiki_cmrc2018.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(reason is not None for reason, _ in run([json.loads(x)["text"] for x in lines], str(bench))) <= 11
