"""Tries again what the Hub may answer the next time. Type and status of an error decide that, never its text.

* 429, for as long as the server's `Retry-After` says; 408, 425, 5xx; broken connections and time-outs; answers that are
  no JSON, such as an outage page: these are tried again after a pause that doubles, up to `Retry.tries` times.
* 409 and 412 raise `Conflict`: somebody wrote at the same time, and the caller has to look again.
* 401, 403, 404 and any other 4xx raise PublishError at once, with the cure.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError

from kun_builder.errors import PublishError
from kun_builder.retry_after import asked_pause

Result = TypeVar("Result")
_STRANGE = (json.JSONDecodeError, KeyError, TypeError, AttributeError, FileMetadataError)
"""What the clients raise for an answer with status 200 that is not the Hub's: an outage page, an error as a body."""
_RAISED = (OSError, httpx2.HTTPError, RuntimeError, ValueError, *_STRANGE)
"""All that the clients raise for an answer or for the lack of one: uploads in threads wrap it in a RuntimeError, hf_xet
raises ConnectionError whatever the status was."""

_CURES = {
    400: "the Hub refuses what was sent",
    401: "log in with `hf auth login`, or give a valid token with --token or HF_TOKEN",
    403: "the token needs write permission for this repository: https://huggingface.co/settings/tokens",
    404: "check the name, and that the token may see the repository",
    413: "a file or the commit is too large for the Hub",
}


class StrangeAnswer(ConnectionError):
    """An answer with status 200 that cannot be the Hub's."""


class LookAgain(Exception):  # not an error of the user's: the caller reads the head again, and decides
    """The repository may have changed, so it has to be read again before the next attempt.

    wish: seconds that the Hub asked to wait.
    """

    def __init__(self, what: str, wish: float | None = None) -> None:
        super().__init__(what)
        self.wish = wish


class Conflict(LookAgain):
    """409 or 412: the repository changed, or a name is taken."""


class ReaderFailed(ConnectionError):
    """The process that reads a dataset back failed. The message is its last line; what the Hub said is not known."""


class LostAnswer(LookAgain):
    """No answer came to a request which must not be sent twice: it may have been carried out, or not."""


@dataclass(frozen=True)
class Retry:
    """How often to try, and how long to wait in between.

    The first pause is of `wait` seconds; each one is twice as long as the one before, up to `longest`. Where the server
    says how long to wait, that counts instead, up to ten times `longest`.
    """

    tries: int = 6
    wait: float = 1.0
    longest: float = 60.0
    say: Callable[[str], None] = lambda message: None
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, what: str, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Call the function with the arguments, again and again while that can help, and return what it returns.

        Raises PublishError or Conflict. An error that is not the Hub's is raised as it is.
        """
        attempt = 1
        while True:
            try:
                return function(*args, **kwargs)
            except _RAISED as error:
                if not _from_the_hub(error):
                    raise
                if attempt >= self.tries or not _passing(error):
                    raise _refused(what, error, attempt) from error
                self.pause(f"{what}: {_name(error)}", attempt, _status(error)[1])
            attempt += 1

    def once(self, what: str, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Call a function once, which must not be called twice. Raises LostAnswer where `__call__` would try again."""
        try:
            return function(*args, **kwargs)
        except _RAISED as error:
            if not _from_the_hub(error):
                raise
            if _passing(error):
                raise LostAnswer(f"{what}: {_name(error)}", _status(error)[1]) from error
            raise _refused(what, error) from error

    def look_again(self, gave_up: str, attempt: Callable[[], Result]) -> Result:
        """Call `attempt`, which reads what the Hub has first, and call it again where it raises LookAgain.

        Raises PublishError once that has been tried often enough.
        """
        for number in range(1, self.tries + 1):
            try:
                return attempt()
            except LookAgain as reason:
                if number < self.tries:
                    self.pause(str(reason), number, reason.wish)
        message = f"{gave_up} in {self.tries} attempts"
        raise PublishError(message, hint="push again; what was uploaded stays")

    def pause(self, why: str, attempt: int, wish: float | None = None) -> None:
        """Say why another attempt is needed, and wait before attempt number `attempt` + 1."""
        seconds = min(self.longest, self.wait * 2 ** (attempt - 1)) if wish is None else min(wish, 10 * self.longest)
        self.say(f"{why}; trying again in {seconds:g} s ({attempt} of {self.tries})")
        self.sleep(seconds)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from, since uploads in threads wrap their errors."""
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: Exception) -> tuple[int, float | None]:
    """The HTTP status behind an error, 0 where no answer came, and the seconds that the server asked us to wait."""
    for link in _chain(error):
        if isinstance(link, HfHubHTTPError):
            return link.response.status_code, asked_pause(link.response.headers.get("Retry-After", ""))
    return 0, None


def answered(error: Exception) -> int:
    """The HTTP status behind an error; 0 where no answer came."""
    return _status(error)[0]


def _from_the_hub(error: Exception) -> bool:
    """Whether an error is an answer of the Hub's, or comes of a broken connection or of an answer that was none."""
    broken = (httpx2.TransportError, ConnectionError, LocalEntryNotFoundError)
    return bool(answered(error)) or _strange(error) or any(isinstance(link, broken) for link in _chain(error))


def _passing(error: Exception) -> bool:
    """Whether another attempt can help, as it can where no answer came."""
    status = answered(error)
    return status in (0, 408, 425, 429) or status >= 500


def _strange(error: Exception) -> bool:
    return any(isinstance(link, (StrangeAnswer, *_STRANGE)) for link in _chain(error))


def _name(error: Exception) -> str:
    status = answered(error)
    if isinstance(error, ReaderFailed):
        return f"a reader failed ({error})"
    if not status and _strange(error):
        return "what came was not an answer of the Hub's"
    return (
        f"the Hub answered {status}" if status else f"the connection failed ({type(error.__cause__ or error).__name__})"
    )


def _refused(what: str, error: Exception, attempt: int = 1) -> Conflict | PublishError:
    """What is raised for an error of the Hub's that no further attempt follows."""
    status = answered(error)
    if status in (409, 412):
        return Conflict(f"{what}: somebody else wrote at the same time")
    times = f" {attempt} times" if attempt > 1 and _passing(error) else ""
    message = f"{what}: {_name(error)}{times}"
    said = getattr(error, "server_message", None)
    hint = _CURES.get(status, "try again later; what was uploaded stays, and a further push goes on from there")
    return PublishError(f"{message}: {said}" if said else message, hint=hint)
