"""Waiting for the Hub: what is tried again, how long it is waited for, and what is left to the caller or the user."""

import json
import time
from email.utils import formatdate

import httpx2
import pytest
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError

from kun_builder.errors import PublishError
from kun_builder.hub.retry import Conflict, LookAgain, LostAnswer, ReaderFailed, Retry, StrangeAnswer, answered


def answer(status, **headers):
    """The Hub's client's error for an answer of this status."""
    request = httpx2.Request("GET", "http://127.0.0.1/")
    return HfHubHTTPError("no", response=httpx2.Response(status, headers=headers, request=request))


class Hub:
    """Raises what it is given, one after the other, then says `done`; keeps the waits and what was said."""

    def __init__(self, *errors, tries=6, **settings):
        self.errors, self.asked, self.waits, self.said = list(errors), 0, [], []
        self.retry = Retry(tries=tries, say=self.said.append, sleep=self.waits.append, **settings)

    def __call__(self, *args):
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), (lambda: formatdate(time.time() + 30, usegmt=True), 30)])
def test_the_hub_says_how_long_to_wait(header, seconds):
    """A 429 is tried again after the seconds, or at the date, that its `Retry-After` names."""
    hub = Hub(answer(429, **{"Retry-After": header if isinstance(header, str) else header()}))
    assert hub.retry("asking", hub) == "done"
    assert hub.waits == [pytest.approx(seconds, abs=3)]


def test_a_wish_has_a_limit():
    """A wish of the server goes before our own waits, up to ten times the longest of them."""
    hub = Hub(answer(429, **{"Retry-After": "90"}), answer(503, **{"Retry-After": "99999"}), longest=60.0)
    assert hub.retry("asking", hub) == "done"
    assert hub.waits == [90, 600]


def test_waits_double_up_to_the_longest():
    """Without a wish, the wait doubles from the first one on; each is said with its reason and number."""
    hub = Hub(*(answer(503) for _ in range(5)), wait=1.0, longest=6.0)
    assert hub.retry("asking", hub) == "done"
    assert hub.waits == [1, 2, 4, 6, 6]
    assert hub.said[0] == "asking: the Hub answered 503; trying again in 1 s (1 of 6)"
    assert hub.said[-1].endswith("(5 of 6)")


PASSING = [408, 425, 429, 500, 502, 599]
BROKEN = [
    ConnectionError("gone"),
    httpx2.ReadTimeout("late"),
    LocalEntryNotFoundError("neither there nor in the cache"),
    json.JSONDecodeError("page", "<html>", 0),
    KeyError("sha"),
    TypeError("string indices must be integers"),
    AttributeError("'list' object has no attribute 'get'"),
    FileMetadataError("no ETag"),
]


@pytest.mark.parametrize("error", [*map(answer, PASSING), *BROKEN], ids=lambda error: str(error)[:20])
def test_what_may_pass_is_tried_to_the_end(error):
    """Outages, refusals for now and broken connections: all attempts, then an error with their number."""
    hub = Hub(*[error] * 9, tries=3)
    with pytest.raises(PublishError, match=r"^asking: .* 3 times$") as caught:
        hub.retry("asking", hub)
    assert (hub.asked, len(hub.waits)) == (3, 2)
    assert "try again later" in caught.value.hint
    assert answered(caught.value) == (error.response.status_code if isinstance(error, HfHubHTTPError) else 0)


def test_by_default_an_outage_of_half_a_minute_is_waited_for():
    """Six attempts, with 31 seconds between the first and the last one."""
    waits = []
    hub = Hub(*(answer(503) for _ in range(9)))
    with pytest.raises(PublishError, match=r"503 6 times$"):
        Retry(sleep=waits.append)("asking", hub)
    assert waits == [1, 2, 4, 8, 16]


