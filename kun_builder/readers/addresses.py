"""Addresses, such as `s3://bucket/key`: what they are called, what of them may be shown, what can be kept there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import parse_qsl

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = re.compile(r"(?i)https?://")
_WEB_USER, _PASSWORD = re.compile(r"(?<=://)[^/?#]*@"), re.compile(r"(?<=://)[^/?#:]*:[^/?#]*@")
_SECRET = re.compile(r"(?i)key|sig|token|secret|passw|pwd|cred|auth")
_LONG = 20  # characters of a field beyond which it may be a key, whatever its name


def is_address(path: str) -> bool:
    """Whether `path` is an address such as `s3://bucket/key`, not a path of this machine."""
    return bool(_ADDRESS.match(path))


def public(path: str) -> str:
    """`path` as it may be shown: an address without password, a web address also without user and query."""
    bare = path.partition("?")[0] if _WEB.match(path) else path
    return (_WEB_USER if _WEB.match(path) else _PASSWORD).sub("", bare)


def may_hold_key(path: str) -> bool:
    """Whether an address has a password, a web address any user, or a query with what looks like a key."""
    if not is_address(path):
        return False
    web = _WEB.match(path)
    fields = parse_qsl(path.partition("?")[2], keep_blank_values=True)
    secret = any(_SECRET.search(name) or (web and len(value) > _LONG) for name, value in fields)
    return secret or bool((_WEB_USER if web else _PASSWORD).search(path))


def no_folder(address: str) -> str:
    """Why nothing can be kept at an address, in words that follow it; empty if it may be tried."""
    if may_hold_key(address):
        return "has a password or a query that may be a key: keys come from the environment"
    if _WEB.match(address):
        return "can only be read, as all web addresses"
    if address.lower().startswith(("file:", "local:")):
        return "is on this machine: give the path alone"
    return "" if address.partition("://")[2].strip("/") else "names no folder"


def name_of(path: str) -> str:
    """The last part of a path or an address: the name by which a format is told."""
    return PurePosixPath(public(path)).name


_ABOUT = frozenset({"readme.md", "readme.txt", "license", "license.md", "license.txt", "dataset_infos.json"})
"""Files that stand beside the data of a dataset from the Hub and say something of it."""


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a file of a folder is data: of one of the patterns, in capitals or not (`PART.JSONL` is JSON lines as
    well), and no card or license of the rest."""
    lower = PurePosixPath(path.lower())
    return lower.name not in _ABOUT and any(lower.match(pattern.lower()) for pattern in patterns)
