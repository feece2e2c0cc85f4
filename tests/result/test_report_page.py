"""The report page, in a real browser: it opens without a network, filters, searches, and shows rows as they are."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from finished_runs import make_run

from kun_builder.result.finished import open_run
from kun_builder.result.loading import check_loads
from kun_builder.result.present import write_presentation

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> {{ 7*7 }} \u2028"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page of a run whose every text tries to break out of it."""
    folder = tmp_path_factory.mktemp("report")
    run = make_run(folder / "run", {"wudao": 900, "skypile": 120}, text=HOSTILE, name="report <b>of</b> & all")
    return write_presentation(run)


@pytest.fixture
def opened(browser, page):
    """The page, freshly opened; afterwards the browser must have had nothing to complain of."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == []
    assert browser.title.startswith("report <b>of</b> & all"), "text of the corpus has run as a script"


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def open_tab(browser, name):
    find(browser, f"nav button[data-tab={name}]")[0].click()


def counted(browser, section):
    return int(find(browser, f"#{section} .count")[0].text.split(" of ")[0].replace(",", ""))


def test_overview(opened):
    """The funnel of each split and all pictures are there, drawn."""
    assert [heading.text for heading in find(opened, "#overview h2")][:2] == ["wudao", "skypile"]
    assert "below_threshold 150" in find(opened, "#overview")[0].text
    pictures = find(opened, "#overview img")
    assert len(pictures) == 5
    assert all(opened.execute_script("return arguments[0].naturalWidth", picture) > 300 for picture in pictures)


def test_no_network(opened):
    """The page asks for nothing but itself."""
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {opened.current_url}


def test_search(opened):
    """A search leaves the rows that contain every word, in any column."""
    open_tab(opened, "kept")
    every = counted(opened, "kept")
    box = find(opened, "#kept input")[0]
    box.send_keys("候鸟 解释")
    found = counted(opened, "kept")
    assert 0 < found < every
    assert all("解释候鸟" in row.text for row in find(opened, "#kept summary"))
    box.send_keys(" nowhere-in-the-data")
    assert counted(opened, "kept") == 0


def test_filters(opened):
    """Rejected rows can be narrowed down to a split and a reason."""
    open_tab(opened, "rejected")
    every = counted(opened, "rejected")
    choose = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
    split, reason = find(opened, "#rejected select[data-column]")
    assert len(find(opened, "#rejected select[data-column=reason] option")) == 4
    opened.execute_script(choose, reason, "perplexity: too_high")
    some = counted(opened, "rejected")
    opened.execute_script(choose, split, "skypile")
    assert 0 < counted(opened, "rejected") < some < every
    assert all(
        "skypile" in row.text and "perplexity: too_high" in row.text for row in find(opened, "#rejected summary")
    )


def test_open_a_row(opened):
    """An opened row shows raw and polished answer side by side with the differences marked, as plain text."""
    open_tab(opened, "kept")
    find(opened, "#kept summary")[0].click()
    row = find(opened, "#kept details")[0]
    assert row.find_elements("css selector", "ins")
    assert row.find_elements("css selector", "del")
    left, right = row.find_elements("css selector", ".pair > div")
    assert left.location["y"] == right.location["y"]
    assert left.location["x"] < right.location["x"]
    assert "</script><script>document.title" in row.text
    assert "perplexity:" in row.text


def test_sorting(opened):
    """Rows can be put in the order of any number that was measured, and rows without it are not among them."""
    open_tab(opened, "kept")
    from selenium.webdriver.support.wait import WebDriverWait

    order = find(opened, "#kept select.sort")[0]
    choose = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
    scores = {}
    for way in ("-score", "+score"):
        opened.execute_script(choose, order, way)
        find(opened, "#kept summary")[0].click()
        row = find(opened, "#kept details")[0]
        said = WebDriverWait(opened, 20).until(lambda _, row=row: re.search(r"score: ([\d.]+)", row.text))
        scores[way] = float(said[1])
    assert scores == {"-score": 0.99, "+score": 0.5}


def test_tabs_have_addresses(opened):
    """A tab is opened by the page's address, which changes with the tab; back goes back."""
    open_tab(opened, "rejected")
    assert opened.current_url.endswith("#rejected")
    opened.get(opened.current_url.replace("#rejected", "#kept"))
    assert find(opened, "#kept .rows")[0].is_displayed()
    opened.back()
    assert find(opened, "#rejected .rows")[0].is_displayed()


