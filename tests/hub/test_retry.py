"""Waiting for the Hub: as long as it asks for, in either form of the header."""

import time
from email.utils import formatdate

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from kun_builder.hub.retry import Retry


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), (lambda: formatdate(time.time() + 30, usegmt=True), 30)])
def test_the_hub_says_how_long_to_wait(header, seconds):
    """A 429 is tried again after the seconds, or at the date, that its `Retry-After` names."""
    after = header if isinstance(header, str) else header()
    request = httpx2.Request("GET", "http://127.0.0.1/")
    answers = [
        HfHubHTTPError("no", response=httpx2.Response(429, headers={"Retry-After": after}, request=request)),
        None,
    ]
    waited = []

    def ask():
        if error := answers.pop(0):
            raise error
        return "done"

    assert Retry(sleep=waited.append)("asking", ask) == "done"
    assert waited == [pytest.approx(seconds, abs=3)]
