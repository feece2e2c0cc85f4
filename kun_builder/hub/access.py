"""Checks names, token and address of the Hub before any work is done, and asks whether the token may write.

A push that would fail in the end for one of these fails at once instead.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from kun_builder.errors import PublishError
from kun_builder.hub.retry import Retry, answered

_REF = re.compile(r"(?!/)(?!.*(//|/\.|\.\.|@\{|\.lock(/|$)))[^\x00-\x20\x7f~^:?*\[\\]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def check_place(repo: str, endpoint: str, token: str | None) -> None:
    """Raise PublishError for a name of a repository, an address of the Hub or a token that cannot be right.

    No request is made for it.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise PublishError(
            f"`{repo}` cannot be a repository's name: {error}", hint="it is ORG/NAME, for example my-org/my-kun"
        ) from error
    check_address(endpoint)
    check_token(token)


def check_address(endpoint: str) -> None:
    """Raise PublishError unless the address of the Hub is one of the web, with a host."""
    try:
        parts = urlsplit(endpoint)
        possible = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        possible = False
    if not possible:
        raise PublishError(
            f"HF_ENDPOINT is {endpoint!r}, which is no address",
            hint="it is like https://huggingface.co: unset it, or write http:// or https:// before it",
        )


def check_token(token: str | None) -> None:
    """Raise PublishError for a token that no HTTP request can carry. The message does not repeat the token."""
    token = token or get_token()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise PublishError(
            "the Hub token has a character that no token has",
            hint="copy it anew from https://huggingface.co/settings/tokens, or log in with `hf auth login`",
        )


def check_ref(name: str, kind: str) -> None:
    """Raise PublishError for a branch or tag that git refuses."""
    if not _REF.fullmatch(name) or name.endswith((".", "/")) or name.startswith("-") or name == "@":
        raise PublishError(f"{name!r} cannot name a {kind}", hint="use letters, digits, `.`, `-`, `_` and `/`")
    if _COMMIT.fullmatch(name):
        raise PublishError(f"{name} is a commit, not a {kind}: nothing can be added to it")


def check_writable(api: HfApi, repo: str, retry: Retry, *, exists: bool) -> None:
    """Raise PublishError where the token may not write to `repo`, or, if there is none yet, may not create it.

    A server of another make may not know the questions that are asked here. It then decides when it is written to.
    """
    if exists:
        ask = {"repo_id": repo, "repo_type": "dataset", "write": True}
        try:
            retry("asking whether the token may write", api.auth_check, **ask)
            return
        except PublishError as error:
            if answered(error) != 404:
                raise
    try:
        person = retry("asking whose the token is", api.whoami)
    except PublishError as error:
        if answered(error) in (404, 405):
            return
        raise
    if isinstance(person, dict):
        _check_person(person, repo)


def _check_person(person: dict[str, Any], repo: str) -> None:
    """Raise PublishError where the answer of `whoami` says that the token may not write to `repo`.

    It tells which role the token has, and to whose namespaces it belongs.
    """
    owner = repo.partition("/")[0].lower()
    token = _dict(_dict(person.get("auth")).get("accessToken"))
    orgs = {str(org.get("name", "")).lower(): org for org in map(_dict, person.get("orgs") or ())}
    if token.get("role") == "read":
        raise _refused("the token can only read", repo)
    if owner != str(person.get("name", "")).lower() and owner not in orgs:
        raise _refused(f"the token is {person.get('name')}'s, who is no member of {owner}", repo)
    if _dict(orgs.get(owner)).get("roleInOrg") == "read":
        raise _refused(f"{person.get('name')} may only read in {owner}", repo)
    if token.get("role") == "fineGrained":
        scopes = [_dict(scope) for scope in _dict(token.get("fineGrained")).get("scoped") or ()]
        if not any(_covers(scope, owner, repo.lower()) for scope in scopes):
            raise _refused(f"the token's permissions do not include to write to {owner}'s repositories", repo)


def _covers(scope: dict[str, Any], owner: str, repo: str) -> bool:
    name = str(_dict(scope.get("entity")).get("name", "")).lower().removeprefix("datasets/")
    return name in (owner, repo) and "repo.write" in (scope.get("permissions") or ())


def _refused(why: str, repo: str) -> PublishError:
    return PublishError(
        f"cannot publish to {repo}: {why}",
        hint="make a token with write permission at https://huggingface.co/settings/tokens, or name another repository",
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
