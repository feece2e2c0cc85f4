"""Every error of kun-builder, in one tree. Code decides by type and status, never by message text.

KunError                     a known failure: one line for the user, a hint, exit code 1
├── RecipeError              the recipe is wrong: file and line
├── PluginError              a plugin cannot be used: its name and package
├── SourceError              an input cannot be read at all (a single broken record is quarantined instead)
├── RunError                 the run folder is locked, incomplete or not what was expected
│   └── Stopped              the run was told to end before it was finished: exit code 75
├── ModelError               a model cannot be used: unknown, unreachable, refused
├── PublishError             a dataset cannot be published
├── TrainingError            training cannot start or its model does not fit its use
└── RequestError             one request to a model failed: HTTP status and endpoint
    ├── TransientError       409, 424, 429, 5xx, a time-out, a broken connection: tried again, elsewhere
    ├── RejectedError        400, 413, 422: this input is at fault; its row is quarantined
    └── FatalError           401, 403, 404: no request can succeed; the run stops at once (403, 451 among answers: row)

Drop                         not an error: a stage decided against a row, with a reason and a value
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from contextlib import suppress


def shown(name: object) -> str:
    """The name of a file, a field or the like as it can stand in a line: control characters are escaped."""
    text = str(name)
    with suppress(UnicodeEncodeError):  # half a character that stands for no byte of a file's name: escaped below
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if harmless(char) else char.encode("unicode_escape").decode() for char in text)


def harmless(char: str) -> bool:
    """Whether a character is visible, or a space of any width."""
    return char.isprintable() or unicodedata.category(char) == "Zs"


class KunError(Exception):
    """A failure that the user can act on: `message` says what and where, `hint` says the cure."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class RecipeError(KunError):
    """The recipe is wrong; the message starts with `file:line`."""


class PluginError(KunError):
    """A plugin cannot be loaded or used; the message names it and the package that owns it."""


class SourceError(KunError):
    """An input cannot be read at all."""


class RunError(KunError):
    """A run folder cannot be used as asked."""


class Stopped(RunError):
    """The run was told to end before it was finished, by a time limit or a signal; the next start goes on with it."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the run is not finished: {why}",
            hint="all that was answered is kept; run the same command again to go on",
        )


class ModelError(KunError):
    """A model cannot be used at all."""


class PublishError(KunError):
    """A dataset cannot be published."""


class TrainingError(KunError):
    """Training cannot start, or a trained model does not fit its use."""


class RequestError(KunError):
    """One request failed. `status` is the HTTP status, or 0 where no answer came."""

    def __init__(
        self, message: str, *, status: int = 0, endpoint: str = "", retry_after: float | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.endpoint = endpoint
        self.retry_after = retry_after


class TransientError(RequestError):
    """The request is worth trying again; after `retry_after` seconds, if the server asks for such a pause."""


class RejectedError(RequestError):
    """The server refuses this very input. Trying again cannot help, and other rows are not concerned."""


class FatalError(RequestError):
    """The server refuses the run as a whole: every further request would fail in the same way."""


class Drop(Exception):  # a verdict, not an error: stages raise it to drop a row
    """A `RowStage` raises it to drop its row, and `parse` of a source to leave out a record. It takes the reason (a
    fixed word, which is counted) and the measured value.

    `added` are columns that the row keeps even so, for example the instruction that was refused.
    """

    def __init__(self, reason: str, value: object = None, /, **added: object) -> None:
        super().__init__(reason)
        self.reason = str(reason)
        self.value = "" if value is None else str(value)
        self.added = added


def suggest(name: str, valid: Iterable[str]) -> str:
    """The end of a message about an unknown `name`: the nearest valid one, or the valid ones where none is near."""
    import difflib

    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; there is {', '.join(f'`{name}`' for name in names[:20])}" if names else "; there is none"