def caused(error, cause):
    """The error as one that another has led to."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answer(503), "the Hub answered 503"),
        (ConnectionError("gone"), "the connection failed (ConnectionError)"),
        (caused(RuntimeError("in a thread"), httpx2.ReadTimeout("late")), "the connection failed (ReadTimeout)"),
        (json.JSONDecodeError("page", "<html>", 0), "what came was not an answer of the Hub's"),
        (StrangeAnswer("no commit"), "what came was not an answer of the Hub's"),
        (caused(RuntimeError("in a thread"), KeyError("sha")), "what came was not an answer of the Hub's"),
        (ReaderFailed("FileNotFoundError: data"), "a reader failed (FileNotFoundError: data)"),
    ],
    ids=["status", "connection", "cause", "page", "strange", "strange-cause", "reader"],
)
def test_what_has_gone_wrong_is_said(error, said):
    """The reason of each wait, and of the end, is what came back, by type and status; how often, if more than once."""
    hub = Hub(error, error, tries=2, wait=1.0)
    with pytest.raises(PublishError) as caught:
        hub.retry("asking", hub)
    assert hub.said == [f"asking: {said}; trying again in 1 s (1 of 2)"]
    assert caught.value.message == f"asking: {said} 2 times"
    with pytest.raises(PublishError) as once:
        Hub(tries=1).retry("asking", Hub(error))
    assert once.value.message == f"asking: {said}"


def test_the_words_of_the_hub_go_along():
    """What the Hub says of a refusal stands behind what it means."""
    refused = answer(403)
    refused.server_message = "You have no access to lab/x"
    hub = Hub(refused)
    with pytest.raises(PublishError, match=r"^asking: the Hub answered 403: You have no access to lab/x$"):
        hub.retry("asking", hub)


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        (400, "refuses"),
        (401, "hf auth login"),
        (403, "write permission"),
        (404, "name"),
        (413, "large"),
        (418, "later"),
    ],
)
def test_what_cannot_pass_is_an_error_at_once(status, cure):
    """A refusal for good is not asked again, and comes with its cure."""
    hub = Hub(answer(status))
    with pytest.raises(PublishError, match=f"^asking: the Hub answered {status}$") as caught:
        hub.retry("asking", hub)
    assert (hub.asked, hub.waits) == (1, [])
    assert cure in caught.value.hint


def test_a_refusal_after_outages_is_one_refusal():
    """What is refused for good at the third attempt was not refused three times."""
    hub = Hub(answer(503), answer(503), answer(403))
    with pytest.raises(PublishError, match=r"^asking: the Hub answered 403$"):
        hub.retry("asking", hub)
    assert hub.asked == 3


@pytest.mark.parametrize("status", [409, 412])
def test_somebody_else_wrote(status):
    """A conflict is the caller's to look at: neither tried again nor an error of the user's."""
    hub = Hub(answer(status))
    with pytest.raises(Conflict):
        hub.retry("asking", hub)
    assert hub.asked == 1


@pytest.mark.parametrize("way", ["__call__", "once"])
def test_what_is_called_gets_its_arguments(way):
    """Both ways of calling hand on what they are given, and give back what comes."""
    assert getattr(Retry(), way)("asking", dict, [("a", 1)], b=2) == {"a": 1, "b": 2}


@pytest.mark.parametrize("way", ["__call__", "once"])
def test_a_fault_of_ours_is_no_outage(way):
    """What no server has caused is raised as it is, and not tried again."""
    hub = Hub(FileNotFoundError("part.parquet"))
    with pytest.raises(FileNotFoundError):
        getattr(hub.retry, way)("asking", hub)
    assert hub.asked == 1


def test_errors_of_threads_are_those_they_were_raised_from():
    """Uploads in threads wrap their errors; the cause decides."""
    wrapped = RuntimeError("Error while uploading 'a'")
    wrapped.__cause__ = answer(503)
    hub = Hub(wrapped)
    assert hub.retry("uploading", hub) == "done"
    assert "the Hub answered 503" in hub.said[0]


@pytest.mark.parametrize("error", [answer(503, **{"Retry-After": "5"}), ConnectionError("gone")], ids=["503", "broken"])
def test_what_must_not_be_sent_twice_is_sent_once(error):
    """Whether a commit was made is not known when its answer is lost: one attempt, and the server's wish goes along."""
    hub = Hub(error)
    with pytest.raises(LostAnswer) as caught:
        hub.retry.once("committing", hub)
    assert (hub.asked, hub.waits) == (1, [])
    assert caught.value.wish == (5 if isinstance(error, HfHubHTTPError) else None)


def test_a_commit_that_is_refused_is_no_lost_answer():
    """A refusal of what is sent once is an error with its cure, and a conflict one to look at."""
    hub = Hub(answer(403), answer(412))
    with pytest.raises(PublishError, match="committing: the Hub answered 403"):
        hub.retry.once("committing", hub)
    with pytest.raises(Conflict):
        hub.retry.once("committing", hub)


def test_looking_again_begins_anew():
    """An attempt that must be made anew is, after a wait; the wish of the lost answer is kept to."""
    hub = Hub(LookAgain("somebody wrote"), LostAnswer("no answer", 9), wait=1.0)
    assert hub.retry.look_again("could not commit", hub) == "done"
    assert hub.waits == [1, 9]
    assert hub.said == ["somebody wrote; trying again in 1 s (1 of 6)", "no answer; trying again in 9 s (2 of 6)"]


def test_looking_again_ends():
    """After as many attempts as allowed the user is told, without a last wait."""
    hub = Hub(*(LookAgain("somebody wrote") for _ in range(9)), tries=3)
    with pytest.raises(PublishError, match=r"^could not commit in 3 attempts$") as caught:
        hub.retry.look_again("could not commit", hub)
    assert caught.value.hint == "push again; what was uploaded stays"
    assert (hub.asked, len(hub.waits)) == (3, 2)
