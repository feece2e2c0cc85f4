"""Whether a token may write is asked of the Hub before the work, in as few questions as it takes."""

from __future__ import annotations

import pytest
from hub.test_retry import answer

from kun_builder.errors import PublishError
from kun_builder.hub.access import check_writable
from kun_builder.hub.retry import Retry


class Api:
    """A Hub that answers the two questions with these statuses, or with who somebody is."""

    def __init__(self, auth=200, whoami=200, name="alice"):
        self._auth, self._whoami, self._name = auth, whoami, name
        self.asked = []

    def auth_check(self, **repo):
        self.asked.append("auth")
        if self._auth != 200:
            raise answer(self._auth)

    def whoami(self):
        self.asked.append("whoami")
        if self._whoami != 200:
            raise answer(self._whoami)
        return {"name": self._name}


@pytest.mark.parametrize(
    ("api", "exists", "asked"),
    [
        (Api(), True, ["auth"]),
        (Api(), False, ["whoami"]),
        (Api(auth=404), True, ["auth", "whoami"]),
        (Api(auth=404, whoami=404), True, ["auth", "whoami"]),
        (Api(whoami=405), False, ["whoami"]),
    ],
    ids=["may", "new", "unknown", "both-unknown", "no-method"],
)
def test_may_write(api, exists, asked):
    """A repository that is there is asked about itself, a new one about its owner; a server that knows neither
    question decides when it is written to."""
    check_writable(api, "alice/x", Retry(tries=1), exists=exists)
    assert api.asked == asked


@pytest.mark.parametrize(
    ("api", "exists", "asked"),
    [
        (Api(auth=403), True, ["auth"]),
        (Api(auth=401), True, ["auth"]),
        (Api(auth=404, name="bob"), True, ["auth", "whoami"]),
        (Api(name="bob"), False, ["whoami"]),
        (Api(whoami=401), False, ["whoami"]),
    ],
    ids=["read-only", "no-login", "stranger", "stranger-new", "no-login-new"],
)
def test_may_not_write(api, exists, asked):
    """The first no is the answer: nothing else is asked."""
    with pytest.raises(PublishError):
        check_writable(api, "alice/x", Retry(tries=1), exists=exists)
    assert api.asked == asked
