"""How this process's Hub clients send requests: the token stays at home, and only `Retry` tries anything again."""

from __future__ import annotations

from typing import Any

import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import hf_raise_for_status

_PASSING = (429, 500, 502, 503, 504)
_TIMEOUT = httpx2.Timeout(300, connect=30)


def keep_token_home(endpoint: str) -> None:
    """From here on, no request of this process's Hub clients takes the token anywhere but to `endpoint`.

    The Hub's answers name addresses of their own: for uploads, further pages, downloads. Requests also time out.
    """
    home = httpx2.URL(endpoint)

    def stop(response: httpx2.Response) -> None:
        """Raise for what the client would try again by itself, out of sight: `Retry` does."""
        if response.status_code in _PASSING:
            response.read()
            hf_raise_for_status(response)

    def strip(request: httpx2.Request) -> None:
        if (request.url.scheme, request.url.host, request.url.port) != (home.scheme, home.host, home.port):
            request.headers.pop("Authorization", None)

    hooks: Any = {"request": [strip], "response": [stop]}
    set_client_factory(lambda: _Client(event_hooks=hooks, follow_redirects=True, timeout=_TIMEOUT))


class _Client(httpx2.Client):
    """A client whose broken connections are tried again by `Retry` alone, not by the Hub's client as well."""

    def send(self, *args: Any, **options: Any) -> httpx2.Response:
        """Send a request. Raises ConnectionError where no answer comes."""
        try:
            return super().send(*args, **options)
        except (httpx2.TimeoutException, httpx2.NetworkError) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
