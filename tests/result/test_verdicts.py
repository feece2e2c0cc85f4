"""Verdicts of people: read line by line, weighed by what they stand for, void when the words change."""

from __future__ import annotations

import shutil

import pytest
from finished_runs import make_run

from kun_builder.errors import RunError
from kun_builder.report import read_report
from kun_builder.result.review import open_review
from kun_builder.result.review_draw import draw
from kun_builder.result.verdicts import precision, still_true, take_verdicts
from kun_builder.run.folder import RunFolder
from kun_builder.run.verdicts import Verdict, read_verdicts, verdicts_in


def test_each_stratum_weighs_what_it_stands_for():
    """The share of good rows is that of all kept ones, not of those that happened to be drawn."""
    near = [Verdict(good=number == 0, id=f"n{number}", stratum="near", stratum_rows=100) for number in range(10)]
    far = [Verdict(good=True, id=f"f{number}", stratum="far", stratum_rows=900) for number in range(20)]
    rejected = [Verdict(good=True, stratum="rejected", stratum_rows=10**6, reason="score: low_score")]
    share = precision(near + far + rejected)
    assert share.value == pytest.approx((100 * 0.1 + 900) / 1000)
    # 10 verdicts for 10 rows each and 20 for 45 each say as much as 1000**2 / (10 * 10**2 + 20 * 45**2) alike.
    assert (share.low, share.high) == pytest.approx((0.7335, 0.9738), abs=1e-3)
    assert precision(rejected) is None


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"id": "a"}', '{"good": "perhaps"}', '{"good": [1]}'])
def test_a_line_that_is_no_verdict_is_named(line, tmp_path):
    """What is not a verdict is an error with file and line, and no verdict of the file is taken."""
    path = tmp_path / "v.jsonl"
    path.write_text('{"id": "a", "good": true}\n\n' + line + "\n")
    with pytest.raises(RunError, match=r"v\.jsonl:3 is not a verdict"):
        read_verdicts(path)


def test_values_beside_a_verdict_count_as_measured(tmp_path):
    """A judged file that the page did not make is read, too: its numbers are measured values."""
    path = tmp_path / "v.jsonl"
    path.write_text(
        '{"instruction": "甲", "output": "乙", "score": 0.7, "good": "差", "kinds": ["thin"], "seen": true}\n'
    )
    (found,) = read_verdicts(path)
    assert (found.good, found.measured, found.kinds, found.instruction) == (False, {"score": 0.7}, ("thin",), "甲")


def test_verdicts_of_another_run_are_refused(tmp_path):
    """A file that was saved for another run, or holds nothing, is not taken."""
    run = make_run(tmp_path / "run", {"wudao": 2})
    for text, message in (('{"good": true, "run": "other"}\n', "is about the run `other`"), ("\n", "holds no verdict")):
        (tmp_path / "v.jsonl").write_text(text)
        with pytest.raises(RunError, match=message):
            take_verdicts(open_review(run), [tmp_path / "v.jsonl"])
    assert not (run / "verdicts/v.jsonl").exists()


def test_a_later_verdict_on_a_row_counts(tmp_path):
    """Of two verdicts on one row, that of the file whose name comes last stands."""
    for name, good in (("a", "true"), ("b", "false")):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"id": "x", "good": {good}}}\n')
    assert [verdict.good for verdict in verdicts_in(tmp_path)] == [False]


def test_verdicts_on_rows_that_changed_do_not_count(tmp_path):
    """A verdict is about an instruction and an answer: when the run is built anew and gives others, it is void."""
    folder = RunFolder(make_run(tmp_path / "run", {"wudao": 6}))
    pairs = draw(folder, read_report(folder.report_path), sample=6)
    verdicts = [
        Verdict(good=True, id=p["id"], instruction=p["instruction"], output=p["output"])
        for p in pairs
        if p["reason"] is None
    ]
    files, rejected = [folder.kept_files("wudao")], [folder.rejected_files("wudao")]
    assert still_true(verdicts, files, rejected) == verdicts
    shutil.rmtree(folder.path)
    make_run(folder.path, {"wudao": 6}, seed=1)
    assert still_true(verdicts, files, rejected) == []
