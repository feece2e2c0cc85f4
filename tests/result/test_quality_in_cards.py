"""What people and judges said of a run's pairs is in its card and on its report page, and nothing that nobody said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from finished_runs import make_run
from kun_training.evaluation.pairs import write_evaluation

from kun_builder.report import read_report
from kun_builder.result.finished import open_run
from kun_builder.result.manifest import read_manifest
from kun_builder.result.present import is_presented, write_presentation
from kun_builder.result.release import Base, compose
from kun_builder.result.review_draw import draw
from kun_builder.run.folder import RunFolder

SHARE = {"value": 0.75, "low": 0.5, "high": 0.9}
EVALUATION = {
    "judge": {"id": "org/judge", "revision": "abc"},
    "pairs": 20,
    "comparisons": {
        "raw": {"against": "raw", "wins": 12, "ties": 6, "losses": 2, "rate": SHARE, "consistent": 0.9, "unread": {}}
    },
    "marks": {"fluent": {"mean": {"value": 4.25, "low": 4.0, "high": 4.5}, "rows": 20}},
}


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path / "run", {"wudao": 40, "skypile": 20})


def judge(run: Path, *, good=lambda pair: True) -> None:
    """Verdicts of a person on 20 pairs, as the page saves them."""
    folder = RunFolder(run)
    lines = [
        {**pair, "good": good(pair), "kinds": [] if good(pair) else ["off_topic"]}
        for pair in draw(folder, read_report(folder.report_path), sample=20)
    ]
    (run / "verdicts").mkdir(exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (run / "verdicts/me.jsonl").write_text(text, "utf-8")


def card_and_page(run: Path) -> tuple[str, str]:
    page = write_presentation(run)
    return (run / "dataset/README.md").read_text("utf-8"), page.read_text("utf-8")


def test_a_run_that_nobody_judged(run):
    """Forms of instructions are there, and that nobody has judged."""
    card, page = card_and_page(run)
    assert "## Quality · 质量" in card
    assert "| command: explain | 10 | 5 |" in card
    assert "Nobody has judged the pairs" in card
    assert "Read by people" not in card + page
    assert "Judged by a model" not in card + page
    assert "How instructions ask" in page
    assert "command: explain" in page


def test_what_people_found(run):
    """How many rows were read and found good, of what kind the bad ones were, how many rejected ones were good."""
    judge(run, good=lambda pair: pair["reason"] is not None or pair["stratum"].endswith("far from all thresholds"))
    card, page = card_and_page(run)
    for text in (card, page):
        assert "10 kept rows" in text
        assert "75%" in text, "five of five far from the threshold, three quarters of the rows"
        assert "off" in text
    assert "| rejected · 已剔除, score: below\\_threshold | 10 | 10 |" in card
    assert "Nobody has judged" not in card


def test_what_a_model_found(run):
    """Comparisons and marks, with their intervals and the judge's name."""
    write_evaluation(run, {**EVALUATION, "run": "my-kun", "signature": read_report(run / "report.json").signature})
    card, page = card_and_page(run)
    assert "| raw | 12 | 6 | 2 | 0.750 | 0.500 – 0.900 |" in card
    assert "| fluent | 4.25 | 4.00 – 4.50 | 20 |  |" in card
    assert "`org/judge`" in card
    assert "Judged by a model" in page
    assert "0.500 to 0.900" in page


@pytest.mark.parametrize("sure", [True, False])
def test_whether_the_judge_is_one(run, sure):
    """The judge's test is told, in plain words where it failed, and of each comparison whether it may be chance."""
    raw = {**EVALUATION["comparisons"]["raw"], "same": 1, "chance": 0.8, "first": 0.9, "sure": sure}
    marks = {"fluent": {**EVALUATION["marks"]["fluent"], "control": {**SHARE, "value": 3.5}, "sure": sure}}
    found = {**EVALUATION, "comparisons": {"raw": raw}, "marks": marks, "control": {**raw, "wins": 7, "losses": 3}}
    write_evaluation(run, {**found, "run": "my-kun", "signature": read_report(run / "report.json").signature})
    card, page = card_and_page(run)
    assert "| fluent | 4.25 | 4.00 – 4.50 | 20 | 3.50 |" in card
    for text in (card, page):
        assert "the row's own 7 times, the other one 3 times, and neither 6 times" in text
        assert ("what it says here means nothing" in text) is not sure
        assert ("its verdicts may be chance" in text) is not sure
        assert ("says the same of 90%, where one that does not look would of 80%" in text) is not sure
    manifest = compose(open_run(run), Base(), "org/name").manifest
    assert read_manifest(json.dumps(manifest).encode())["runs"], "a later release reads it"


def test_what_was_said_of_other_rows_is_left_out(run):
    """Verdicts on rows that the run no longer has, and an evaluation of an earlier run, are in neither."""
    judge(run)
    path = run / "verdicts/me.jsonl"
    path.write_text(path.read_text("utf-8").replace('"output": "', '"output": "other '), "utf-8")
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join(line for line in lines if '"reason": null' in line) + "\n", "utf-8")
    (run / "evaluation.json").write_text(json.dumps({**EVALUATION, "signature": "another"}))
    card, page = card_and_page(run)
    assert "Nobody has judged the pairs" in card
    assert "Read by people" not in card + page


def test_published_releases_carry_it(run):
    """The manifest of a release has it, so that the card of the next release, of other splits, still says it."""
    judge(run)
    first = compose(open_run(run), Base(), "org/name")
    (entry,) = first.manifest["runs"].values()
    assert entry["review"]["kept"] == 10
    other = make_run(run.parent / "other", {"web": 9}, seed=3)
    base = Base(manifest=first.manifest, read=lambda path: first.files["recipe.lock.yaml"])
    card = compose(open_run(other), base, "org/name").files["README.md"].decode()
    assert "Read by people · 人工审阅 (my-kun): 10 kept rows" in card


def test_words_of_a_reviewer_stay_words(run):
    """A kind of defect that somebody wrote by hand cannot leave its cell, in Markdown nor in HTML."""
    judge(run, good=lambda pair: False)
    path = run / "verdicts/me.jsonl"
    hostile = "<script>x</script> | [a](http://b)"
    path.write_text(path.read_text("utf-8").replace("off_topic", hostile), "utf-8")
    card, page = card_and_page(run)
    assert hostile not in card
    assert "&lt;script&gt;x&lt;/script&gt; \\| \\[a\\](http" in card
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page


def test_a_page_is_old_when_somebody_has_judged_since(run):
    """After new verdicts the page is written anew, as after a new run."""
    write_presentation(run)
    assert is_presented(run)
    judge(run)
    assert not is_presented(run)