@pytest.mark.parametrize("width", [360, 601, 800, 1001, 1400])
def test_every_width(opened, width):
    """At any width the page is not wider than the screen, every count of the funnel is in view, pictures fill it."""
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
        inside = "const box = arguments[0].getBoundingClientRect(); return [box.left, box.right]"
        boxes = [opened.execute_script(inside, cell) for cell in find(opened, "table.funnel td:last-child")]
        assert boxes
        assert all(left >= 0 and right <= width for left, right in boxes)
        picture = find(opened, "#overview img")[0]
        assert picture.size["width"] >= 0.9 * (min(width, 1120) - 40)
        scale = picture.size["width"] / opened.execute_script("return arguments[0].naturalWidth", picture)
        assert scale * 11 > 9, "the letters of the axes are at least nine pixels high"
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_overview_says_what_was_done(opened):
    """Each step opens to its options and prompts; measured values, texts and times are in tables."""
    steps = find(opened, "details.step")
    assert [step.text.split()[0] for step in steps] == ["perplexity", "label", "score"]
    for step in steps:
        step.find_element("css selector", "summary").click()
    assert "threshold: 0.5" in steps[2].text
    assert "请为下面的文本写一条指令" in steps[1].text
    assert "≥ 0.5" in find(opened, "table.measured")[0].text
    assert "12.5" in find(opened, "table.durations")[0].text
    assert len(find(opened, "table.texts tr")) == 5


def test_more_rows(opened):
    """A long list is shown a page at a time."""
    open_tab(opened, "kept")
    assert len(find(opened, "#kept details")) == 50
    find(opened, "#kept button.more")[0].click()
    assert len(find(opened, "#kept details")) == 100


def test_card_of_the_folder(page):
    """The same command writes the card into the dataset's folder, which `load_dataset` reads as before."""
    dataset = page.parent / "dataset"
    assert (dataset / "README.md").read_text("utf-8").count("![") == 5
    assert (dataset / "recipe.lock.yaml").read_bytes() == (page.parent / "recipe.lock.yaml").read_bytes()
    rows = {"wudao": 900, "skypile": 120}
    assert check_loads(open_run(page.parent)) == {"default": rows, "provenance": rows}


def test_every_reason_is_sampled(page):
    """Rare reasons have rows on the page, too, and the whole stays small however large the run is."""
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1])
    reasons = {(row["split"], row["_stage"]) for row in data["rejected"]}
    assert len(reasons) == 6
    assert data["totals"] == {"read": 1530, "kept": 1020, "rejected": 510}
    assert len(data["kept"]) == 300 + 120, "an even share of each split, and all rows of a small one"
    assert len(data["rejected"]) == 3 * 40 + 3 * 20, "all of a reason, if it is rare"
    assert page.stat().st_size < 4e6


def test_page_does_not_grow(tmp_path):
    """Ten times the rows make no larger page: counts and pictures are of all of them, rows on the page are a sample."""
    small, large = (write_presentation(make_run(tmp_path / str(n), {"wudao": n})) for n in (1_200, 12_000))
    assert large.stat().st_size < 1.1 * small.stat().st_size
    assert "12,000 rows kept of 18,000 read" in large.read_text("utf-8")


def test_policy_matches(page):
    """The content security policy names exactly the script and the style of the page."""
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'")
    assert base64.b64decode(re.search(r"script-src 'sha256-([^']*)'", policy.replace("&#39;", "'"))[1])
    assert "http:" not in re.sub(r'id="data">.*?</script>', "", text, flags=re.DOTALL).replace("xmlns=", "")
