"""Errors that servers report in a body: of the request, of a moment, or of the account that pays for all requests.

Only fields that are meant for programs decide (`code`, `type`, `status`), never the words for people.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from kun_builder.errors import FatalError, RejectedError, RequestError, TransientError

_CODES = ("code", "type", "status", "status_code")
_TRANSIENT = frozenset({408, 409, 425, 429})
_FATAL = frozenset({401, 402})
_PASSING = {"rate_limit_exceeded", "rate_limit_error", "server_error", "internal_error", "internal_server_error"}
_PASSING |= {"api_error", "overloaded", "overloaded_error", "engine_overloaded", "service_unavailable", "timeout"}
"""Types of errors, and words in the place of their code, that tell of trouble at the server, not of the request."""
_UNPAID = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_user_quota"}
_UNPAID |= {"exceeded_current_quota_error", "arrearage", "accountoverdueerror", "insufficient_balance"}
"""Words for an account without credit: OpenAI's, those of gateways that resell, Moonshot's, DashScope's, Volcengine's.
They come with 429, 403 and even 400, as if the request were at fault or waiting would help."""
NO_CREDIT = "the account behind the model's `api_key` has no credit left"
NO_KEY = "check the model's `api_key` in the recipe"
_MOST_CODE = 10**8
_SHOWN = 200


def is_unpaid(body: object) -> bool:
    """Whether an error body says that the account has no credit left, so that every request would fail."""
    return bool(_words(_details(body)) & _UNPAID)


def error_in_answer(body: Mapping[str, Any], endpoint: str, shown: Callable[[str], str]) -> RequestError:
    """The error for an answer of status 200 that reports a failure, in the server's own words."""
    details = _details(body)
    said = next((details[key] for key in ("message", "error", "detail", "status_msg") if details.get(key)), "")
    code = next(filter(None, (_number(part.get(key)) for part in (details, body) for key in _CODES)), 0)
    message = f"{endpoint} answered 200 with an error: {shown(str(said or _compact(body)))[:_SHOWN]}"
    words = _words(details) | _words({"type": body.get("error_type")})
    if words & _UNPAID or code in _FATAL:
        hint = NO_KEY if code == 401 else NO_CREDIT
        return FatalError(message, status=code or 402, endpoint=endpoint, hint=hint)
    kind = TransientError if words & _PASSING or code >= 500 or code in _TRANSIENT else RejectedError
    return kind(message, status=code or 200, endpoint=endpoint)


def _details(body: object) -> Mapping[str, Any]:
    """The part of an error body that holds its code: the mapping at `error`, `detail` or MiniMax's `base_resp`."""
    if not isinstance(body, Mapping):
        return {}
    return next((body[key] for key in ("error", "detail", "base_resp") if isinstance(body.get(key), Mapping)), body)


def _words(details: Mapping[str, Any]) -> set[str]:
    return {word.lower() for key in _CODES if isinstance(word := details.get(key), str)}


def _number(value: object) -> int:
    """A code that is a number, or one written as a text; else 0."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 9:
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_CODE else 0


def _compact(body: object) -> str:
    return json.dumps(body, ensure_ascii=False)
