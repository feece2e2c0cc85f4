"""The review page, in a real browser: pairs are judged by keys, hostile text stays text, verdicts arrive in the run.

Served by kun-build, it gives each verdict at once; as a file, it saves them for `--take`.
"""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path

import pytest
from finished_runs import make_run

from kun_builder.report import read_report
from kun_builder.result.review import Review, open_review, review_page, write_page
from kun_builder.result.review_server import serve_review
from kun_builder.result.review_store import open_store
from kun_builder.result.verdicts import precision, still_true, take_verdicts
from kun_builder.run.folder import RunFolder
from kun_builder.run.verdicts import KINDS, read_verdicts, verdicts_in

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> {{ 7*7 }} \u2028"
)
NAMES = list(KINDS)
THIN = str(NAMES.index("thin") + 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run whose every text tries to break out of the page."""
    folder = tmp_path_factory.mktemp("review")
    return make_run(folder / "run", {"wudao": 200, "skypile": 40}, text=HOSTILE, name="review <b>of</b> & all")


@pytest.fixture
def review(run, tmp_path) -> Review:
    """Twelve pairs; verdicts go into a folder of the test's own."""
    drawn = open_review(run, sample=12)
    assert drawn.folder == run / "verdicts"
    return Review(drawn.run, drawn.pairs, tmp_path / "verdicts")


@pytest.fixture
def served(review):
    with open_store(review, "me") as store, serve_review(review, store) as address:
        yield address


def visit(browser, url):
    """Open a page; afterwards the browser has complained of nothing."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(url)
    yield browser
    browser.execute_script("saved = changes")  # so that leaving the page asks nobody
    assert browser.get_log("browser") == []
    assert browser.title.startswith("review <b>of</b> & all"), "text of the corpus has run as a script"


@pytest.fixture
def opened(browser, served):
    """The page as kun-build serves it."""
    yield from visit(browser, served.url)


@pytest.fixture
def opened_file(browser, review, tmp_path):
    """The page as a file, for somebody who comes for the first time."""
    write_page(review, tmp_path / "page.html")
    visited = visit(browser, (tmp_path / "page.html").as_uri())
    yield next(visited)
    browser.execute_script("localStorage.clear()")
    yield from visited


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def press(browser, keys):
    """Press keys, and wait until the page has done what each says."""
    for key in keys:
        find(browser, "body")[0].send_keys(key)
    browser.execute_async_script("last.then(() => arguments[0]())")


def click(browser, selector):
    find(browser, selector)[0].click()
    browser.execute_async_script("last.then(() => arguments[0]())")


def place(browser):
    return find(browser, "#place")[0].text


def shown(browser):
    return find(browser, "#instruction")[0].text


def hint(browser):
    return find(browser, "#hint")[0].text


def requests(browser):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def download(browser, folder):
    """The file that S saves."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    press(browser, "s")
    deadline = time.monotonic() + 100
    while not (files := list(folder.glob("verdicts-*.jsonl"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return files[0]


# --- one pair at a time ------------------------------------------------------------------------------------------


def test_the_page_asks_only_for_itself(opened):
    """Nothing is loaded but the page, and nothing is sent but a verdict."""
    url = opened.current_url
    assert requests(opened) == [url]
    press(opened, "g")
    assert requests(opened) == [url + "verdict"]


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


def test_undo(opened, review):
    """U takes the last judgement back, also in the file, and opens its pair."""
    press(opened, "gg")
    press(opened, "u")
    assert place(opened) == "Pair 2 of 12, 1 judged"
    assert find(opened, "#good")[0].get_attribute("aria-pressed") == "false"
    assert len(verdicts_in(review.folder)) == 1
    press(opened, "uu")
    assert place(opened) == "Pair 1 of 12, 0 judged"
    assert verdicts_in(review.folder) == []


def test_buttons_do_what_keys_do(opened):
    """Everything can be done with the pointer, and every control has a name and takes the focus."""
    click(opened, "button[data-kind=off_topic]")
    click(opened, "#bad")
    assert place(opened) == "Pair 2 of 12, 1 judged"
    click(opened, "#undo")
    assert place(opened) == "Pair 1 of 12, 0 judged"
    assert all(button.text and button.get_attribute("tabindex") != "-1" for button in find(opened, "button"))


def test_a_text_alone(browser, tmp_path):
    """Where a run waits before there is a question, the text stands alone, with a rule of its own."""
    pair = {"id": "a:0", "instruction": "", "output": "", "text": "一段文字", "seen": "0"}
    write_page(Review("my-kun", [pair], tmp_path), tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    assert not find(browser, "#question")[0].is_displayed()
    assert find(browser, "#text")[0].text == "一段文字"
    assert "a text that the dataset should be made of" in find(browser, "#rule")[0].text


@pytest.mark.parametrize("served_page", [True, False])
def test_policy_matches(review, served_page):
    """The content security policy allows the page's own script and style, nothing from anywhere, and no request but
    those of a served page to where it is from."""
    text = review_page(review, said=[] if served_page else None)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'")
    assert ("connect-src 'self'" in policy) == served_page
    assert base64.b64decode(re.search(r"script-src 'sha256-([^']*)'", policy)[1])
    assert not re.search(r"https?:", re.sub(r'id="data">.*?</script>', "", text, flags=re.DOTALL))


# --- served: each verdict is in the run at once -------------------------------------------------------------------


def test_kinds_arrive(opened, review):
    """Digits say what is wrong; a good pair keeps `thin` only; each line has all that calibration needs."""
    press(opened, f"14b{THIN}1g")
    found = verdicts_in(review.folder)
    assert [(v.good, v.kinds) for v in found] == [(False, (NAMES[0], NAMES[3])), (True, ("thin",))]
    for line in map(json.loads, (review.folder / "me.jsonl").read_text("utf-8").splitlines()):
        assert line["stratum_rows"] > 0
        assert set(line) >= {"id", "instruction", "output", "stratum", "stage", "reason", "measured", "judged", "run"}
        assert "text" not in line


def test_the_kinds_of_a_judged_pair_change(opened, review):
    """A pair that was judged and is opened again is corrected where it stands."""
    press(opened, "b")
    opened.execute_script("open(0)")
    press(opened, "2")
    assert [verdict.kinds for verdict in verdicts_in(review.folder)] == [(NAMES[1],)]


def test_gone_on_with(opened, review, browser):
    """After a reload, and after kun-build was started again, judging goes on with the first pair without a verdict."""
    press(opened, "gbg")
    opened.refresh()
    assert place(opened) == "Pair 4 of 12, 3 judged"
    press(opened, "u")
    assert place(opened) == "Pair 3 of 12, 2 judged", "the last verdict is the last one still"


def test_judged_to_the_end(opened, served, review, run):
    """All judged and ended: the server is told, the verdicts are true of the run, and the page can do no more."""
    press(opened, "g" * 12)
    assert "All 12 are judged" in hint(opened)
    press(opened, "e")
    assert served.wait()
    assert "can be closed" in hint(opened)
    assert not any(button.is_enabled() for button in find(opened, "button"))
    verdicts = verdicts_in(review.folder)
    assert {v.id for v in verdicts} == {pair["id"] for pair in review.pairs}
    assert precision(verdicts).value == 1
    folder = RunFolder(run)
    files = [folder.kept_files(split) for split in read_report(folder.report_path).splits]
    assert still_true(verdicts, files, [list(folder.rejected.glob("*.parquet"))]) == verdicts


def test_what_is_not_written_is_not_judged(browser, review):
    """When kun-build has ended under the page, it says so, and counts no verdict that is nowhere."""
    with open_store(review, "me") as store, serve_review(review, store) as served:
        browser.get(served.url)
        press(browser, "g")
    press(browser, "g")
    assert "Not saved" in hint(browser)
    assert place(browser) == "Pair 2 of 12, 1 judged"
    browser.get_log("browser")  # it complains of the connection, rightly


# --- a file: for somebody who cannot reach the machine ------------------------------------------------------------


def test_a_file_saves_what_take_takes(opened_file, run, review, tmp_path):
    """Saved and taken, the verdicts are those that the server would have written."""
    assert requests(opened_file) == [opened_file.current_url]
    press(opened_file, f"14b{THIN}1g")
    file = download(opened_file, tmp_path)
    with open_store(review, "served") as store:
        store.say(0, False, [NAMES[0], NAMES[3]])
        store.say(1, True, ["thin"])
    assert read_verdicts(file) == read_verdicts(review.folder / "served.jsonl")
    (taken,) = take_verdicts(open_review(run), [file])
    assert taken.parent == run / "verdicts"
    assert len(verdicts_in(taken.parent)) == 2


def test_a_closed_tab_loses_nothing(opened_file):
    """Judgements on a file are there again when the page is opened anew, and the first pair without one is shown."""
    press(opened_file, "gbg")
    opened_file.execute_script("changes = saved = 0")  # else the browser asks whether to leave
    opened_file.refresh()
    assert place(opened_file) == "Pair 4 of 12, 3 judged"
