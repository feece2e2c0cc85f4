"""`kun-build plugins search`: packages of the index that say that they are plugins of kun-builder.

PyPI's own search by keyword is gone. What every index has is the list of all names (PEP 691) and, for each file, its
metadata apart (PEP 658). So the names that begin with `kun-`, as `plugins new` gives them, are taken from the list, and
of each the newest file's metadata is read: those with the keyword `kun-builder` are shown.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from email.parser import HeaderParser
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import click

from kun_builder.cli.options import Command, output_options
from kun_builder.cli.output import Output
from kun_builder.errors import PluginError

if TYPE_CHECKING:
    from httpx2 import Client

PREFIX, KEYWORD = "kun-", "kun-builder"
_PYPI = "https://pypi.org/simple/"
_ACCEPT = {"Accept": "application/vnd.pypi.simple.v1+json"}
_INDEX = re.compile(r"^(global|install|:env:)\.index-url='(.*)'$", re.MULTILINE)
_SECONDS = 60.0


@click.command(
    "search",
    cls=Command,
    examples=("kun-build plugins search", "kun-build plugins search poems --json"),
)
@click.argument("word", required=False, default="")
@output_options
def command(word: str, out: Output) -> None:
    """Search the package index for plugins: packages called kun-... with the keyword `kun-builder`.

    WORD, if given, must be in name, summary or keywords.

    The index is pip's: `pip config get global.index-url`, PIP_INDEX_URL, or PyPI, whose list of names is some 40 MB.
    """
    import httpx2

    if os.environ.get("KUN_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise PluginError("the package index is not here, and downloads are switched off (KUN_OFFLINE)")
    index = _index()
    shown = urlsplit(index)._replace(netloc=urlsplit(index).netloc.rpartition("@")[2]).geturl()
    out.note(f"reading the names of {shown}")
    try:
        with httpx2.Client(follow_redirects=True, timeout=_SECONDS) as client:
            names = _names(client, index)
            found = [facts for name in names if (facts := _facts(client, urljoin(index, f"{name}/"), name))]
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise PluginError(
            f"the package index {shown} could not be searched: {type(error).__name__}",
            hint="its address is pip's (`pip config list`); it has to answer in JSON, as PEP 691 says",
        ) from error
    rows = [facts for facts in found if word.lower() in " ".join(map(str, facts.values())).lower()]
    if rows or out.format != "human":
        out.table(("name", "version", "installed", "summary"), rows)
    if not rows:
        out.note(f"no plugin is there of {len(names)} packages called {PREFIX}...")
    else:
        out.note("`pip install NAME` installs one; `kun-build plugins` then lists what it adds")


def _index() -> str:
    """The address that pip installs from, with the password in it, if there is one."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = dict(_INDEX.findall(done.stdout))
    url: str = found.get(":env:") or found.get("install") or found.get("global") or _PYPI
    return url.rstrip("/") + "/"


def _names(client: Client, index: str) -> list[str]:
    answer = client.get(index, headers=_ACCEPT).raise_for_status()
    names = {_normal(project["name"]) for project in json.loads(answer.content)["projects"]}
    return sorted(name for name in names if name.startswith(PREFIX) and name != KEYWORD)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _facts(client: Client, page: str, name: str) -> dict[str, str] | None:
    """What a package says of itself; None if it lacks the keyword `kun-builder` or has no metadata to read."""
    answer = client.get(page, headers=_ACCEPT)
    files = json.loads(answer.content)["files"] if answer.is_success else []
    files = [file for file in files if not file.get("yanked") and _has_metadata(file)]
    if not files:
        return None
    newest = max(files, key=lambda file: file.get("upload-time") or "")
    answer = client.get(urljoin(str(answer.url), f"{newest['url'].partition('#')[0]}.metadata"))
    said = HeaderParser().parsestr(answer.text if answer.is_success else "")
    keywords = [word.strip().lower() for word in re.split(r"[,\s]+", said.get("Keywords", ""))]
    if KEYWORD not in keywords:
        return None
    here = {_normal(one.name): one.version for one in distributions()}
    return {
        "name": name,
        "version": said.get("Version", ""),
        "installed": here.get(name, ""),
        "summary": said.get("Summary", ""),
        "keywords": " ".join(keywords),
    }


def _has_metadata(file: dict[str, Any]) -> bool:
    return bool(file.get("core-metadata") or file.get("data-dist-info-metadata"))
