"""The review page, in a real browser: pairs are judged by keys, hostile text stays text, verdicts arrive in the run."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from finished_runs import make_run

from kun_builder.errors import RunError
from kun_builder.report import read_report
from kun_builder.result.review import Stratum, allot, draw, write_review
from kun_builder.result.verdicts import (
    KINDS,
    Verdict,
    precision,
    read_verdicts,
    run_verdicts,
    still_true,
    take_verdicts,
)
from kun_builder.run.folder import RunFolder

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> {{ 7*7 }} \u2028"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run whose every text tries to break out of the page."""
    folder = tmp_path_factory.mktemp("review")
    return make_run(folder / "run", {"wudao": 200, "skypile": 40}, text=HOSTILE, name="review <b>of</b> & all")


@pytest.fixture(scope="module")
def page(run) -> Path:
    return write_review(run, sample=12)


@pytest.fixture
def opened(browser, page):
    """The page, as for somebody who comes for the first time; afterwards the browser has complained of nothing."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    browser.execute_script("judged = new Map(); changes = saved = 0; keep(); open(0)")
    yield browser
    browser.execute_script("saved = changes")  # so that leaving the page asks nobody
    assert browser.get_log("browser") == []
    assert browser.title.startswith("review <b>of</b> & all"), "text of the corpus has run as a script"


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def press(browser, keys):
    for key in keys:
        find(browser, "body")[0].send_keys(key)


def place(browser):
    return find(browser, "#place")[0].text


def shown(browser):
    return find(browser, "#instruction")[0].text


def download(browser, folder):
    """What S saves, parsed."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    press(browser, "s")
    deadline = time.monotonic() + 20
    while not (files := list(folder.glob("*.jsonl"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return files[0], [json.loads(line) for line in files[0].read_text("utf-8").splitlines()]


def test_no_network(opened):
    """The page asks for nothing but itself."""
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert asked == {opened.current_url}


def test_a_pair_stands_beside_its_text(opened):
    """Question and answer are on the left, the text on the right, as plain text; measured values are not shown."""
    assert "</script><script>document.title" in shown(opened)
    question, text = find(opened, "#instruction")[0], find(opened, "#text")[0]
    assert question.location["x"] + question.size["width"] <= text.location["x"]
    assert "</script><script>document.title" in text.text
    assert "score" not in find(opened, "body")[0].text


def test_keys_judge_and_move_on(opened):
    """G and B judge and open the next pair, N skips, and the progress counts what was judged."""
    assert place(opened) == "Pair 1 of 12, 0 judged"
    press(opened, "g")
    assert place(opened) == "Pair 2 of 12, 1 judged"
    press(opened, "nb")
    assert place(opened) == "Pair 4 of 12, 2 judged"
    assert find(opened, "#progress")[0].get_attribute("value") == "2"


def test_undo(opened):
    """U takes the last judgement back and opens its pair."""
    press(opened, "gg")
    press(opened, "u")
    assert place(opened) == "Pair 2 of 12, 1 judged"
    assert find(opened, "#good")[0].get_attribute("aria-pressed") == "false"
    press(opened, "uu")
    assert place(opened) == "Pair 1 of 12, 0 judged"


def test_kinds(opened, tmp_path):
    """Digits say what is wrong; a good pair keeps `thin` only; the file has both, with all that calibration needs."""
    names = list(KINDS)
    thin = names.index("thin") + 1
    press(opened, f"14b{thin}1g")
    _, lines = download(opened, tmp_path)
    assert [(line["good"], line["kinds"]) for line in lines] == [(False, [names[0], names[3]]), (True, ["thin"])]
    for line in lines:
        assert line["stratum_rows"] > 0
        assert set(line) >= {"id", "instruction", "output", "stratum", "stage", "reason", "measured", "judged", "run"}
        assert "text" not in line


def test_a_closed_tab_loses_nothing(opened):
    """Judgements are there again when the page is opened anew, and the first pair without one is shown."""
    press(opened, "gbg")
    opened.execute_script("changes = saved = 0")  # else the browser asks whether to leave
    opened.refresh()
    assert place(opened) == "Pair 4 of 12, 3 judged"


def test_buttons_do_what_keys_do(opened):
    """Everything can be done with the pointer, and every control has a name and takes the focus."""
    find(opened, "button[data-kind=off_topic]")[0].click()
    find(opened, "#bad")[0].click()
    assert place(opened) == "Pair 2 of 12, 1 judged"
    find(opened, "#undo")[0].click()
    assert place(opened) == "Pair 1 of 12, 0 judged"
    assert all(button.text and button.get_attribute("tabindex") != "-1" for button in find(opened, "button"))


def test_judged_to_the_end_and_taken_into_the_run(opened, run, tmp_path):
    """All judged, saved and taken: the run's verdicts are those of the page, and say how good the kept rows are."""
    press(opened, "g" * 12)
    assert "All 12 are judged" in find(opened, "#hint")[0].text
    file, lines = download(opened, tmp_path)
    assert len(lines) == 12
    (taken,) = take_verdicts(run, [file])
    verdicts = run_verdicts(run)
    assert taken.parent == run / "verdicts"
    assert {v.id for v in verdicts} == {line["id"] for line in lines}
    assert all(verdict.good for verdict in verdicts)
    assert precision(verdicts).value == 1
    report = read_report(run / "report.json")
    folder = RunFolder(run)
    files = [folder.kept_files(split) for split in report.splits]
    rejected = [folder.rejected / f"{split}.parquet" for split in report.splits]
    assert still_true(verdicts, files, rejected) == verdicts


def test_policy_matches(page):
    """The content security policy allows the page's own script and style, nothing from anywhere."""
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'")
    assert base64.b64decode(re.search(r"script-src 'sha256-([^']*)'", policy.replace("&#39;", "'"))[1])
    assert not re.search(r"https?:", re.sub(r'id="data">.*?</script>', "", text, flags=re.DOTALL))


# --- which pairs -------------------------------------------------------------------------------------------------


def test_strata(run):
    """Kept rows near and far from the threshold and rejected rows of each reason that have an instruction are drawn."""
    drawn = draw(RunFolder(run), read_report(run / "report.json"), sample=60)
    counts = Counter(pair["stratum"] for pair in drawn)
    assert counts == {
        "kept, near a threshold": 15,
        "kept, far from all thresholds": 15,
        "rejected, score: below_threshold": 30,
    }
    rows = {pair["stratum"]: pair["stratum_rows"] for pair in drawn}
    assert rows["kept, near a threshold"] + rows["kept, far from all thresholds"] == 240
    near = [pair["measured"]["score"] for pair in drawn if pair["stratum"] == "kept, near a threshold"]
    far = [pair["measured"]["score"] for pair in drawn if pair["stratum"] == "kept, far from all thresholds"]
    assert max(near) <= min(far)
    assert {pair["value"] for pair in drawn} == {None, 0.21}, "of rejected ones, the number that they were rejected for"


def test_the_same_seed_draws_the_same_pairs(run):
    """A page can be written again; another seed draws others."""
    report = read_report(run / "report.json")
    ids = [[pair["id"] for pair in draw(RunFolder(run), report, seed=seed)] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    assert len(set(ids[0])) == 60


def test_no_pair_to_judge_is_an_error(tmp_path):
    """A run in which no row got an instruction, or none at all, is named."""
    with pytest.raises(RunError, match=r"report\.json does not exist"):
        write_review(tmp_path)
    run = make_run(tmp_path / "empty", {"wudao": 0})
    with pytest.raises(RunError, match=r"no row of .* has an instruction to judge"):
        write_review(run)


def test_places_are_shared_out():
    """Half of the sample is of kept rows; what one side lacks, the other gets; no more is drawn than there is."""

    def strata(*sizes):
        return [Stratum(str(size), [("a", 0)] * abs(size), size > 0) for size in sizes]

    assert allot(strata(100, 100, -100, -100), 60) == [15, 15, 15, 15]
    assert allot(strata(100, 100, -3), 60) == [29, 28, 3]
    assert allot(strata(4, 5, -100), 60) == [4, 5, 51]
    assert allot(strata(4, -2), 60) == [4, 2]


# --- verdicts ----------------------------------------------------------------------------------------------------


def test_each_stratum_weighs_what_it_stands_for():
    """The share of good rows is that of all kept ones, not of those that happened to be drawn."""
    near = [Verdict(good=number == 0, id=f"n{number}", stratum="near", stratum_rows=100) for number in range(10)]
    far = [Verdict(good=True, id=f"f{number}", stratum="far", stratum_rows=900) for number in range(10)]
    rejected = [Verdict(good=True, stratum="rejected", stratum_rows=10**6, reason="score: low_score")]
    share = precision(near + far + rejected)
    assert share.value == pytest.approx((100 * 0.1 + 900) / 1000)
    assert share.low < share.value < share.high <= 1
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


def test_verdicts_of_another_run_are_refused(run, tmp_path):
    """A file that was saved for another run, or holds nothing, is not taken."""
    for text, message in (('{"good": true, "run": "other"}\n', "is about the run `other`"), ("\n", "holds no verdict")):
        (tmp_path / "v.jsonl").write_text(text)
        with pytest.raises(RunError, match=message):
            take_verdicts(run, [tmp_path / "v.jsonl"])
    assert not (run / "verdicts/v.jsonl").exists()


def test_a_later_verdict_on_a_row_counts(run, tmp_path):
    """Of two verdicts on one row, that of the file whose name comes last stands."""
    (tmp_path / "verdicts").mkdir()
    for name, good in (("a", "true"), ("b", "false")):
        (tmp_path / f"verdicts/{name}.jsonl").write_text(f'{{"id": "x", "good": {good}}}\n')
    assert [verdict.good for verdict in run_verdicts(tmp_path)] == [False]


def test_verdicts_on_rows_that_changed_do_not_count(tmp_path):
    """A verdict is about an instruction and an answer: when the run is built anew and gives others, it is void."""
    folder = RunFolder(make_run(tmp_path / "run", {"wudao": 6}))
    pairs = draw(folder, read_report(folder.report_path), sample=6)
    verdicts = [
        Verdict(good=True, id=p["id"], instruction=p["instruction"], output=p["output"])
        for p in pairs
        if p["reason"] is None
    ]
    files, rejected = [folder.kept_files("wudao")], [folder.rejected / "wudao.parquet"]
    assert still_true(verdicts, files, rejected) == verdicts
    shutil.rmtree(folder.path)
    make_run(folder.path, {"wudao": 6}, seed=1)
    assert still_true(verdicts, files, rejected) == []
