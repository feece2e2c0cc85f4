"""Take the pictures of docs/look.md: `python docs/look.py RUN`, of a finished run.

Needs Chromium (`make browser`) and, for Chinese, a font of it (`fonts-wqy-microhei` on Debian).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver

from kun_builder.result.present import write_presentation
from kun_builder.result.review import Review, open_review, review_page

HERE = Path(__file__).parent
SIZE = 1000, 760
"""Pixels of a picture."""


def browser() -> webdriver.Chrome:
    """Headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
    ):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def take(chrome: webdriver.Chrome, picture: Path, page: Path, script: str = "") -> None:
    """A picture of the page, after the script was run on it."""
    chrome.get(page.as_uri())
    chrome.execute_script(script)
    chrome.save_screenshot(str(picture))


def main(run: Path, to: Path = HERE) -> None:
    """The report, one of its rows, and the review, which begins with pairs that were kept."""
    report = write_presentation(run)
    drawn = open_review(run)
    best = sorted(drawn.pairs, key=lambda pair: (pair["reason"] is not None, not pair["output"]))
    with tempfile.TemporaryDirectory() as folder:
        review = Path(folder) / "review.html"
        review.write_text(review_page(Review(drawn.run, best, drawn.folder), said=[]), "utf-8")
        chrome = browser()
        try:
            width, height = SIZE
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            take(chrome, to / "look-report.png", report)
            opened = (
                "document.querySelector('nav [data-tab=kept]').click(); document.querySelector('#kept summary').click()"
            )
            take(chrome, to / "look-rows.png", report, opened)
            take(chrome, to / "look-review.png", review)
        finally:
            chrome.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
